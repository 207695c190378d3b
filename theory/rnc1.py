"""RNC1, the within-class variance relative to the features' own size, against NC1 (E3).

The supremum norm bounds RNC1 by NC1; the mean norm, which published plots use, does so with a constant that can be
K - 1. Neither bounds NC1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra.class_pairs import lagrange
from theory.algebra.class_symmetry import K
from theory.algebra.collapse import averaged
from theory.numeric.configurations import rows
from theory.numeric.rnc1_features import along_rays, clouds, extremal, one_pair, report
from theory.proof import Proof
from theory.statement import Statement

RNC1_NC1 = Statement(
    "rnc1_nc1",
    label="E3",
    claim="Balanced classes, NC1 the trace ratio, g = ||mu_G||/sqrt(Tr Sigma_B). With the largest norm RNC1 <= "
    "NC1/(1+NC1+g^2), for NC1 > 0 equal iff all norms are; with the root mean square norm always equal; with the mean "
    "norm NC1/(1+NC1+g^2) <= RNC1_mean <= C NC1, C = K/(2-(K-2)g^2) for g^2 <= 1/(K-1) and 1/g^2 above, which is best "
    "possible for every K, g and NC1 > 0. C is at most K-1, and K/2 at g = 0; RNC1_mean exceeds every bound. No "
    "converse: RNC1 -> 0 with NC1 held.",
    latex=r"\mathrm{RNC1} \le \frac{\mathrm{NC1}}{1+\mathrm{NC1}+g^2},\quad g^2 = "
    r"\frac{\|\mu_G\|^2}{\operatorname{Tr}\Sigma_B},\qquad \frac{\mathrm{NC1}}{1+\mathrm{NC1}+g^2} \le "
    r"\mathrm{RNC1}_{\mathrm{mean}} \le \min\Big(\tfrac{1}{g^2},\, K-1\Big)\mathrm{NC1}",
    assumptions={
        "balanced": "every class has the same probability; without it RNC1_mean <= C NC1/(K pi)^2, pi the least",
        "trace_ratio": "NC1 = Tr Sigma_W/Tr Sigma_B, not Tr(Sigma_W Sigma_B^+)/K; the class means are not all equal",
        "largest_norm": "first part: B is the supremum of the uncentred ||h||",
    },
    source="new; theory of paper B for the definitions",
    kind="upper",
)

W, T, G2 = sympy.symbols("W T G2", positive=True)
"""Tr Sigma_W, Tr Sigma_B and ||mu_G||^2."""
t, u, w = sympy.symbols("t u w", positive=True)


def largest_norm(proof: Proof, more: Any = 0) -> None:
    """B^2 >= E||h||^2 = W + T + ||mu_G||^2, and the bound that follows; `more` is added to its denominator."""
    centred, mean, noise = sympy.symbols("m g v")
    found = averaged((mean + centred + noise) ** 2, centred, noise)
    proof.identity(
        "E||h||^2 = Tr Sigma_W + Tr Sigma_B + ||mu_G||^2, each coordinate", found, centred**2 + mean**2 + noise**2
    )
    square = W + T + G2
    bound = (W / T) / (1 + W / T + G2 / T + more)
    proof.identity("W/E||h||^2 = NC1/(1+NC1+g^2): the root mean square norm gives the bound itself", W / square, bound)
    proof.nonnegative("B^2 = E||h||^2 + u: RNC1 is less", bound - W / (square + u), strictly=True)
    proof.identity("... but where Tr Sigma_W = 0, where both are 0", (bound - W / (square + u)).subs(W, 0), 0)
    proof.nonnegative(
        "(E||h||)^2 = E||h||^2/(1 + u), by Jensen: RNC1_mean is more", W * (1 + u) / square - bound, strictly=True
    )


def mean_norm(proof: Proof, factor: Any = 1) -> None:
    """T <= `factor` C s^2 with s the mean over classes of ||mu_c||, and s <= E||h|| by Jensen."""
    # Sums over ordered pairs c != d: `products` of r_c r_d, r = ||mu||, and `inner` of <mu_c, mu_d>.
    squares = sympy.Symbol("R", positive=True)
    sums, gaps = sympy.symbols("A D", nonnegative=True)
    lagrange(proof, "|<x,y>| <= ||x|| ||y||: Lagrange's identity, every m")
    # So r_c r_d + <mu_c, mu_d> and r_c r_d - <mu_c, mu_d> are nonnegative: 2A and 2D are their sums.
    products, inner = sums + gaps, sums - gaps
    between = squares / K - (squares + inner) / K**2
    mean, size = (squares + inner) / K**2, (squares + products) / K**2
    for classes in (2, 4):
        means = sympy.Matrix(classes, 2, sympy.symbols(f"a:{2 * classes}"))
        average = sympy.ones(1, classes) * means / classes
        apart = means - sympy.ones(classes, 1) * average
        gram = means * means.T
        written = {K: classes, squares: gram.trace(), sums: sum(gram) - gram.trace(), gaps: 0}
        proof.identity(
            f"Tr Sigma_B from the pairs, K = {classes}", between.subs(written), (apart * apart.T).trace() / classes
        )
        proof.identity(f"||mu_G||^2 from the pairs, K = {classes}", mean.subs(written), average.dot(average))
    for text, more in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        least = (factor * size * (K - 1) - between).subs(K, more)
        proof.nonnegative(f"T <= (K-1) s^2 ({text})", least)
        room = factor * K * size - 2 * between + (K - 2) * mean
        proof.nonnegative(f"(2 - (K-2) g^2) T <= K s^2 ({text})", room.subs(K, more))
    proof.nonnegative("||mu_G||^2 <= s^2, so T <= s^2/g^2", factor * size - mean)
    best_constant(proof, factor)


def constant_of(g2: Any, classes: Any) -> tuple[Any, Any]:
    """C for g^2 up to 1/(K-1), and beyond."""
    return classes / (2 - (classes - 2) * g2), 1 / g2


def best_constant(proof: Proof, factor: Any) -> None:
    """Means at which `factor` C s^2 = T, for every K and g, and features at which E||h|| = s with any NC1."""
    # Two opposite means a and -b, the others 0; then K collinear means: one of 1 + (K-1) b and K-1 of 1 - b.
    a, b = sympy.symbols("a b", positive=True)
    size, square, mean = (a + b) / K, (a**2 + b**2) / K, (a - b) ** 2 / K**2
    low, _ = constant_of(mean / (square - mean), K)
    proof.identity("a, -b, 0, ...: T = C s^2", square - mean, factor * low * size**2)
    proof.identity("... from g = 0 at a = b", (mean / (square - mean)).subs(b, a), 0)
    proof.identity("... to g^2 = 1/(K-1) at b = 0", (mean / (square - mean)).subs(b, 0), 1 / (K - 1))
    square = ((1 + (K - 1) * b) ** 2 + (K - 1) * (1 - b) ** 2) / K
    _, high = constant_of(1 / (square - 1), K)
    proof.identity("one of 1+(K-1)b, K-1 of 1-b, 0 < b <= 1: T = C s^2", square - 1, factor * high)
    proof.identity("... from g^2 = 1/(K-1) at b = 1", 1 / (square - 1).subs(b, 1), 1 / (K - 1))
    proof.identity("... with 1/g^2 -> 0 as b -> 0", (square - 1).subs(b, 0), 0)
    low, high = constant_of(1 / (K - 1), K)
    proof.identity("both are K-1 at g^2 = 1/(K-1)", low, K - 1)
    proof.identity("... so C is continuous", high, K - 1)
    slope = sympy.diff(constant_of(u, K)[0], u)
    proof.nonnegative(
        "... and rises up to there, g^2 = 1/((K-1)(1+w))", slope.subs(u, 1 / ((K - 1) * (1 + w))).subs(K, 2 + t)
    )
    # h = x mu_y, x >= 0 with mean 1: the norm of the mean is the mean of the norm.
    p, r = sympy.symbols("p r", positive=True)
    proof.identity("x = 1/p with probability p, else 0: E x = 1", p * (1 / p), 1)
    proof.identity("... and variance r at p = 1/(1+r), so NC1 is any number", (1 / p - 1).subs(p, 1 / (1 + r)), r)


def no_converse(proof: Proof) -> None:
    """Both exhibits, as limits with NC1 held or NC1 -> 1."""
    far, many = sympy.symbols("G n", positive=True)
    proof.identity("||mu_G|| -> oo with W, T held: RNC1 -> 0", sympy.limit(W / (W + T + far**2), far, sympy.oo), 0)
    proof.identity("... while NC1 = W/T does not hold ||mu_G||", sympy.diff(W / T, far), 0)
    # Means +-1; n^4 samples of each class at +-1 of theirs, and a pair more: one class at +-n, the other at +-1.
    within = (2 * many**4 + 2 * many**2 + 2) / (2 * many**4 + 4)
    proof.identity("one pair at distance n among n^4: W -> 1", sympy.limit(within, many, sympy.oo), 1)
    at_sup = within / (many + 1) ** 2
    proof.identity("... T = 1, so NC1 -> 1 and RNC1 = W/(n+1)^2 -> 0", sympy.limit(at_sup, many, sympy.oo), 0)


@RNC1_NC1.certificate(
    "symbolic",
    covers="every K >= 2, m, balanced distribution with Tr Sigma_B > 0",
    relies_on="sympy, Jensen, Cauchy-Schwarz",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """Second moments, and sums over pairs of classes with K a symbol; means that attain C for every K and g."""
    largest_norm(proof)
    mean_norm(proof)
    no_converse(proof)


def best(g2: float, classes: int) -> float:
    """C as a number."""
    low, high = constant_of(max(g2, 1e-300), classes)
    return float(low if g2 * (classes - 1) <= 1 else high)


Limits = Callable[[float, float, int], tuple[float, float]]
"""From NC1, g^2, K: what RNC1 and RNC1_mean are at most."""


def _measured(proof: Proof, limits: Limits) -> None:
    for name, features, labels in clouds(proof.cases(12, 200)):
        found = report(features, labels)
        g2, classes = found.global_mean_ratio**2, int(labels.max()) + 1
        largest, mean = limits(found.nc1_trace_ratio, g2, classes)
        proof.at_most(f"{name}: RNC1", found.rnc1_sup, largest)
        proof.at_most(f"{name}: RNC1_mean", found.rnc1_mean, mean)
        exact = found.nc1_trace_ratio / (1 + found.nc1_trace_ratio + g2)
        square = float(features.square().sum(dim=1).mean())
        within = found.rnc1_sup * float(features.norm(dim=1).max()) ** 2
        proof.close(f"{name}: by the root mean square norm", within / square, exact)
        proof.at_most(f"{name}: RNC1_mean from below", exact, found.rnc1_mean)
    for classes in (2, 3, 5, 10):
        for ratio in (-1.0, -0.4, 0.0, 0.3, 0.9):
            found = report(*along_rays(extremal(classes, ratio), 4))
            _, mean = limits(found.nc1_trace_ratio, found.global_mean_ratio**2, classes)
            text = f"K = {classes}, the extremal means {ratio}: RNC1_mean"
            proof.at_most(text, found.rnc1_mean, mean)
            proof.close(
                f"{text} = C NC1", found.rnc1_mean, best(found.global_mean_ratio**2, classes) * found.nc1_trace_ratio
            )


def _claimed(nc1: float, g2: float, classes: int) -> tuple[float, float]:
    return nc1 / (1 + nc1 + g2), best(g2, classes) * nc1


@RNC1_NC1.certificate(
    "numeric", covers="K = 2..10, random and extremal features", relies_on="grokcore.collapse, float64"
)
def _numeric(proof: Proof) -> None:
    """The library's metrics on random balanced clouds, on rays, and where the constants are attained."""
    _measured(proof, _claimed)
    # All norms equal.
    features, labels = rows([3.0, 4.0], [3.0, -4.0], [-5.0, 0.0], [4.0, 3.0]), torch.tensor([0, 0, 1, 1])
    found = report(features, labels)
    proof.close(
        "equal norms: equality", found.rnc1_sup, _claimed(found.nc1_trace_ratio, found.global_mean_ratio**2, 2)[0]
    )
    for size in (1e2, 1e4):
        far = report(features + rows([size, 0.0]), labels)
        proof.close(f"the same moved by {size:g}: NC1", far.nc1_trace_ratio, found.nc1_trace_ratio, rel=1e-9)
        proof.at_most(f"the same moved by {size:g}: RNC1", far.rnc1_sup, 100 / size**2)
    for pair in (10, 16):
        found, text = report(*one_pair(pair)), f"one pair at distance {pair} among {2 * pair**4}"
        proof.close(f"{text}: NC1", found.nc1_trace_ratio, 1.0, rel=2 / pair**2)
        proof.at_most(f"{text}: RNC1", found.rnc1_sup, 1.01 / pair**2)
    rare = report(*along_rays(extremal(2, -1.0), 60))
    proof.exceeds("one sample in 61 off 0: RNC1_mean", rare.rnc1_mean, 50.0)


