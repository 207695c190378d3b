"""What noisy features tell of the input beyond the label is bounded by the within-class covariance (E2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import sympy
import torch

from grokcore.geometry import ClassMoments
from grokcore.information import information_bounds
from theory.algebra.information_gap import information_ladder, normal_only
from theory.numeric.information_cases import HALF, SIGN, Chain, below, cases, in_order, normal_mixture
from theory.numeric.information_quadrature import (
    Atom,
    Bounds,
    ball,
    bounds,
    classes,
    information,
    information_by_entropies,
    variances,
)
from theory.numeric.information_sampled import Component, bounds_by_eigenvalues, points, sampled_information
from theory.proof import Proof
from theory.statement import Statement

NOISE = {
    "independent_noise": "the noise is independent of (X, Y), not only of each",
    "normal_noise": "the noise is standard normal",
    "constant_scale": "B is a constant, not a random variable of which E B^2 is taken",
}
"""What E2 and F4 ask of the noise."""

INFORMATION_BOUND = Statement(
    "information_bound",
    label="E2",
    claim="Z = h + sB N(0,I), B any constant, noise independent of (X,Y): I(Z;X|Y) <= (1/2) E_y log det(Cov_y/(sB)^2 + "
    "I) <= (1/2) log det(Sigma_W/(sB)^2 + I) <= Tr Sigma_W/(2 (sB)^2), Sigma_W = E_y Cov_y. The first gap is exactly "
    "E_y KL(p(z|y) || N(mu_y, Cov_y + (sB)^2 I)), so it is 0 iff every h|y is normal (or a point); the second is 0 iff "
    "Cov_y is the same for every y, the third iff Sigma_W = 0. The trace's constant 1/2 is sharp as s -> infinity.",
    latex=r"I(Z;X|Y) \le \tfrac12 E_y\log\det\Big(\frac{\mathrm{Cov}_y}{s^2B^2}+I\Big) \le "
    r"\tfrac12\log\det\Big(\frac{\Sigma_W}{s^2B^2}+I\Big) \le \frac{\operatorname{Tr}\Sigma_W}{2s^2B^2}",
    assumptions={
        "feature_of_input": "h is a function of X; the inequalities need no more than noise independent of (X, Y, h)"
    }
    | NOISE,
    source="paper B's bound is the trace; the exact gap and the pooled form are new",
    kind="upper",
)


@INFORMATION_BOUND.certificate(
    "symbolic",
    covers="every distribution of (X, Y) with E||h||^2 finite, every width m, s, B > 0",
    relies_on="sympy, Gibbs' inequality, the spectral theorem",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """The golden formula with a normal reference: each bound is its first term, each gap a relative entropy."""
    information_ladder(proof)
    normal_only(proof)


def the_chain(atoms: list[Atom], noise: Fraction) -> list[tuple[str, Any]]:
    """E2's links at B = 1; each is at most the next."""
    log_det, pooled, trace = bounds(atoms, "y", noise)
    links = [("I", information(atoms, "x", "y", noise)), ("(1/2) E log det", log_det)]
    # Equal where every class has the same variance.
    if len({variance for _, variance in variances(atoms, "y")}) > 1:
        links.append(("(1/2) log det Sigma_W", pooled))
    return [*links, ("trace", trace)]


def _in_order(proof: Proof, chain: Chain, random: int = 0) -> None:
    in_order(proof, cases(random), chain, (HALF, Fraction(1), Fraction(3)))


def _minus(found: Any, z: Any) -> Any:
    return z - found


@INFORMATION_BOUND.certificate(
    "rigorous",
    covers="m = 1, finite distributions, s = 1/2, 1, 3; the numbers of h = +-1",
    relies_on="ball arithmetic (flint integrals)",
)
def _enclosed(proof: Proof) -> None:
    """The information itself, enclosed by integrals of balls, strictly below every bound; the numbers of h = +-1."""
    _in_order(proof, the_chain, random=proof.cases(1, 40))
    for noise, printed in (
        ("1/2", ("0.6327", "0.8047", "2")),
        ("1", ("0.3368", "0.3466", "0.5")),
        ("3", ("0.05267", "0.05268", "0.0556")),
    ):
        log_det, _, trace = bounds(SIGN, "y", noise)
        for found, digits in zip((information(SIGN, "x", "y", noise), log_det, trace), printed, strict=True):
            proof.root(f"h = +-1, s = {noise}: {digits}", partial(_minus, found), digits)
    small = bounds(SIGN, "y", "30")
    below(proof, "h = +-1, s = 30: I > 0.998 trace", ball("0.998") * small.trace, information(SIGN, "x", "y", "30"))


Measured = Callable[[list[Component], float], tuple[float, float, float]]


