"""Tables and numbers as LaTeX: booktabs, and a macro for every result in the text with the runs behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from grokcore.documents import Table
from grokcore.files import write_text_atomically
from grokcore.training.record import Record

GENERATED = Path(__file__).parent / "generated"
NUMBERS = "numbers.tex"
LEFT = {"paper/theorems": 4}
"""Columns of words, of a table that has more than one."""
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}", "²": r"\ensuremath{^2}", "±": r"\ensuremath{\pm}",
}  # fmt: skip


class Number(NamedTuple):
    """What a macro says, and the runs that it is computed from."""

    value: str
    records: Sequence[Record]


def escaped(text: str) -> str:
    """Plain text as LaTeX prints it; a minus before a digit is one."""
    return "".join(ESCAPES.get(character, character) for character in text)


def booktabs(table: Table, left: int = 1) -> str:
    """A tabular with rules above, below the header and below; the first columns left, the others right."""
    header, rows = table
    lines = [rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}", r"\toprule", _row(header), r"\midrule"]
    return "\n".join([*lines, *map(_row, rows), r"\bottomrule", r"\end{tabular}", ""])


def chosen(table: Table, columns: Mapping[str, str], rows: Mapping[str, str] | None = None) -> Table:
    """Some columns, and some rows by their first cell, under new names and in their order."""
    places = [list(table.header).index(name) for name in columns]
    by_name = {row[0]: row for row in table.rows}
    names = rows if rows is not None else {name: name for name in by_name}
    found = [[names[name], *(by_name[name][i] for i in places)] for name in names if name in by_name]
    return Table(["", *columns.values()], found)


def numbers_text(numbers: Mapping[str, Number]) -> str:
    """A ``\\newcommand`` a number, the ids of its runs in a comment above."""
    parts = ["% Written by python -m paper tables from the recorded results. Do not edit."]
    for name, (value, records) in sorted(numbers.items()):
        ids = " ".join(record.run_id for record in records)
        parts.append(f"% {ids or 'no run: theory'}\n\\newcommand{{\\{name}}}{{{value}}}")
    return "\n".join(parts) + "\n"


def slug(name: str) -> str:
    """A table's name as its file's."""
    return "".join(character if character.isalnum() or character in ".-" else "-" for character in name)


def files(tables: Mapping[str, Table], numbers: Mapping[str, Number]) -> dict[str, str]:
    """What stands in each file of the generated folder."""
    found = {f"{slug(name)}.tex": booktabs(table, LEFT.get(name, 1)) for name, table in tables.items()}
    return found | {NUMBERS: numbers_text(numbers)}


def write(contents: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the files that differ; returns them. Other files of the folder stay: it may be anybody's."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(contents, folder)
    for name in changed:
        write_text_atomically(folder / name, contents[name])
    return [folder / name for name in changed]


def stale(contents: Mapping[str, str], folder: Path) -> list[str]:
    """The names of the files that are not as they would be written."""
    return [name for name, text in contents.items() if not _holds(folder / name, text)]


def strays(contents: Mapping[str, str], folder: Path) -> list[str]:
    """Files of the folder that hold no table."""
    return sorted(path.name for path in folder.iterdir() if path.name not in contents)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
