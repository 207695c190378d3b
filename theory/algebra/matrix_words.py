"""Matrix identities for matrices of every size: words in noncommuting letters.

A letter is a matrix; a trailing apostrophe is its transpose. What is assumed of the matrices (a stationarity
condition, that a projection is idempotent) goes in as rules that rewrite a product; what follows is compared
word by word, so nothing depends on the sizes. `at` evaluates a word at explicit matrices: the check that this
algebra is matrix algebra.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from numpy.typing import NDArray

Word = tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """A linear combination of words with sympy coefficients; the empty word is the identity."""

    terms: Mapping[Word, Any]

    def __add__(self, other: Words) -> Words:
        return _collect([*self.terms.items(), *other.terms.items()])

    def __sub__(self, other: Words) -> Words:
        negative: Words = (-1) * other
        return self + negative

    def __rmul__(self, scalar: Any) -> Words:
        return Words({word: scalar * value for word, value in self.terms.items()})

    def __matmul__(self, other: Words) -> Words:
        return _collect((a + b, x * y) for a, x in self.terms.items() for b, y in other.terms.items())

    @property
    def T(self) -> Words:  # noqa: N802
        """The transpose: letters in reverse order, each transposed."""
        return _collect((_transposed(word), value) for word, value in self.terms.items())

    def given(self, *rules: tuple[Words, Words]) -> Words:
        """Rewrite by rules, each a single word (coefficient 1) and what it equals, until none applies."""
        found = self
        for _ in range(50):
            following = _once(found, rules)
            if following is None:
                return found
            found = following
        raise ValueError("these rules do not come to an end")

    def equals(self, other: Words) -> bool:
        """Whether both are the same combination of words, coefficients compared as rational expressions."""
        return all(_zero(value) for value in (self - other).terms.values())

    def trace(self) -> Words:
        """The trace, where words equal up to rotation and transposition are one."""
        return _collect((_necklace(word), value) for word, value in self.terms.items())

    def at(self, matrices: Mapping[str, NDArray[np.float64]], values: Mapping[Any, float]) -> NDArray[np.float64]:
        """The combination at explicit matrices, with numbers for the symbols in its coefficients; no empty word."""
        total: Any = 0.0
        for word, value in self.terms.items():
            factors = [matrices[letter.rstrip("'")].T if "'" in letter else matrices[letter] for letter in word]
            product = factors[0]
            for factor in factors[1:]:
                product = product @ factor
            total = total + float(sympy.sympify(value).subs(values)) * product
        return np.asarray(total)


def letters(names: str) -> list[Words]:
    """One matrix for each name in a string of names."""
    return [Words({(name,): sympy.Integer(1)}) for name in names.split()]


IDENTITY = Words({(): sympy.Integer(1)})


def symmetric(*matrices: Words) -> list[tuple[Words, Words]]:
    """The rules M' = M."""
    return [(matrix.T, matrix) for matrix in matrices]


def _once(expression: Words, rules: Iterable[tuple[Words, Words]]) -> Words | None:
    for word, value in expression.terms.items():
        for pattern, replacement in rules:
            (left,) = pattern.terms
            for start in range(len(word) - len(left) + 1):
                if word[start : start + len(left)] == left:
                    before, after = (
                        Words({part: sympy.Integer(1)}) for part in (word[:start], word[start + len(left) :])
                    )
                    rest = Words({w: v for w, v in expression.terms.items() if w != word})
                    rewritten: Words = value * (before @ replacement @ after)
                    return rest + rewritten
    return None


def _collect(terms: Iterable[tuple[Word, Any]]) -> Words:
    total: dict[Word, Any] = {}
    for word, value in terms:
        total[word] = total.get(word, sympy.Integer(0)) + value
    return Words({word: value for word, value in total.items() if not _zero(value)})


def _zero(value: Any) -> bool:
    return bool(value == 0 or sympy.cancel(sympy.together(sympy.expand(value))) == 0)


def _transposed(word: Word) -> Word:
    return tuple(letter[:-1] if letter.endswith("'") else letter + "'" for letter in reversed(word))


def _necklace(word: Word) -> Word:
    both = (word, _transposed(word))
    return min((w[i:] + w[:i] for w in both for i in range(len(w))), default=())