def _by_sampling(proof: Proof, claimed: Measured) -> None:
    draws = proof.cases(20_000, 200_000)
    for m, classes_ in ((1, 2), (2, 2), (3, 3), (8, 2)):
        for noise in (0.5, 1.5):
            text = f"m = {m}, s = {noise}"
            one = normal_mixture(m, m, classes_, 1)
            found, limits = sampled_information(one, "x", "y", noise, draws=draws, seed=m), claimed(one, noise)
            within = abs(found.value - limits[0]) <= 5 * found.stderr
            proof.require(f"{text}, normal classes: {found.value:.4f} +- {found.stderr:.4f} is {limits[0]:.4f}", within)
            many = normal_mixture(m, m, classes_, 3)
            found, limits = sampled_information(many, "x", "y", noise, draws=draws, seed=m), claimed(many, noise)
            text = f"{text}, mixtures: {found.value:.4f} +- {found.stderr:.4f}"
            proof.at_most(f"{text} is below the bound", found.value + 5 * found.stderr, limits[0])
            proof.at_most(f"{text}: pooled, then trace", limits[:2], limits[1:])


def of_samples(parts: list[Component], noise: float) -> tuple[float, float, float]:
    """The library's bounds of equally likely points, at B = 1."""
    features = torch.tensor(np.stack([part.mean for part in parts]))
    labels = torch.tensor([part.y for part in parts])
    moments = ClassMoments(int(labels.max()) + 1, features.shape[1], scatter="per_class").update(features, labels)
    found = information_bounds(moments, noise=noise, scale=1.0)
    return found.log_det, found.pooled_log_det, found.trace


@INFORMATION_BOUND.certificate(
    "sampled", covers="m = 1..8, normal mixtures and point clouds", relies_on="numpy, exact densities, error bars"
)
def _sampled(proof: Proof) -> None:
    """Monte Carlo at five standard errors: equality for normal classes, strictness for mixtures."""
    _by_sampling(proof, lambda parts, noise: bounds_by_eigenvalues(parts, "y", noise))
    rng = np.random.default_rng(3)
    for m, n in ((2, 20), (5, 30)):
        cloud = points(rng.standard_normal((n, m)), [i % 3 for i in range(n)])
        found = sampled_information(cloud, "x", "y", 0.7, draws=proof.cases(10_000, 100_000), seed=m)
        limits = of_samples(cloud, 0.7)
        proof.at_most(f"{n} points in R^{m}: the library's bound", found.value + 5 * found.stderr, limits[0])
        proof.close(f"{n} points in R^{m}: its three numbers", limits, bounds_by_eigenvalues(cloud, "y", 0.7))


@INFORMATION_BOUND.certificate(
    "numeric", covers="m = 1, finite distributions", relies_on="float64 differential entropies on a grid"
)
def _numeric(proof: Proof) -> None:
    """The information as h(Z|Y) - h(Z|X,Y), by another formula and other code than the balls; the gap as a KL."""
    for name, atoms in cases(0):
        for noise in (0.5, 1.0, 3.0):
            found = information_by_entropies(atoms, "x", "y", noise)
            exact = float(information(atoms, "x", "y", Fraction(noise)))
            proof.close(f"{name}, s = {noise}: the same as by balls", found, exact, rel=1e-9)
            gap = float(bounds(atoms, "y", Fraction(noise)).log_det) - found
            proof.close(f"{name}, s = {noise}: the gap", gap, _from_normal(atoms, noise), rel=1e-6)


