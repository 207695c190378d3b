"""What E4 is made of: the exponential moments of a uniform direction, term by term; the rise of the loss; convexity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy

from theory.proof import Proof

m, k = sympy.Symbol("m", positive=True), sympy.Symbol("k", nonnegative=True)
"""The number of features, and half of a power."""
mu = sympy.Symbol("mu", nonnegative=True)
"""m - 1."""


def direction_moments(proof: Proof, proxy: Any) -> None:
    """E exp<x, u> <= exp(proxy ||x||^2/2) for u uniform on the unit sphere of R^m: no coefficient is above."""
    x, rho, inner, entry = sympy.symbols("x rho y u", positive=True)
    # E<x, u>^(2k) does not change when x turns, and is homogeneous: c_k ||x||^(2k); odd powers have mean 0.
    twice = sympy.diff((inner + entry * x) ** (2 * k + 2), x, 2)
    claimed = (2 * k + 2) * (2 * k + 1) * entry**2 * (inner + entry * x) ** (2 * k)
    text = "one coordinate of Laplace's operator on <x, u>^(2k+2): the sum of u_i^2 is 1"
    proof.identity(text, sympy.simplify(twice / claimed), 1)
    R = x**2 + rho
    radial = 2 * (k + 1) * R**k + 4 * k * (k + 1) * x**2 * R ** (k - 1)
    found = sympy.simplify(sympy.diff(R ** (k + 1), x, 2) / radial)
    proof.identity("one coordinate of it on ||x||^(2k+2)", found, 1)
    summed = 2 * (k + 1) * m + 4 * k * (k + 1)
    proof.identity("all m: a multiple of ||x||^(2k)", summed, (2 * k + 2) * (2 * k + m))
    # So c_(k+1) (2k+2)(2k+m) = (2k+2)(2k+1) c_k, and a_k = c_k/(2k)! is the coefficient of E exp<x, u>.
    c = sympy.Symbol("c", positive=True)
    moments = c * (2 * k + 2) * (2 * k + 1) / summed
    coefficient = moments / c / ((2 * k + 1) * (2 * k + 2))
    proof.identity("a_(k+1)/a_k = 1/((2k+2)(2k+m)), a_0 = 1", coefficient, 1 / ((2 * k + 2) * (2 * k + m)))
    # b_k = (proxy/2)^k/k! of exp(proxy ||x||^2/2), b_0 = 1.
    above = (proxy / (2 * (k + 1)) - coefficient).subs(m, 1 + mu)
    proof.nonnegative("b_1 >= a_1", above.subs(k, 0))
    proof.nonnegative("b_(k+1)/b_k >= a_(k+1)/a_k, so no coefficient of the mean is above, every k and m", above)


def other_laws(proof: Proof) -> None:
    """Signs and normal numbers over sqrt(m) in place of Haar: the same exponential moments bound them."""
    direction_moments_of_signs = 1 / ((2 * k + 2) * (2 * k + 1))
    step = 1 / (2 * (k + 1)) - direction_moments_of_signs
    proof.nonnegative("a fair sign: cosh(x) <= exp(x^2/2), term by term", step)
    x, number = sympy.symbols("x n", real=True)
    text = "a normal number n: e^(xn) times its density is exp(x^2/2) times that of n - x"
    proof.identity(text, x * number - number**2 / 2, x**2 / 2 - (number - x) ** 2 / 2)
    a, h = (sympy.Matrix(sympy.symbols(f"{name}:3")) for name in "ah")
    # No coefficient holds more than one index of each: three show all of them.
    exponent = sum(a[i] ** 2 * h[j] ** 2 / (2 * m) for i in range(3) for j in range(3))
    text = "independent entries of a.Zh/sqrt(m): the exponents add up to ||a||^2 ||h||^2/(2m)"
    proof.identity(text, exponent, a.dot(a) * h.dot(h) / (2 * m))


def rise_of_the_loss(proof: Proof) -> None:
    """E_A of the loss as E log E_{s ~ p} exp(d <w_s - wbar, Ah>): three classes, which show every index."""
    e, shift = sympy.symbols("e_:3", positive=True), sympy.symbols("x_:3", positive=True)
    p = [value / sum(e) for value in e]
    before, after = sum(e), sum(a * b for a, b in zip(e, shift, strict=True))
    # e^loss = sum_s e^z_s/e^z_y, and the logits move by log x_s = d <w_s, Ah>.
    ratio = (after / (e[0] * shift[0])) / (before / e[0])
    mean = sum(a * b for a, b in zip(p, shift, strict=True))
    proof.identity("e^(rise) = E_{s ~ p} exp(d <w_s, Ah>) e^(-d <w_y, Ah>)", ratio, mean / shift[0])
    common = sympy.Symbol("g", positive=True)
    centred = sum(a * b / common for a, b in zip(p, shift, strict=True))
    # log g = d <wbar, Ah> and the exponent of the true class are odd in A: their mean is 0.
    proof.identity("g = exp(d <wbar, Ah>) taken out", mean, common * centred)
    x = sympy.symbols("c_:3")
    weights = sympy.symbols("p_:2")
    last = 1 - sum(weights)
    off = [value - sum(q * w for q, w in zip((*weights, last), x, strict=True)) for value in x]
    proof.identity("sum_s p_s <w_s - wbar, Ah> = 0", sum(q * o for q, o in zip((*weights, last), off, strict=True)), 0)
    # So E_p exp(.) >= E_p (1 + .) = 1: the rise is never negative.
    second = sum(q * o**2 for q, o in zip((*weights, last), off, strict=True))
    variance = sum(q * value**2 for q, value in zip((*weights, last), x, strict=True)) - (x[2] - off[2]) ** 2
    proof.identity("each coordinate: E_p ||w_s - wbar||^2 = Var_p(w), so E X = kappa d^2/(2m) (A2)", second, variance)


def convexity(proof: Proof, factor: Callable[[Any, Any], Any]) -> None:
    """E (e^X_s - 1) <= (E X_s) factor for 0 <= X_s <= X, factor = (e^X - 1)/X, as (e^x - 1)/x rises."""
    x, E, more = sympy.symbols("x E y", positive=True)
    slope = sympy.diff((sympy.exp(x) - 1) / x, x) * x**2
    proof.identity("x^2 times its slope is x e^x - e^x + 1", slope.subs(sympy.exp(x), E), x * E - E + 1)
    rest = x * sympy.exp(x) - sympy.exp(x) + 1
    proof.identity("which vanishes at 0", rest.subs(x, 0), 0)
    proof.nonnegative("and rises with slope x e^x", sympy.diff(rest, x).subs(sympy.exp(x), E), strictly=True)
    # e^X = 1 + X + y with y > 0.
    room = factor(x, 1 + x + more) - (x + more) / x
    proof.nonnegative("factor >= (e^X - 1)/X", room)
    proof.identity("(e^X - 1)/X -> 1 as d -> 0", sympy.limit((sympy.exp(x) - 1) / x, x, 0), 1)
    d, q, a, b = sympy.symbols("d q a b", positive=True)
    both = sympy.log(1 + q * (sympy.exp(a * d) - 1) + (1 - q) * (sympy.exp(b * d) - 1)) / d
    proof.identity("log E exp(d Y)/d -> E Y as d -> 0: A4's constant", sympy.limit(both, d, 0), q * a + (1 - q) * b)
