"""How a number becomes a macro of the text: its name in letters, its value in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from grokcore.training.record import Record
from grokcore.training.table import short, spread
from paper.latex import Number

_WORDS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
DIGITS = {str(digit): word for digit, word in enumerate(_WORDS)}


def title(words: str) -> str:
    """``ncc_prevent+augment`` as NccPreventAugment; digits are spelled, as a macro's name has letters only."""
    parts = re.split(r"[^A-Za-z0-9]+", words)
    joined = "".join(part[:1].upper() + part[1:] for part in parts)
    return "".join(DIGITS.get(character, character) for character in joined)


def tex(text: str) -> str:
    """A number with its spread as LaTeX prints it, in text or in a formula."""
    text = re.sub(r"(\d(?:\.\d+)?)e([+-]?)0*(\d+)", _power, text)
    text = re.sub(r"(?<![\w{^.])([+-])(?=\d)", r"\\ensuremath{\1}", text)
    return re.sub(r"(?<=\d),(?=\d{3})", "{,}", text).replace(" [", "~[")


def _power(found: re.Match[str]) -> str:
    sign = found[2].replace("+", "")
    return rf"\ensuremath{{{found[1]}\cdot10^{{{sign}{found[3]}}}}}"


def short_tex(value: float) -> str:
    """Three digits."""
    return short(value)


def step_tex(value: float) -> str:
    """A step, with separators."""
    return f"{value:,.0f}"


def over(records: Sequence[Record], of: Callable[[Record], float], show: Callable[[float], str]) -> Number:
    """Median [least, greatest] of a number of each run."""
    return Number(tex(spread([of(record) for record in records], show)), records)