@RNC1_NC1.without("balanced")
def _rare_class(proof: Proof) -> None:
    """99 % at +-1 in equal parts and 1 % at +1: RNC1 = 0.99, NC1 = 3.96, g = 1. Then RNC1_mean, K = 2."""
    side = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(99, 1)
    found = report(torch.cat([side, rows([1.0], [1.0])]), torch.tensor([0] * 198 + [1] * 2))
    proof.close("RNC1", found.rnc1_sup, 0.99)
    proof.close("NC1/(1+NC1+g^2) = 0.664", 3.96 / 5.96, found.nc1_trace_ratio / (1 + found.nc1_trace_ratio + 1))
    proof.exceeds("RNC1 against the bound", found.rnc1_sup, 3.96 / 5.96)
    # One sample of 0 and 2 each on one side, and eight at 0 on the other.
    features = torch.tensor([0.0, 2.0, *[0.0] * 8], dtype=torch.float64)[:, None]
    found = report(features, torch.tensor([0] * 2 + [1] * 8))
    proof.exceeds("shares 1:4: RNC1_mean against (K-1) NC1", found.rnc1_mean, found.nc1_trace_ratio)
    proof.close("... it is (K-1)/(K pi)^2 NC1, pi = 1/5", found.rnc1_mean, found.nc1_trace_ratio / (2 / 5) ** 2)


