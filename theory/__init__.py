"""The statements about collapse and flatness, as programs: ``theory.statements()`` lists them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from theory.statement import Statement


def statements() -> list[Statement]:
    """Every statement that a file of this folder holds, in the order of their labels.

    The files are imported here and not above: experiments need the formulas only, without computer algebra.
    """
    from theory.statement import Statement

    found: list[Statement] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            room = import_module(f"theory.{module.name}")
            found += [value for value in vars(room).values() if isinstance(value, Statement)]
    return sorted(dict.fromkeys(found), key=lambda statement: statement.label)
