"""Whether the paper says what its results say: hashes, figures, tables, and no number of its own in the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from grokcore.errors import UsageError
from grokcore.training.record import read_record

TEXT = Path(__file__).parent / "main.tex"
NUMBER = re.compile(r"(?<![\w.\\])(\d{1,3}(?:(?:,|\{,\})\d{3})+|\d+\.\d+|\d{4,}|\d+(?:\.\d+)?[eE]-?\d+)(?![\w])")
"""A decimal number, or one of a thousand and more."""
IGNORED = (
    r"(?<!\\)%.*",  # comments
    r"\\(?:includegraphics|resizebox|scalebox|vspace|hspace|setlength|addtolength|geometry|documentclass|usepackage|renewcommand)"
    r"\*?(?:\[[^\]]*\])?(?:\{[^{}]*\})*",  # lengths and packages
    r"\\(?:cite[a-z]*|ref|eqref|label|input|bibitem|url|href)(?:\[[^\]]*\])?\{[^{}]*\}",
)


def check_results(results: Path) -> int:
    """Every result file against its hash and its path; returns how many there are.

    Raises:
        UsageError: one does not match, or there is none.
    """
    paths = sorted(results.rglob("*.json"))
    for path in paths:
        if read_record(path).path != path.relative_to(results):
            raise UsageError(f"{path} holds the result of {read_record(path).path}")
    if not paths:
        raise UsageError(f"there are no recorded results below {results}")
    return len(paths)


def bare_numbers(text: str, constants: Mapping[str, str]) -> list[tuple[int, str]]:
    """Decimal numbers in LaTeX that are neither a macro nor a listed constant, with their lines."""
    for pattern in IGNORED:
        text = re.sub(pattern, "", text)
    found = []
    for line, words in enumerate(text.splitlines(), 1):
        for match in NUMBER.finditer(words):
            number = match[1].replace("{,}", ",")
            if number not in constants:
                found.append((line, number))
    return found


def unused(text: str, constants: Mapping[str, str]) -> list[str]:
    """Listed constants that the text does not hold."""
    plain = text.replace("{,}", ",")
    return [number for number in constants if number not in plain]


def undefined_macros(text: str, defined: Mapping[str, object], prefix: str) -> list[str]:
    """Macros of results, which begin with `prefix`, that nothing defines."""
    return sorted({name for name in re.findall(rf"\\({prefix}[A-Za-z]+)", text) if name not in defined})
