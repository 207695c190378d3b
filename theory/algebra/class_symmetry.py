"""Computer algebra with K x K matrices for symbolic K, where one class is singled out.

Everything that a collapsed sample of class c sees of the other classes is symmetric under their
permutations, so its matrices are a I plus combinations of e e^T, e 1^T, 1 e^T and 1 1^T, with e = e_c.
Products, traces and diagonals of such matrices follow from <e, e> = <e, 1> = 1 and <1, 1> = K alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy

K = sympy.Symbol("K", positive=True)


@dataclass(frozen=True)
class OneClass:
    """identity * I + [e, 1] corner [e, 1]^T, a K x K matrix; `corner` is 2 x 2 in sympy."""

    identity: Any
    corner: Any

    def __add__(self, other: OneClass) -> OneClass:
        return OneClass(self.identity + other.identity, self.corner + other.corner)

    def __rmul__(self, scalar: Any) -> OneClass:
        return OneClass(scalar * self.identity, scalar * self.corner)

    def __matmul__(self, other: OneClass) -> OneClass:
        mixed = self.identity * other.corner + other.identity * self.corner + self.corner * _GRAM * other.corner
        return OneClass(self.identity * other.identity, mixed)

    def trace(self) -> Any:
        """The trace, with K as a symbol."""
        return self.identity * K + (self.corner * _GRAM).trace()

    def form(self, x: tuple[Any, Any], y: tuple[Any, Any]) -> Any:
        """u^T A v for the vectors u = x_1 e + x_2 1 and v = y_1 e + y_2 1."""
        return (self @ outer(y, x)).trace()

    def explicit(self, classes: int, c: int = 0) -> Any:
        """The matrix written out for a number of classes: the check that this algebra is matrix algebra."""
        e = sympy.zeros(classes, 1)
        e[c] = 1
        both = sympy.Matrix.hstack(e, sympy.ones(classes, 1))
        return (self.identity * sympy.eye(classes) + both * self.corner * both.T).subs(K, classes)


_GRAM = sympy.Matrix([[1, 1], [1, K]])


def outer(x: tuple[Any, Any], y: tuple[Any, Any]) -> OneClass:
    """(x_1 e + x_2 1)(y_1 e + y_2 1)^T."""
    return OneClass(sympy.Integer(0), sympy.Matrix(x) * sympy.Matrix(y).T)


def diagonal(x: tuple[Any, Any]) -> OneClass:
    """diag(x_1 e + x_2 1)."""
    return OneClass(x[1], sympy.Matrix([[x[0], 0], [0, 0]]))


IDENTITY = OneClass(sympy.Integer(1), sympy.zeros(2, 2))
CENTRING = OneClass(sympy.Integer(1), sympy.Matrix([[0, 0], [0, -1 / K]]))
"""P = I - 11^T/K."""


def softmax_hessian(p_true: Any, p_other: Any) -> OneClass:
    """diag(p) - p p^T for p = p_true on class c and p_other on every other class."""
    p = (p_true - p_other, p_other)
    return diagonal(p) + (-1) * outer(p, p)
