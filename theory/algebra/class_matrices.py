"""Computer algebra with K x K matrices for symbolic K, where no class is singled out.

theory/class_symmetry.py has the matrices that one sample sees: its own class and the others. A perturbation of all
class means is a general K x K matrix instead; it splits under permutations of rows and columns together into a few
kinds (the isotypic decomposition). Each kind is represented by one letter: I, J = 11^T, V = diag(v) with
1^T v = 0, v1^T, 1v^T, a symmetric S and an antisymmetric T, both with S1 = T1 = 0 and diag S = 0. The span is
closed under products with J, transposition and taking the diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from theory.algebra.class_symmetry import K

_LEFT = {"I": ("J", 1), "J": ("J", K), "V": ("1v", 1), "1v": ("1v", K)}  # J times the letter; the others give 0
_RIGHT = {"I": ("J", 1), "J": ("J", K), "V": ("v1", 1), "v1": ("v1", K)}
_TRANSPOSED = {"v1": ("1v", 1), "1v": ("v1", 1), "T": ("T", -1)}
_DIAGONAL = {"I": "I", "J": "I", "V": "V", "v1": "V", "1v": "V"}


@dataclass(frozen=True)
class ClassMatrix:
    """A combination of the seven letters, with sympy coefficients."""

    terms: Mapping[str, Any]

    def __add__(self, other: ClassMatrix) -> ClassMatrix:
        both = {*self.terms, *other.terms}
        return ClassMatrix({name: self.terms.get(name, 0) + other.terms.get(name, 0) for name in both})

    def __sub__(self, other: ClassMatrix) -> ClassMatrix:
        return self + (-1) * other

    def __rmul__(self, scalar: Any) -> ClassMatrix:
        return ClassMatrix({name: scalar * value for name, value in self.terms.items()})

    def centre_columns(self) -> ClassMatrix:
        """P times the matrix: every column sums to 0."""
        shifted: ClassMatrix = (1 / K) * self._mapped(_LEFT)
        return self - shifted

    def centre_rows(self) -> ClassMatrix:
        """The matrix times P: every row sums to 0."""
        shifted: ClassMatrix = (1 / K) * self._mapped(_RIGHT)
        return self - shifted

    @property
    def T(self) -> ClassMatrix:  # noqa: N802
        """The transpose."""
        return self._mapped({**{name: (name, 1) for name in "IJVS"}, **_TRANSPOSED})

    def diagonal(self) -> ClassMatrix:
        """The matrix with everything off its diagonal put to 0."""
        return self._mapped({name: (to, 1) for name, to in _DIAGONAL.items()})

    def coefficients(self) -> Any:
        """The seven coefficients, a sympy column."""
        return sympy.Matrix([self.terms.get(name, 0) for name in _LETTERS])

    def explicit(self, v: Any, S: Any, T: Any) -> Any:
        """The matrix written out at an explicit v, S and T: the check that this algebra is matrix algebra."""
        size = len(v)
        one, column = sympy.ones(size, 1), sympy.Matrix(v)
        spelt = {"I": sympy.eye(size), "J": one * one.T, "V": sympy.diag(*v), "S": S, "T": T}
        spelt |= {"v1": column * one.T, "1v": one * column.T}
        total = sum((value * spelt[name] for name, value in self.terms.items()), sympy.zeros(size, size))
        return total.subs(K, size)

    def _mapped(self, images: Mapping[str, tuple[str, Any]]) -> ClassMatrix:
        total = ClassMatrix({})
        for name, value in self.terms.items():
            if name in images:
                to, factor = images[name]
                total = total + ClassMatrix({to: factor * value})
        return total


_LETTERS = ("I", "J", "V", "v1", "1v", "S", "T")


def letter(name: str) -> ClassMatrix:
    """One of the seven."""
    return ClassMatrix({name: sympy.Integer(1)})


FAMILIES = {
    "trivial": letter("I").centre_columns(),
    "standard": letter("V").centre_columns().centre_rows(),
    "symmetric": letter("S"),
    "antisymmetric": letter("T"),
}
"""P, P diag(v) P, S and T: the matrices whose rows and columns sum to 0, one of each kind."""
