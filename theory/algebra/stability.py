"""How fast the impurity U = 1 - ||p||^2 of a softmax changes along a path of logits, for every number of classes."""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_pairs import PS, PT, XS, moment, over_pairs
from theory.proof import Proof

a, alpha, beta, w, e = sympy.symbols("a alpha beta omega e", positive=True)


def slope_of_impurity(proof: Proof) -> None:
    """dU along z + tau d, for every K: -2 sum c_s d_s with c_s = p_s^2 - p_s ||p||^2."""
    E, R, d_s, d_rest = sympy.symbols("E R d_s d_r", positive=True)
    # E = e^(z_s + tau d_s) has the derivative d_s E; R, the sum over the other classes, defines d_r by R' = d_r R.
    p = E / (E + R)
    slope = sympy.diff(p, E) * d_s * E + sympy.diff(p, R) * d_rest * R
    proof.identity("p_s' = p_s (d_s - dbar), dbar = sum p_t d_t", slope, p * (d_s - (p * d_s + (1 - p) * d_rest)))
    # XS stands for d_s.
    dbar, weight = moment(1, 1), PS**2 - PS * moment(2, 0)
    change = over_pairs(-2 * PS * PS * (XS - dbar) * PT)
    proof.identity("U' = -2 sum p_s p_s' = -2 sum c_s d_s", change, -2 * over_pairs(weight * XS * PT))
    proof.identity("sum c_s = 0, so min d = 0 and max d = omega may be taken", over_pairs(weight * PT), 0)
    reversed_sum = over_pairs(weight * (w - XS) * PT)
    proof.identity("-sum c_s d_s is the sum of the path omega - d", reversed_sum, -over_pairs(weight * XS * PT))


def largest_slope(proof: Proof, exponent: Any) -> None:
    """2 sum c_s d_s < exponent omega U for 0 <= d <= omega: a sum over one set of classes, then a polynomial."""
    c, d, p, lam, eps, less_b, r, part = sympy.symbols("c d p lambda epsilon delta r l", positive=True)
    # With A = {c_s > 0}: sum c_s d_s <= omega sum_A c_s, term by term, d = omega - e.
    proof.nonnegative("c_s > 0: c_s d_s <= omega c_s", w * c - c * (w - e), strictly=True)
    proof.nonnegative("c_s <= 0: c_s d_s <= 0", c * d)
    # a = sum_A p, alpha = sum_A p^2; b = 1 - a and beta for the other classes. All of them or none: sum_A c_s = 0.
    proof.identity("sum_A c_s = alpha - a (alpha + beta)", (1 - a) * alpha - a * beta, alpha - a * (alpha + beta))
    added = (a + p) ** 2 - (alpha + p**2) - (a**2 - alpha)
    proof.nonnegative("alpha <= a^2, beta <= b^2: a class joins the set, a^2 - alpha grows by", added, strictly=True)
    room = exponent * (1 - alpha - beta) - 2 * ((1 - a) * alpha - a * beta)
    inside = room.subs({alpha: a**2 - eps, beta: lam * (1 - a) ** 2})
    U = (1 - alpha - beta).subs({alpha: a**2 - eps, beta: (1 - a) ** 2 - less_b})
    proof.nonnegative("U > 0, and with it the room where all c_s = 0", U.subs(a, 1 / (1 + r)), strictly=True)
    # beta = 0 and beta = b^2 are ends of the range.
    for text, portion in (("0 < beta < b^2", 1 / (1 + part)), ("beta = 0", sympy.Integer(0)), ("beta = b^2", 1)):
        for place, less in ((", alpha < a^2", eps), (", alpha = a^2", 0)):
            polynomial = inside.subs({lam: portion, eps: less}).subs(a, 1 / (1 + r))
            proof.nonnegative(f"exponent U - 2 sum_A c_s > 0, {text}{place}", polynomial, strictly=True)
