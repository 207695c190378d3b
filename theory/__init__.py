"""The statements about collapse and flatness, as programs: ``theory.statements()`` lists them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from theory.statement import Statement

ROOMS = (
    "head",
    "collapse_curve",
    "low_loss",
    "rise_then_fall",
    "spectrum",
    "optimality",
    "converse",
    "surrogate",
    "unconstrained",
    "landscape",
    "clocks",
)
"""The files that hold statements, in the order in which they are listed."""


def statements() -> list[Statement]:
    """Every statement, in order.

    The rooms are imported here and not above: experiments need the formulas only, without computer algebra.
    """
    from theory.statement import Statement

    found = []
    for room in ROOMS:
        module = import_module(f"theory.{room}")
        found += [value for value in vars(module).values() if isinstance(value, Statement)]
    return sorted(dict.fromkeys(found), key=lambda statement: statement.label)
