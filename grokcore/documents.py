"""Text tables, and the documents in which they stand between markers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from grokcore.errors import UsageError
from grokcore.files import write_text_atomically


class Table(NamedTuple):
    """Cells of plain text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are plain text, so what Markdown reads as marks is escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows])


def plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, one line a row."""
    header, *rows = [[cell.replace("\n", " ") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    )


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table in place of what stands between ``<!-- table NAME -->`` and ``<!-- end -->``.

    Raises:
        UsageError: a table's opening marker has no end of its own before the next one.
    """
    for name, table in tables.items():
        opening = rf"<!-- table {re.escape(name)} -->\n"
        # Never across another marker: what stands between two of them is the author's.
        pattern = rf"({opening})(?:(?!<!-- table ).)*?(<!-- end -->)"
        if len(re.findall(pattern, text, flags=re.DOTALL)) != len(re.findall(opening, text)):
            raise UsageError(f"the line <!-- table {name} --> has no <!-- end --> after it")
        # Backslashes of the table are its own.
        replacement = r"\g<1>" + table.replace("\\", r"\\") + r"\n\g<2>"
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    return text


def write_tables(document: Path, tables: Mapping[str, str]) -> bool:
    """:func:`with_tables` on a file, which keeps its permissions; True where it changed."""
    # A link stays one: what it points to is replaced. A read-only file stays as it is: a move would not ask.
    document = document.resolve()
    text = document.read_text(encoding="utf-8")
    new = with_tables(text, tables)
    if new != text:
        if not document.stat().st_mode & 0o222:
            raise UsageError(f"{document} is read-only")
        write_text_atomically(document, new)
    return new != text


def escaped(cell: str) -> str:
    """Plain text as Markdown shows it, in a table too, where a line break would end the row."""
    cell = cell.replace("\n", " ")
    for mark in "\\|*~":
        cell = cell.replace(mark, "\\" + mark)
    return cell.replace("<", "&lt;")
