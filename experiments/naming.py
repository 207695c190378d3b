"""How a run is named after what differs from its arm's defaults, and its config as plain data."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from typing import Any

SHORT = {"cdnv_weight": "lambda", "release_at": "at", "operation": ""}
"""Field names that file names shorten; others lose their underscores."""
NEGATED = frozenset({"cdnv_weight"})
"""Fields whose name in a file counts the other way: paper A's lambda is what is subtracted."""


def variant(mine: Any, default: Any) -> list[str]:
    """Each field of a dataclass that differs from `default`, like ``at0.25`` for release_at = 0.25."""
    names = [each.name for each in fields(mine) if getattr(mine, each.name) != getattr(default, each.name)]
    return [_named(name, getattr(mine, name)) for name in names]


def plain_data(config: Any) -> dict[str, Any]:
    """A dataclass as JSON gives it back: tuples are lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def _named(name: str, value: Any) -> str:
    short = SHORT.get(name, name.replace("_", ""))
    if isinstance(value, bool):
        return short if value else f"no{short}"
    return short + token(-value if name in NEGATED else value)


def token(value: Any) -> str:
    """A setting's value in a file name."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    text = _number(value) if isinstance(value, float) else str(value)
    token = text.replace("/", "over").replace("*", "times").replace("+", "plus").replace(" ", "")
    # A file's name has room for about 255 characters.
    return token if len(token) <= 60 else hashlib.sha256(text.encode()).hexdigest()[:12]


def _number(value: float) -> str:
    """The shorter of 0.25 and 2.5e-1, without padding zeros in the exponent; the first where they are as long. A number
    of more than six digits is written out, so that no two numbers share a name."""
    value += 0.0  # which takes the sign off a zero
    if float(f"{value:g}") != value:
        return repr(value)
    digits, exponent = f"{value:e}".split("e")
    return min(f"{value:g}", f"{float(digits):g}e{int(exponent)}", key=len)
