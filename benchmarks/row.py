"""A measured line of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grokcore.documents import plain


@dataclass(frozen=True)
class Row:
    """A quantity, its baseline in the same run, and what is asked of their ratio."""

    name: str
    value: str
    ratio: str = ""
    wanted: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def table(rows: Sequence[Row]) -> str:
    """The rows for the terminal."""
    return plain(("what", "measured", "ratio", "wanted"), [(r.name, r.value, r.ratio, r.wanted) for r in rows])
