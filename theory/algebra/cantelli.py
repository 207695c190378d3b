"""Cantelli's inequality, twice: by a quadratic majorant with its optimal shift, and by the law of total variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import z3

from theory.algebra.class_pairs import lagrange
from theory.numeric.cantelli import Rule
from theory.proof import Proof

t, v, u, more = sympy.symbols("t v u e", positive=True)
"""E T > 0, Var T, the majorant's shift, and more of the variance."""
D = sympy.Symbol("D")
"""T - E T."""


def _mean(quadratic: Any) -> Any:
    """E of a quadratic polynomial in D: E D = 0 and E D^2 = v."""
    constant, _, square = (sympy.Poly(quadratic, D).coeff_monomial(D**power) for power in (0, 1, 2))
    return constant + v * square


def one_sided(proof: Proof, rule: Rule) -> None:
    """P(T <= 0) <= rule, for every T with E T = t and Var T = v, by 1[T <= 0] <= ((u - D)/(t + u))^2."""
    x = sympy.Symbol("x", nonnegative=True)
    majorant = ((u - D) / (t + u)) ** 2
    # Elsewhere it is a square, and the indicator is 0.
    proof.nonnegative("T = -x <= 0: the majorant is at least 1", majorant.subs(D, -x - t) - 1)
    mean = _mean(majorant)
    proof.identity("its mean is (v + u^2)/(t + u)^2", mean, (v + u**2) / (t + u) ** 2)
    best = mean.subs(u, v / t)
    loss = (t * u - v) ** 2 / ((t + u) ** 2 * (v + t**2))
    proof.identity("u = v/t is the best shift: a square is left", mean - best, loss)
    proof.nonnegative("m > 0, V > 0: the term is at least the mean at u = v/t", rule.ahead(t**2, v) - best)
    scaled = rule.ahead((u * t) ** 2, u**2 * v)
    proof.identity("the length of w_c - w_k cancels: T over it has m and V", scaled, rule.ahead(t**2, v))
    # At the edges T is a constant, and so is the indicator.
    proof.require("m > 0, V = 0: there is no error", bool(rule.still >= 0))
    proof.require("m = 0, V = 0: every point ties", bool(rule.tie >= 1))
    proof.nonnegative("m < 0: all may be errors", rule.behind(t**2, v) - sympy.Integer(1))


def attained(proof: Proof, rule: Rule) -> None:
    """Two values, 0 (a tie) and t + v/t, have this mean and variance and attain it."""
    p, high = v / (v + t**2), t + v / t
    proof.identity("two values: their mean is t", (1 - p) * high, t)
    proof.identity("two values: their variance is v", (1 - p) * high**2 - t**2, v)
    proof.identity("two values: P(T <= 0) is the term", p, rule.ahead(t**2, v))


def by_total_variance(proof: Proof, rule: Rule) -> None:
    """The same by z3: Var T >= p (1-p) (b-a)^2 with a, b the means of T on T <= 0 and on T > 0, p = P(T <= 0)."""
    p, a, b, mean, variance = z3.Reals("p a b t v")
    square = mean * mean
    term = z3.If(
        mean > 0, rule.ahead(square, variance), z3.If(mean == 0, _real(rule.tie), _real(rule.behind(square, variance)))
    )
    split = [p > 0, p < 1, a <= 0, b > 0, mean == p * a + (1 - p) * b, variance >= p * (1 - p) * (b - a) * (b - a)]
    proof.unsatisfiable("no split {T <= 0}, {T > 0} has P(T <= 0) above the term", [*split, variance > 0, p > term])
    proof.unsatisfiable("nor where T <= 0 always", [mean <= 0, variance > 0, term < 1])
    proof.unsatisfiable("nor where T > 0 always", [mean > 0, variance > 0, term < 0])


def _real(value: Any) -> Any:
    return value if isinstance(value, z3.ExprRef) else z3.RealVal(str(value))


def union(proof: Proof, combine: Callable[[list[Any]], Any]) -> None:
    """P(A or B) <= combine(P(A), P(B)): by induction over the other classes the union bound."""
    both, first, second = z3.Reals("P_AB P_A P_B")
    events = [first >= 0, first <= 1, second >= 0, second <= 1, both >= 0, both <= first, both <= second]
    whole = first + second - both
    proof.unsatisfiable("P(A or B) above the pairs' terms", [*events, whole <= 1, whole > combine([first, second])])


def direction(proof: Proof, rule: Rule) -> None:
    """The variance along a direction is at most the trace, and the term rises with the variance."""
    lagrange(proof, "||d||^2 ||x||^2 - <d, x>^2 is a sum of squares, every m")
    rise = rule.ahead(t**2, v + more) - rule.ahead(t**2, v)
    proof.nonnegative("more variance, a larger term: the directional bound is never looser", rise)
