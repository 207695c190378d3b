"""What noisy features tell of the class beyond its super-class costs variance within the super-class (F4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import sympy
import torch

from grokcore.geometry import ClassMoments
from grokcore.information import information_bounds
from theory.algebra.information_gap import c, d, expectation, information_ladder, n, v
from theory.information import NOISE
from theory.numeric.information_cases import HALF, Chain, Links, below, families, in_order, normal_mixture
from theory.numeric.information_quadrature import Atom, ball, bounds, information, information_by_entropies, variances
from theory.numeric.information_sampled import Component, bounds_by_eigenvalues, points, sampled_information
from theory.proof import Proof
from theory.statement import Statement

VARIANCE_IS_THE_PRICE = Statement(
    "variance_is_the_price",
    label="F4",
    claim="Z as in E2, S = S(Y) a super-class of the label, which may be noisy: I(Z;Y) - I(Z;S) = I(Z;Y|S) = I(Z;X|S) "
    "- I(Z;X|Y) <= I(Z;X|S) <= (1/2) E_s log det(Cov_s/(sB)^2 + I) <= V_S/(2 (sB)^2), where the variance within "
    "super-classes is V_S = E||h - mu_S||^2 = Tr Sigma_W + E||mu_Y - mu_S||^2. So I(Z;Y) <= H(S) + V_S/(2 (sB)^2). "
    "Any S, the noise independent of (X,Y,S): both inequalities for I(Z;Y|S) hold, with V_S = E||h - mu_S||^2.",
    latex=r"I(Z;Y)-I(Z;S) = I(Z;Y|S) = I(Z;X|S)-I(Z;X|Y) \le I(Z;X|S) \le \tfrac12 E_s\log\det\Big("
    r"\frac{\mathrm{Cov}_s}{s^2B^2}+I\Big) \le \frac{\operatorname{Tr}\Sigma_W + E\|\mu_Y-\mu_S\|^2}{2s^2B^2}",
    assumptions={
        "feature_of_input": "h is a function of X, not of the label: the first inequality",
        "superclass_of_label": "S is a function of Y: the equalities",
        "independent_noise": "the noise is independent of (X, Y), not only of X: both inequalities",
        "normal_noise": f"{NOISE['normal_noise']}: the second inequality",
        "constant_scale": f"{NOISE['constant_scale']}: the second inequality",
    },
    source="the inequalities are paper C's price in paper B's terms; the equalities and the entropy's bound are new",
    kind="upper",
)


def _chain_rules(proof: Proof) -> None:
    p_x, p_y, p_s, p, share, rest = sympy.symbols("p_x p_y p_s p P rest", positive=True)
    log = sympy.log
    # Noise independent of (X, Y): p(z|x,y,s) = p(z|x) = N(z; h(x), v). S = S(Y): p(z|y,s) = p(z|y).
    text = "log p(z|x)/p(z|s) = log p(z|x)/p(z|y) + log p(z|y)/p(z|s): I(Z;X|S) = I(Z;X|Y) + I(Z;Y|S)"
    proof.identity(text, log(p_x) - log(p_s), (log(p_x) - log(p_y)) + (log(p_y) - log(p_s)))
    text = "log p(z|y)/p(z) = log p(z|s)/p(z) + log p(z|y)/p(z|s): I(Z;Y) = I(Z;S) + I(Z;Y|S)"
    proof.identity(text, log(p_y) - log(p), (log(p_s) - log(p)) + (log(p_y) - log(p_s)))
    # p(z) = P(s) p(z|s) + rest.
    room = 1 / share - p_s / (share * p_s + rest)
    proof.nonnegative("p(z|s)/p(z) <= 1/P(s), so I(Z;S) <= H(S)", room)
    # Any S: the two informations given S differ by I(Z;X|Y,S), which Gibbs' inequality below makes nonnegative.
    text = "any S: log p(z|x)/p(z|s) - log p(z|y,s)/p(z|s) = log p(z|x)/p(z|y,s)"
    proof.identity(text, (log(p_x) - log(p_s)) - (log(p_y) - log(p_s)), log(p_x) - log(p_y))


@VARIANCE_IS_THE_PRICE.certificate(
    "symbolic",
    covers="every distribution of (X, Y) with E||h||^2 finite, every S(Y), width m, s, B > 0",
    relies_on="sympy, Gibbs' inequality, the spectral theorem",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """Chain rules at every z, Gibbs' inequality for I(Z;X|Y) >= 0, and E2's bounds with S in the label's place."""
    _chain_rules(proof)
    information_ladder(proof)
    # d = mu_y - mu_s and n = h - mu_y, whose mean given y is 0.
    proof.identity("V_S = E||mu_Y - mu_S||^2 + Tr Sigma_W, each coordinate", expectation((d + n) ** 2), c + v)