@RNC1_NC1.without("trace_ratio")
def _papyan(proof: Proof) -> None:
    """K = 2, means +-e_1 and noise +-e_2: Tr(Sigma_W Sigma_B^+)/K = 0."""
    features = rows([1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0])
    found = report(features, torch.tensor([0, 0, 1, 1]))
    for name, value in (("RNC1", found.rnc1_sup), ("RNC1_mean", found.rnc1_mean)):
        proof.exceeds(f"{name} against Papyan's NC1", value, found.nc1_papyan)


@RNC1_NC1.without("largest_norm")
def _mean_norm(proof: Proof) -> None:
    """K = 2, classes 0, 2 and -2, 0: with the mean norm, or the largest centred one of the same features moved by 9."""
    features, labels = torch.tensor([[0.0], [2.0], [0.0], [-2.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    found = report(features, labels)
    proof.exceeds("RNC1_mean against the bound", found.rnc1_mean, _claimed(found.nc1_trace_ratio, 0.0, 2)[0])
    moved = report(features + 9, labels)
    limit = _claimed(moved.nc1_trace_ratio, moved.global_mean_ratio**2, 2)[0]
    proof.exceeds("W over the largest centred norm's square", found.rnc1_sup, limit)


@RNC1_NC1.sibling
def _larger_denominator(proof: Proof) -> None:
    """RNC1 <= NC1/(1.01+NC1+g^2)."""
    largest_norm(proof, sympy.Rational(1, 100))
    features, labels = rows([3.0, 4.0], [3.0, -4.0], [-5.0, 0.0], [4.0, 3.0]), torch.tensor([0, 0, 1, 1])
    found = report(features, labels)
    proof.at_most(
        "equal norms",
        found.rnc1_sup,
        found.nc1_trace_ratio / (1.01 + found.nc1_trace_ratio + found.global_mean_ratio**2),
    )


@RNC1_NC1.sibling
def _smaller_constant(proof: Proof) -> None:
    """RNC1_mean <= 0.99 C NC1."""
    mean_norm(proof, sympy.Rational(99, 100))
    _measured(proof, lambda nc1, g2, k: (_claimed(nc1, g2, k)[0], 0.99 * best(g2, k) * nc1))


@RNC1_NC1.sibling
def _half_the_classes(proof: Proof) -> None:
    """RNC1_mean <= (K/2) NC1 whatever the global mean."""
    _measured(proof, lambda nc1, g2, k: (_claimed(nc1, g2, k)[0], k / 2 * nc1))


@RNC1_NC1.sibling
def _below_one(proof: Proof) -> None:
    """RNC1_mean <= 1."""
    _measured(proof, lambda nc1, g2, k: (_claimed(nc1, g2, k)[0], 1.0))


@RNC1_NC1.sibling
def _same_bound(proof: Proof) -> None:
    """RNC1_mean <= NC1/(1+NC1+g^2), as with the largest norm."""
    _measured(proof, lambda nc1, g2, k: (_claimed(nc1, g2, k)[0],) * 2)


@RNC1_NC1.sibling
def _converse(proof: Proof) -> None:
    """NC1 <= 100 RNC1 (1 + g^2): the converse, with the global mean taken out."""
    for far in (4, 16):
        found = report(*one_pair(far))
        bound = 100 * found.rnc1_sup * (1 + found.global_mean_ratio**2)
        proof.at_most(f"one pair at distance {far}", found.nc1_trace_ratio, bound)
