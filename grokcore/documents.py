"""Text tables, and the documents in which they stand between markers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are plain text, so ``|`` and ``<`` are escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows])


def plain(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    )


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table in place of what stands between ``<!-- table NAME -->`` and ``<!-- end -->``."""
    for name, table in tables.items():
        pattern = rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)"
        # Backslashes of the table are its own.
        replacement = r"\g<1>" + table.replace("\\", r"\\") + r"\n\g<2>"
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    return text


def write_tables(document: Path, tables: Mapping[str, str]) -> bool:
    """:func:`with_tables` on a file; True where it changed."""
    text = document.read_text(encoding="utf-8")
    new = with_tables(text, tables)
    if new != text:
        write_text_atomically(document, new)
    return new != text


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a text file in one move."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def escaped(cell: str) -> str:
    """Plain text as Markdown shows it, in a table too."""
    for mark in "\\|*~":
        cell = cell.replace(mark, "\\" + mark)
    return cell.replace("<", "&lt;")