def the_chain(atoms: list[Atom], noise: Fraction) -> Links:
    """F4's links at B = 1; each is at most the next."""
    found = bounds(atoms, "s", noise)
    links = [("I(Z;Y|S)", information(atoms, "y", "s", noise)), ("I(Z;X|S)", information(atoms, "x", "s", noise))]
    # Where every class has collapsed, Y tells what X does.
    if not any(variance for _, variance in variances(atoms, "y")):
        links = links[1:]
    return [*links, ("(1/2) E log det", found.log_det), ("V_S/(2 s^2)", found.trace)]


def _in_order(proof: Proof, chain: Chain, random: int = 0, noises: Sequence[Fraction] = (HALF, Fraction(2))) -> None:
    in_order(proof, families(random), chain, noises)


@VARIANCE_IS_THE_PRICE.certificate(
    "rigorous", covers="m = 1, finite distributions, s = 1/2, 2", relies_on="ball arithmetic (flint integrals)"
)
def _enclosed(proof: Proof) -> None:
    """Every information enclosed by integrals of balls: each inequality is strict, and so is I(Z;Y)'s."""
    _in_order(proof, the_chain, random=proof.cases(0, 20))

    def with_entropy(atoms: list[Atom], noise: Fraction) -> Links:
        shares = [ball(share) for share, _ in variances(atoms, "s")]
        entropy = -sum((share * share.log() for share in shares), ball(0))
        return [
            ("I(Z;Y)", information(atoms, "y", "", noise)),
            ("H(S) + V_S/(2 s^2)", entropy + bounds(atoms, "s", noise).trace),
        ]

    _in_order(proof, with_entropy, noises=[Fraction(2)])


def coin() -> list[Atom]:
    """X = (Y, S) of two fair coins, h = +-1 as they are equal or not."""
    quarter = Fraction(1, 4)
    return [Atom(quarter, 1 if y == s else -1, 2 * y + s, y, s) for y in (0, 1) for s in (0, 1)]


def _differences(atoms: list[Atom], noise: Fraction) -> tuple[float, float]:
    """I(Z;X|S) - I(Z;X|Y) and I(Z;Y) - I(Z;S), by balls."""
    of_input = information(atoms, "x", "s", noise) - information(atoms, "x", "y", noise)
    of_label = information(atoms, "y", "", noise) - information(atoms, "s", "", noise)
    return float(of_input), float(of_label)


@VARIANCE_IS_THE_PRICE.certificate(
    "numeric", covers="m = 1, finite distributions, s = 1, 2", relies_on="float64 differential entropies on a grid"
)
def _numeric(proof: Proof) -> None:
    """I(Z;Y|S) as a difference of entropies against those of balls; both inequalities where S is no function of Y."""
    for name, atoms in [*families(0), ("an S of its own", coin())]:
        for noise in (1.0, 2.0):
            text = f"{name}, s = {noise}"
            beyond, inner = (information_by_entropies(atoms, of, "s", noise) for of in "yx")
            found = bounds(atoms, "s", Fraction(noise))
            if name != "an S of its own":
                of_input, of_label = _differences(atoms, Fraction(noise))
                proof.close(f"{text}: I(Z;Y|S) = I(Z;X|S) - I(Z;X|Y)", beyond, of_input, rel=1e-8)
                proof.close(f"{text}: I(Z;Y|S) = I(Z;Y) - I(Z;S)", beyond, of_label, rel=1e-8)
            limits = [inner, float(found.log_det), float(found.trace)]
            proof.at_most(f"{text}: in order", [beyond, *limits[:-1]], limits, slack=1e-9)


