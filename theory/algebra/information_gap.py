"""The golden formula with a normal reference: an exact expression of what bounds of the information lose (E2, F4).

Let z = h(x) + sB n with n standard normal and independent of (x, y), so that p(z|x,y) = N(z; h(x), v I), v = (sB)^2.
For any densities q_y, E log p(z|x,y)/p(z|y) = E log p(z|x,y)/q_y(z) - E_y KL(p(.|y) || q_y). With q_y = N(mu_y, T_y)
the first term is a sum over the eigenvectors of T_y, one coordinate each: second moments of h are all it holds, and no
number of features enters.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.proof import Proof

v, t, c, x = sympy.symbols("v t c x", positive=True)
"""The noise's variance (sB)^2, an eigenvalue of T, the class's variance along its eigenvector, and c/v."""
d, n = sympy.symbols("d n", real=True)
"""h - mu_y and the noise, along that eigenvector."""


def expectation(polynomial: Any) -> Any:
    """Over a class and its noise: E d = E n = E dn = 0 (independence), E d^2 = c, E n^2 = v."""
    moments = {(0, 0): 1, (1, 0): 0, (0, 1): 0, (1, 1): 0, (2, 0): c, (0, 2): v}
    return sum(factor * moments[powers] for powers, factor in sympy.Poly(polynomial, d, n).terms())


def log_normal(deviation: Any, variance: Any) -> Any:
    """The log density of N(0, variance) at `deviation`, without the constant -log(2 pi)/2; log variance apart."""
    return -sympy.log(variance) / 2 - deviation**2 / (2 * variance)


def golden_formula(proof: Proof) -> Any:
    """The formula, Gibbs' inequality, and one coordinate's share of E log p(z|x,y)/q_y(z), which is returned."""
    p_x, p_y, q = sympy.symbols("p_x p_y q", positive=True)
    log = {name: sympy.log(name) for name in (p_x, p_y, q)}
    text = "log p(z|x,y)/p(z|y) = log p(z|x,y)/q_y(z) - log p(z|y)/q_y(z), at every z"
    proof.identity(text, log[p_x] - log[p_y], (log[p_x] - log[q]) - (log[p_y] - log[q]))
    log_below_linear(proof, "Gibbs: log r <= r - 1 at r = q/p gives KL(p||q) >= 1 - 1 = 0, zero iff q = p; r")
    found = expectation(sympy.expand(log_normal(n, v) - log_normal(d + n, t)))
    share = (sympy.log(t) - sympy.log(v) - 1 + (c + v) / t) / 2
    proof.identity("E log N(z; h, v)/N(z; mu, t) = (log(t/v) - 1 + (c+v)/t)/2, each coordinate", found, share)
    return share


def log_below_linear(proof: Proof, text: str) -> None:
    """R - 1 - log r is 0 at r = 1, rises above it and falls below it."""
    u = sympy.Symbol("u", positive=True)
    room = x - 1 - sympy.log(x)
    proof.identity(f"{text} = 1: equal", room.subs(x, 1), 0)
    proof.nonnegative(f"{text} = 1 + u: apart", sympy.diff(room, x).subs(x, 1 + u), strictly=True)
    below = sympy.diff(room, x).subs(x, 1 / (1 + u)) * sympy.diff(1 / (1 + u), u)
    proof.nonnegative(f"{text} = 1/(1+u): apart", below, strictly=True)


def information_ladder(proof: Proof, constant: Any = 1) -> None:
    """I <= (1/2) E log det <= (1/2) log det of the mean <= trace, each by the reference that makes it exact."""
    share = golden_formula(proof)
    half = sympy.Rational(1, 2)
    own = sympy.log(c + v) / 2 - sympy.log(v) / 2
    # In the eigenbasis of Cov_y, c is its eigenvalue: summed, (1/2) log det(Cov_y/v + I).
    proof.identity(
        "T = Cov_y + v: (1/2) log((c+v)/v), so (1/2) log det - I = KL(p(.|y)||q_y)", share.subs(t, c + v), own
    )
    # In the eigenbasis of Sigma_W, c averages over y to its eigenvalue C.
    C, shift = sympy.symbols("C delta", real=True)
    pooled = share.subs(c, C + shift).subs(t, C + v)
    mean = sympy.log(C + v) / 2 - sympy.log(v) / 2
    proof.identity(
        "T = Sigma_W + v: (1/2) log((C+v)/v) and a term linear in c - C", pooled, mean + shift / (2 * (C + v))
    )
    proof.identity("T = v: c/(2v), summed the trace bound", share.subs(t, v), c / (2 * v))
    # Each bound holds what second moments hold, and features that are normal given y have I = (1/2) E log det: so it
    # is at most the other two. What is lost to the pooled form is E_y KL(N(mu_y, Cov_y + v) || N(mu_y, Sigma_W + v)),
    # 0 iff every Cov_y is Sigma_W. The trace once more by the lemma at r = 1 + C/v, on every eigenvalue.
    room = constant * x / 2 - sympy.log(1 + x) / 2
    proof.identity("trace - log det is 0 at an eigenvalue C = x v = 0", room.subs(x, 0), 0)
    proof.nonnegative("and its slope in x is positive: equal only without variance", sympy.diff(room, x), strictly=True)
    limit = sympy.limit(half * sympy.log(1 + x) / (constant * x / 2), x, 0)
    proof.identity("normal features, C/v -> 0: I/trace -> 1, so 1/2 is the best constant", limit, 1)


def normal_only(proof: Proof) -> None:
    """Equality in the first link: z | y is N(mu_y, Cov_y + v), and then h | y is N(mu_y, Cov_y)."""
    u, mu = sympy.symbols("u mu", real=True)
    # Logarithms of characteristic functions, along any direction; the noise's is nowhere 0, so it divides out.
    of_sum, of_noise = sympy.I * mu * u - (c + v) * u**2 / 2, -v * u**2 / 2
    text = "characteristic function of h = that of z over that of the noise: normal with Cov_y"
    proof.identity(text, of_sum - of_noise, sympy.I * mu * u - c * u**2 / 2)
