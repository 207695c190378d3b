"""A measured line of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grokcore.documents import plain
from grokcore.errors import without_nan


@dataclass(frozen=True)
class Row:
    """A quantity, its ratio to another one of the same run, and what is asked of that ratio."""

    name: str
    value: float | None
    """None where it could not be measured; `note` says why."""
    unit: str = "s"
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def measured(self) -> str:
        """The value with its unit, for people."""
        if self.value is None:
            return self.note
        value, unit = self.value, self.unit
        if unit == "s":
            value, unit = next(
                (value * k, u) for k, u in ((1, "s"), (1e3, "ms"), (1e6, "us")) if value * k >= 1 or k > 1e3
            )
        return f"{_digits(value)} {unit}"

    @property
    def wanted(self) -> str:
        """What is asked of the ratio; empty where nothing is."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """``met`` or ``missed`` where something is asked of a ratio that was measured."""
        if self.ratio is None or not self.wanted:
            return ""
        low = self.at_least is None or self.ratio >= self.at_least
        high = self.at_most is None or self.ratio <= self.at_most
        return "met" if low and high else "missed"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a value in seconds stays in seconds."""
        fields: dict[str, Any] = without_nan(asdict(self))
        return fields | {"verdict": self.verdict}


def table(rows: Sequence[Row]) -> str:
    """The rows for the terminal."""
    header = ("what", "measured", "ratio", "wanted", "")
    ratios = ["" if row.ratio is None else _digits(row.ratio) for row in rows]
    cells = [(r.name, r.measured, ratio, r.wanted, r.verdict) for r, ratio in zip(rows, ratios, strict=True)]
    return plain(header, cells)


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