def _upper(parts: list[Component]) -> list[Component]:
    return [part._replace(s=part.y // 2) for part in parts]


@VARIANCE_IS_THE_PRICE.certificate(
    "sampled", covers="m = 1..5, normal mixtures and point clouds", relies_on="numpy, exact densities, error bars"
)
def _sampled(proof: Proof) -> None:
    """Monte Carlo at five standard errors, and the library's bounds of point clouds."""
    draws = proof.cases(8_000, 100_000)
    for m in (1, 2, 5):
        parts = _upper(normal_mixture(m, m, 4, 2))
        beyond, inner, rest = (
            sampled_information(parts, of, given, 1.0, draws=draws, seed=m + i)
            for i, (of, given) in enumerate((("y", "s"), ("x", "s"), ("x", "y")))
        )
        log_det, _, trace = bounds_by_eigenvalues(parts, "s", 1.0)
        text = f"m = {m}: {beyond.value:.3f} +- {beyond.stderr:.3f}"
        proof.at_most(f"{text}: I(Z;Y|S) < I(Z;X|S)", beyond.value + 5 * beyond.stderr, inner.value - 5 * inner.stderr)
        error = 5 * math.hypot(beyond.stderr, inner.stderr, rest.stderr)
        proof.require(f"{text}: = I(Z;X|S) - I(Z;X|Y)", abs(beyond.value - inner.value + rest.value) <= error)
        proof.at_most(f"m = {m}: below the bounds", [inner.value + 5 * inner.stderr, log_det], [log_det, trace])
    rng = np.random.default_rng(5)
    features, labels = rng.standard_normal((24, 3)), np.arange(24) % 4
    moments = ClassMoments(4, 3, scatter="per_class").update(torch.tensor(features), torch.tensor(labels))
    found = information_bounds(moments, noise=0.8, scale=1.0, superclasses=[0, 0, 1, 1])
    cloud = points(features, labels.tolist(), (labels // 2).tolist())
    expected = bounds_by_eigenvalues(cloud, "s", 0.8)
    proof.close("24 points in R^3: the library", [found.log_det, found.pooled_log_det, found.trace], expected)


# Counterexamples.

_FAIR = [Atom(HALF, 1, 0, 0), Atom(HALF, -1, 0, 1)]
"""X is constant, h = +-1 by the label alone."""


@VARIANCE_IS_THE_PRICE.without("feature_of_input")
def _label_leaks(proof: Proof) -> None:
    """X constant and h = +-1 by the label: I(Z;X|S) = 0, while Z tells the label."""
    found, inner = (float(information(_FAIR, of, "s", 1)) for of in "yx")
    proof.exceeds("I(Z;Y|S) against I(Z;X|S)", found, inner)


@VARIANCE_IS_THE_PRICE.without("superclass_of_label")
def _two_coins(proof: Proof) -> None:
    """Y and S two coins, h = +-1 as they are equal or not: neither alone tells anything of Z."""
    found = float(information(coin(), "y", "s", 1))
    of_input, of_label = _differences(coin(), Fraction(1))
    proof.differ("I(Z;Y|S) against I(Z;X|S) - I(Z;X|Y)", found, of_input)
    proof.differ("I(Z;Y|S) against I(Z;Y) - I(Z;S)", found, of_label)


def mostly_the_label() -> list[Atom]:
    """Y = +-1 fair, S = Y three times in four: h = 5Y/6 there and 3Y/2 elsewhere, so mu_Y = Y and mu_S = S/4."""
    kinds = ((1, Fraction(5, 6), Fraction(3, 8)), (-1, Fraction(3, 2), Fraction(1, 8)))
    return [Atom(p, h * y, 2 * y + s * y, y, s * y) for s, h, p in kinds for y in (1, -1)]


@VARIANCE_IS_THE_PRICE.without("superclass_of_label")
def _variance_does_not_split(proof: Proof) -> None:
    """S = Y = +-1 three times in four, h = 5Y/6 there and 3Y/2 elsewhere: E||h - mu_S||^2 is 49/48, and not 43/48."""
    found = information(mostly_the_label(), "y", "s", 3)
    split = Fraction(43, 48)  # Tr Sigma_W = 1/12, E||mu_Y - mu_S||^2 = 13/16
    proof.exceeds("I(Z;Y|S) against (Tr Sigma_W + E||mu_Y - mu_S||^2)/(2 s^2)", float(found.lower()), float(split / 18))


@VARIANCE_IS_THE_PRICE.without("independent_noise")
def _noise_knows_the_label(proof: Proof) -> None:
    """h = 0, X constant, Y = +-1 fair, N = Y|N'|: N is N(0,1) and independent of X, its sign is the label."""
    z = (np.arange(20_000) + 0.5) * 12 / 20_000
    normal = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    # p(z|y) = 2 p(z) on its half line.
    found = float((2 * normal).sum() * 12 / 20_000) * math.log(2)
    proof.close("I(Z;Y|S) = log 2", found, math.log(2), rel=1e-8)
    proof.exceeds("I(Z;Y|S) against I(Z;X|S) = V_S = 0", found, 0.0)


@VARIANCE_IS_THE_PRICE.without("normal_noise")
def _two_valued_noise(proof: Proof) -> None:
    """Two classes of one super-class collapsed on +-1/2, noise +-1: Z has four values and tells the class."""
    values = {(h, noise): h + noise for h in (-0.5, 0.5) for noise in (-1, 1)}
    proof.require("four sums, all different", len(set(values.values())) == 4)
    proof.exceeds("I(Z;Y|S) = log 2 against V_S/2", math.log(2), 0.25 / 2)


@VARIANCE_IS_THE_PRICE.without("constant_scale")
def _random_scale(proof: Proof) -> None:
    """Two classes collapsed on +-1, B = 1/10 nine times in ten and else 10: E B^2 = 10.009."""
    scales = ((Fraction(9, 10), Fraction(1, 10)), (Fraction(1, 10), Fraction(10)))
    atoms = [Atom(p / 2, h, h, h, scale=B) for h in (1, -1) for p, B in scales]
    found = information(atoms, "y", "s", 1)
    proof.exceeds("I(Z;Y|S) against V_S/(2 E B^2)", float(found.lower()), 1 / (2 * 10.009))


# Siblings.


def _limited(of: str, given: str, name: str, limit: Callable[[list[Atom], Fraction], Any]) -> Chain:
    return lambda atoms, noise: [(f"I(Z;{of})", information(atoms, of, given, noise)), (name, limit(atoms, noise))]


def _variance(atoms: list[Atom], given: str) -> Fraction:
    return sum((share * variance for share, variance in variances(atoms, given)), Fraction(0))


@VARIANCE_IS_THE_PRICE.sibling
def _within_classes(proof: Proof) -> None:
    """I(Z;Y|S) <= Tr Sigma_W/(2 (sB)^2): the variance within the classes pays."""
    _in_order(proof, _limited("y", "s", "trace within Y", lambda atoms, s: ball(_variance(atoms, "y") / s**2) / 2))


@VARIANCE_IS_THE_PRICE.sibling
def _between_means(proof: Proof) -> None:
    """I(Z;Y|S) <= E||mu_Y - mu_S||^2/(2 (sB)^2): the means alone pay."""
    limit = _limited(
        "y", "s", "means", lambda atoms, s: ball((_variance(atoms, "s") - _variance(atoms, "y")) / s**2) / 2
    )
    _in_order(proof, limit)
    # Two classes with mean 0, one collapsed.
    atoms = [Atom(HALF, 0, 0, 0), Atom(HALF / 2, 2, 1, 1), Atom(HALF / 2, -2, 2, 1)]
    for (_, smaller), (_, larger) in pairwise(limit(atoms, Fraction(1))):
        below(proof, "two classes of one mean", smaller, larger)


@VARIANCE_IS_THE_PRICE.sibling
def _nine_tenths(proof: Proof) -> None:
    """I(Z;Y|S) <= 0.9 V_S/(2 (sB)^2)."""
    _in_order(proof, _limited("y", "s", "0.9 V_S", lambda atoms, s: ball("0.9") * bounds(atoms, "s", s).trace))
    shrunk = [atom._replace(feature=Fraction(atom.feature) / 20) for atom in families(0)[1][1]]
    found = information(shrunk, "y", "s", 1)
    below(proof, "fine collapse, features a twentieth", found, ball("0.9") * bounds(shrunk, "s", 1).trace)


@VARIANCE_IS_THE_PRICE.sibling
def _less_than_the_input(proof: Proof) -> None:
    """I(Z;Y|S) <= 0.9 I(Z;X|S)."""
    _in_order(proof, _limited("y", "s", "0.9 I(Z;X|S)", lambda atoms, s: ball("0.9") * information(atoms, "x", "s", s)))


@VARIANCE_IS_THE_PRICE.sibling
def _without_super_class(proof: Proof) -> None:
    """I(Z;Y) <= V_S/(2 (sB)^2): S is not given."""
    _in_order(proof, _limited("y", "", "V_S", lambda atoms, s: bounds(atoms, "s", s).trace))