def _from_normal(atoms: list[Atom], noise: float) -> float:
    """E_y KL(p(z|y) || N(mu_y, Cov_y + noise^2)) by the trapezoidal rule."""
    total = 0.0
    for members in classes(atoms, "y").values():
        share = np.array([float(a.share) for a in members])
        features, weight = np.array([float(a.feature) for a in members]), share / share.sum()
        mean = weight @ features
        variance = weight @ (features - mean) ** 2 + noise**2
        z = np.linspace(features.min() - 12 * noise, features.max() + 12 * noise, 40_001)
        p = np.exp(-(((z[:, None] - features) / noise) ** 2) / 2) @ weight / (noise * math.sqrt(2 * math.pi))
        reference = -((z - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2
        logs = np.log(p, out=np.zeros_like(p), where=p > 0)
        total += share.sum() * float((p * (logs - reference)).sum() * (z[1] - z[0]))
    return total


# Counterexamples.


@INFORMATION_BOUND.without("feature_of_input")
def _noise_cancelled(proof: Proof) -> None:
    """X = +-1 fair and h = X - sN, s = 3, one class: the noise is independent of (X, Y), but Z = X exactly."""
    x, noise, size = sympy.symbols("X N s")
    proof.identity("Z = h + sN = X", (x - size * noise) + size * noise, x)
    # Var h = 1 + s^2.
    proof.exceeds("I = log 2 against (1/2) log((1+s^2)/s^2 + 1)", math.log(2), math.log(10 / 9 + 1) / 2)


@INFORMATION_BOUND.without("independent_noise")
def _sign_of_both(proof: Proof) -> None:
    """X, Y = +-1 fair, N = XY|N'| and h = 0: N is N(0,1), independent of X and of Y, and its sign with Y gives X."""
    step = 12 / 20_000
    z = (np.arange(20_000) + 0.5) * step
    normal = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    half = 2 * normal
    proof.close("given y alone the two halves make N(0,1)", half / 2, normal)
    # Disjoint supports: log p(z|x,y)/p(z|y) = log 2 wherever p(z|x,y) > 0.
    found = float((half * np.log(half / normal)).sum() * step)
    proof.close("I(Z;X|Y) = log 2", found, math.log(2), rel=1e-8)
    proof.exceeds("I against the trace, 0", found, 0.0)


@INFORMATION_BOUND.without("normal_noise")
def _two_valued_noise(proof: Proof) -> None:
    """h = +-1/2 and noise +-1, one class: Z has four values and gives X, I = log 2."""
    values = {(h, n): h + n for h in (-0.5, 0.5) for n in (-1, 1)}
    proof.require("four sums, all different", len(set(values.values())) == 4)
    proof.exceeds("I against the trace V/2", math.log(2), 0.25 / 2)


@INFORMATION_BOUND.without("constant_scale")
def _random_scale(proof: Proof) -> None:
    """h = +-1, B = 1/10 nine times in ten and else 10, independent of all: I is enclosed, E B^2 = 10.009."""
    scales = ((Fraction(9, 10), Fraction(1, 10)), (Fraction(1, 10), Fraction(10)))
    atoms = [Atom(p / 2, h, h, 0, scale=B) for h in (1, -1) for p, B in scales]
    found = information(atoms, "x", "y", 1)
    proof.exceeds("I against V/(2 E B^2)", float(found.lower()), 1 / (2 * 10.009))


# Siblings.


def _altered(change: Callable[[list[Atom], Fraction, Bounds], list[tuple[str, Any]]]) -> Chain:
    def chain(atoms: list[Atom], noise: Fraction) -> list[tuple[str, Any]]:
        return [("I", information(atoms, "x", "y", noise)), *change(atoms, noise, bounds(atoms, "y", noise))]

    return chain


@INFORMATION_BOUND.sibling
def _nine_tenths_of_the_trace(proof: Proof) -> None:
    """I <= 0.9 Tr Sigma_W/(2 (sB)^2)."""
    _in_order(proof, _altered(lambda atoms, noise, found: [("0.9 trace", ball("0.9") * found.trace)]))
    information_ladder(proof, sympy.Rational(9, 10))


@INFORMATION_BOUND.sibling
def _less_log_det(proof: Proof) -> None:
    """I <= 0.9 (1/2) E log det."""
    _in_order(proof, _altered(lambda atoms, noise, found: [("0.9 E log det/2", ball("0.9") * found.log_det)]))
    _by_sampling(proof, lambda parts, noise: (0.9 * bounds_by_eigenvalues(parts, "y", noise)[0], math.inf, math.inf))


@INFORMATION_BOUND.sibling
def _first_power(proof: Proof) -> None:
    """I <= Tr Sigma_W/(2 s B): the noise's standard deviation in place of its variance."""

    def change(atoms: list[Atom], noise: Fraction, found: Bounds) -> list[tuple[str, Any]]:
        # Of a tenth of the features with a tenth of the noise, whose I is the same: (V/100)/(2 s/10).
        return [("trace with s", found.trace * ball(noise / 10))]

    _in_order(proof, _altered(change))


@INFORMATION_BOUND.sibling
def _unconditional(proof: Proof) -> None:
    """I(Z;X) <= Tr Sigma_W/(2 (sB)^2): the label is not given."""
    _in_order(
        proof,
        lambda atoms, noise: [
            ("I(Z;X)", information(atoms, "x", "", noise)),
            ("trace", bounds(atoms, "y", noise).trace),
        ],
    )


@INFORMATION_BOUND.sibling
def _pooled_first(proof: Proof) -> None:
    """(1/2) log det(Sigma_W/(sB)^2 + I) <= (1/2) E_y log det(Cov_y/(sB)^2 + I): concavity the wrong way round."""
    _in_order(
        proof,
        lambda atoms, noise: [("pooled", bounds(atoms, "y", noise).pooled), ("E", bounds(atoms, "y", noise).log_det)],
    )


@INFORMATION_BOUND.sibling
def _classes_alike(proof: Proof) -> None:
    """I <= mean over classes of V_y/(2 (sB)^2), every class counted alike."""

    def change(atoms: list[Atom], noise: Fraction, found: Bounds) -> list[tuple[str, Any]]:
        each = [value for _, value in variances(atoms, "y")]
        return [("unweighted trace", ball(sum(each, Fraction(0)) / len(each) / noise**2) / 2)]

    _in_order(proof, _altered(change))
