"""Computer algebra for a softmax head with any number of classes: two classes or two features are singled out.

Sums over pairs of classes become moments sum_s p_s^a x_s^b, and second derivatives of the loss are taken with
everything that the other classes and features contribute as one symbol each, so no size is ever fixed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy

from theory.proof import Proof

PS, XS, PT, XT = sympy.symbols("p_s x_s p_t x_t")
"""Probability and one coordinate of the row, for the classes s and t: the summands of :func:`over_pairs`."""


def moment(a: int, b: int) -> Any:
    """sum_s p_s^a x_s^b as a symbol, with sum_s p_s = 1; M_00 is the number of classes, which is never fixed."""
    return sympy.Integer(1) if (a, b) == (1, 0) else sympy.Symbol(f"M_{a}{b}")


def over_pairs(summand: Any) -> Any:
    """The sum over all pairs of classes (s, t), s = t included, of a polynomial in PS, XS, PT, XT; every K at once.

    A sum over s alone is the sum of its summand times PT.
    """
    terms = sympy.Poly(sympy.expand(summand), PS, XS, PT, XT).terms()
    return sum(factor * moment(a, b) * moment(c, d) for (a, b, c, d), factor in terms)


def lagrange(proof: Proof, text: str) -> None:
    """Lagrange's identity, which is Cauchy-Schwarz: ||x||^2 ||y||^2 - <x, y>^2 = (1/2) sum (x_j y_k - x_k y_j)^2.

    Here PS stands for a coordinate of x and XS for one of y: sums over coordinates, every m.
    """
    squares = over_pairs((XS * PT - XT * PS) ** 2) / 2
    proof.identity(text, moment(2, 0) * moment(0, 2) - moment(1, 1) ** 2, squares)


H_J, H_K = sympy.symbols("h_j h_k", real=True)
TARGETS = sympy.symbols("y_s y_t", real=True)
"""Two features of the sample, and its targets for the classes s and t: what :func:`derived_entries` is in."""


@cache
def derived_entries(targets: Any = 1) -> dict[str, Any]:
    """Second derivatives of one sample's loss in W_sj and each of W_sj, W_sk, W_tj, W_tk, s != t, j != k.

    For every K and m, by differentiation of targets * log(sum of exp) - sum_s y_s z_s: what the other classes add to
    the sum is one symbol, what the other features add to a logit another. `targets` is the sum of the targets y.
    """
    w_sj, w_sk, w_tj, w_tk, c_s, c_t = sympy.symbols("w_sj w_sk w_tj w_tk c_s c_t", real=True)
    y_s, y_t = TARGETS
    rest, total = sympy.symbols("R Z", positive=True)
    z_s, z_t = w_sj * H_J + w_sk * H_K + c_s, w_tj * H_J + w_tk * H_K + c_t
    loss = targets * sympy.log(rest + sympy.exp(z_s) + sympy.exp(z_t)) - y_s * z_s - y_t * z_t
    to_probabilities = {**_powers(z_s, PS * total), **_powers(z_t, PT * total), rest: (1 - PS - PT) * total}
    others = {"sj, sj": w_sj, "sj, sk": w_sk, "sj, tj": w_tj, "sj, tk": w_tk}
    return {key: sympy.cancel(loss.diff(w_sj, other).subs(to_probabilities)) for key, other in others.items()}


def curvature_form(x_s: Any, x_t: Any) -> Any:
    """sum_{s,t} Q_st x_s x_t over all classes, where the derived block H_st is Q_st h h^T.

    `x_s` is a polynomial in PS and XS, `x_t` one in PT and XT.
    """
    entries = derived_entries()
    diagonal, off = sympy.cancel(entries["sj, sj"] / H_J**2), sympy.cancel(entries["sj, tj"] / H_J**2)
    # The sum over s != t is that over all pairs less the terms s = t.
    same = {PT: PS, XT: XS}
    on_diagonal = (diagonal - off.subs(same)) * x_s * sympy.sympify(x_t).subs(same)
    return over_pairs(on_diagonal * PT) + over_pairs(off * x_s * x_t)


def expanded(K: int, m: int) -> tuple[Any, Any, Any, Any]:
    """The Hessian (Km x Km) of one sample's cross-entropy written out, with W, h and p, all in symbols.

    p is rational in the symbols E_s = e^{z_s}.
    """
    W = sympy.Matrix(K, m, lambda s, j: sympy.Symbol(f"w_{s}{j}", real=True))
    h = sympy.Matrix(m, 1, lambda j, _: sympy.Symbol(f"h_{j}", real=True))
    z = W * h + sympy.Matrix(K, 1, lambda s, _: sympy.Symbol(f"b_{s}", real=True))
    E = sympy.symbols(f"E_:{K}", positive=True)
    loss = sympy.log(sum(sympy.exp(entry) for entry in z)) - z[0]
    to_exponentials = {key: value for s in range(K) for key, value in _powers(z[s], E[s]).items()}
    return sympy.hessian(loss, list(W)).subs(to_exponentials), W, h, sympy.Matrix(E) / sum(E)


def _powers(logit: Any, value: Any) -> dict[Any, Any]:
    """What stands for e^z and for its square, which sympy keeps as e^{2z}."""
    return {sympy.exp(2 * logit): value**2, sympy.exp(logit): value}
