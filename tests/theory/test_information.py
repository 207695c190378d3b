"""E2: the information of noisy features beyond the label, against mpmath, grids, and known answers.

Channels that share no code with the balls of the certificates: mpmath integrals written out here, differential
entropies on a grid, and Monte Carlo with error bars.
"""

from __future__ import annotations

import math
from fractions import Fraction

import flint
import mpmath
import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.algebra.information_gap import expectation, information_ladder
from theory.information import INFORMATION_BOUND
from theory.numeric.information_cases import SIGN, normal_mixture
from theory.numeric.information_quadrature import Atom, ball, bounds, information, information_by_entropies, variances
from theory.numeric.information_sampled import Component, bounds_by_eigenvalues, points, sampled_information
from theory.proof import Proof


def of_two_points(s: float) -> mpmath.mpf:
    """I = log 2 - E log(1 + exp(-2 (1 + s N)/s^2)) for h = +-1, by mpmath."""

    def integrand(x: mpmath.mpf) -> mpmath.mpf:
        return mpmath.npdf(x) * mpmath.log1p(mpmath.exp(-2 * (1 + s * x) / mpmath.mpf(s) ** 2))

    return mpmath.log(2) - mpmath.quad(integrand, [-14, -1 / s, 0, 14] if s > 0.1 else [-14, -1, 0, 1, 14])


@pytest.mark.parametrize(("s", "printed"), [("1/2", 0.6327), ("1", 0.3368), ("3", 0.05267), ("10", 0.004975)])
def test_two_points_against_mpmath(s: str, printed: float) -> None:
    found = information(SIGN, "x", "y", s)
    exact = of_two_points(float(Fraction(s)))
    assert float(found) == pytest.approx(float(exact), abs=1e-11)
    assert float(found) == pytest.approx(printed, rel=2e-4)
    log_det, pooled, trace = bounds(SIGN, "y", s)
    square = float(Fraction(s)) ** 2
    assert float(log_det) == float(pooled) == pytest.approx(math.log1p(1 / square) / 2)
    assert float(trace) == pytest.approx(1 / (2 * square))


def test_balls_enclose_what_more_digits_find() -> None:
    atoms = [Atom(Fraction(1, 7), 2, 0, 0, scale=Fraction(1, 3)), Atom(Fraction(6, 7), 0, 1, 0)]
    coarse = information(atoms, "x", "y", "1/2")
    with flint.ctx.workprec(120):
        fine = information(atoms, "x", "y", "1/2")
    assert coarse.overlaps(fine)
    assert float(coarse.rad()) < 1e-10
    assert float(fine) == pytest.approx(information_by_entropies(atoms, "x", "y", 0.5), rel=1e-9)


@st.composite
def distributions(draw: st.DrawFn) -> list[Atom]:
    """Two classes of up to four points with rational weights; points may coincide, a class may be a point."""
    weights = draw(st.lists(st.integers(1, 20), min_size=2, max_size=8))
    features = draw(st.lists(st.integers(-20, 20), min_size=len(weights), max_size=len(weights)))
    whole = sum(weights)
    # Equal features are one x.
    return [
        Atom(Fraction(w, whole), Fraction(h, 5), h, int(i % 2))
        for i, (w, h) in enumerate(zip(weights, features, strict=True))
    ]


@given(atoms=distributions(), noise=st.floats(0.2, 10))
def test_chain_on_a_grid(atoms: list[Atom], noise: float) -> None:
    found = information_by_entropies(atoms, "x", "y", noise, points=8001)
    log_det, pooled, trace = (float(b) for b in bounds(atoms, "y", Fraction(noise)))
    assert -1e-9 <= found <= log_det + 1e-9
    assert log_det <= pooled + 1e-12
    assert pooled <= trace + 1e-12
    entropies = sum(-float(a.share) * math.log(float(a.share)) for a in atoms)
    assert found <= entropies + 1e-9


@settings(max_examples=6)
@given(atoms=distributions(), noise=st.sampled_from([Fraction(1, 2), Fraction(2)]))
def test_balls_against_the_grid(atoms: list[Atom], noise: Fraction) -> None:
    found = information(atoms, "x", "y", noise)
    assert float(found) == pytest.approx(information_by_entropies(atoms, "x", "y", float(noise)), abs=1e-9)


def test_trace_is_sharp_as_the_noise_grows_and_log_det_before_it() -> None:
    """The deviations from 1 fall as s^-2 and s^-4: I = V/2s^2 - V^2/4s^4 + ..., log det alike in both terms."""
    atoms = [Atom(Fraction(1, 4), 3, 0, 0), Atom(Fraction(3, 4), -1, 1, 0)]
    (_, variance), *_ = variances(atoms, "y")
    for s in (20, 80):
        with flint.ctx.workprec(150):
            found, (log_det, _, trace) = information(atoms, "x", "y", s), bounds(atoms, "y", s)
            assert float(1 - found / trace) == pytest.approx(float(variance) / (2 * s**2), rel=0.05)
            # The skewness makes the next term, of order s^-6: E(h-mu)^3 = 6.
            skew = sum(a.share * a.feature**3 for a in atoms)
            assert skew == 6
            assert float(log_det - found) == pytest.approx(float(skew**2 / 12) / s**6, rel=0.1)


def test_small_noise_tells_the_point_and_the_bounds_grow() -> None:
    found = information(SIGN, "x", "y", "1/20")
    assert float(found) == pytest.approx(math.log(2), abs=1e-12)
    assert float(bounds(SIGN, "y", "1/20").log_det) > 4 * math.log(2)


def test_gap_closes_as_features_become_normal() -> None:
    """Binomial features of variance 1, from +-1 to twelve steps; and it is a relative entropy, so not negative."""
    gaps = []
    for n in (1, 3, 12):
        atoms = [
            Atom(Fraction(math.comb(n, k), 2**n), Fraction(round((2 * k - n) / math.sqrt(n) * 10**6), 10**6), k, 0)
            for k in range(n + 1)
        ]
        gaps.append(float(bounds(atoms, "y", "1/2").log_det) - information_by_entropies(atoms, "x", "y", 0.5))
    assert gaps[0] == pytest.approx(0.172, abs=1e-3)
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2] > 0


def test_no_variance_no_information() -> None:
    atoms = [Atom(Fraction(1, 2), 1, 0, 0), Atom(Fraction(1, 2), -1, 1, 1)]
    assert float(information(atoms, "x", "y", 1)) == 0
    assert all(float(b) == 0 for b in bounds(atoms, "y", 1))


def test_absent_atoms_change_nothing() -> None:
    more = [*SIGN, Atom(0, 50, 2, 0), Atom(0, 1, 3, 1)]
    assert float(information(more, "x", "y", 1)) == float(information(SIGN, "x", "y", 1))
    assert float(bounds(more, "y", 1).trace) == 0.5


# Sampling.


def test_sampler_on_products_whose_information_is_known() -> None:
    """h = (+-1, +-1) rotated: twice the information of h = +-1."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    corners = np.array([[a, b] for a in (1.0, -1.0) for b in (1.0, -1.0)])
    cloud = points(corners @ turn.T, [0] * 4)
    for s in (0.5, 1.5):
        found = sampled_information(cloud, "x", "y", s, draws=40_000, seed=1)
        assert abs(found.value - 2 * float(of_two_points(s))) < 4 * found.stderr < 0.03


def test_equality_for_normal_classes_and_not_for_normal_coordinates_alone() -> None:
    """(G, eps G) has normal coordinates and covariance I, but is not normal: it lies on two lines."""
    one = normal_mixture(3, 3, 2, 1)
    found = sampled_information(one, "x", "y", 0.7, draws=40_000, seed=0)
    assert abs(found.value - bounds_by_eigenvalues(one, "y", 0.7)[0]) < 4 * found.stderr
    cross = [Component(0.5, np.zeros(2), np.array([[1.0, e], [e, 1.0]]), 0) for e in (1.0, -1.0)]
    found = sampled_information(cross, "x", "y", 0.3, draws=40_000, seed=0)
    limit = bounds_by_eigenvalues(cross, "y", 0.3)[0]
    assert limit == pytest.approx(math.log1p(1 / 0.09))
    assert found.value + 10 * found.stderr < limit


@given(seed=st.integers(0, 1000), noise=st.floats(0.2, 5))
def test_bounds_in_order_in_any_dimension(seed: int, noise: float) -> None:
    log_det, pooled, trace = bounds_by_eigenvalues(normal_mixture(seed, 1 + seed % 5, 3, 2), "y", noise)
    assert log_det <= pooled * (1 + 1e-12)
    assert pooled <= trace * (1 + 1e-12)


# The algebra, and claims that are false.


def test_expectation_knows_second_moments_only() -> None:
    d, n = sympy.symbols("d n", real=True)
    assert expectation(sympy.Integer(5)) == 5
    assert str(sympy.expand(expectation((d + 2 * n) ** 2 + d * n + d))) == "c + 4*v"
    with pytest.raises(KeyError):
        expectation(d**3)
    with pytest.raises(KeyError):
        expectation(d**2 * n**2)


@pytest.mark.parametrize("constant", [sympy.Rational(1, 2), sympy.Rational(99, 100)])
def test_ladder_refutes_a_smaller_constant(constant: sympy.Rational) -> None:
    proof = Proof()
    information_ladder(proof, constant)
    assert [step.holds for step in proof.steps].count(False) == 1
    assert proof.steps[-1].holds is False


def test_pooled_and_trace_are_the_order_that_holds() -> None:
    """Two classes of variances 0 and 2 at s = 1: log 3/4 < log 2/2 < 1/2, by hand."""
    atoms = [Atom(Fraction(1, 2), 0, 0, 0), *(Atom(Fraction(1, 4), h, h, 1) for h in (-1, 1))]
    scaled = [a._replace(feature=Fraction(a.feature) * Fraction(141421356, 10**8)) for a in atoms]
    assert [float(b) for b in bounds(scaled, "y", 1)] == pytest.approx(
        [math.log(3) / 4, math.log(2) / 2, 0.5], rel=1e-7
    )


def test_randomised_features_need_noise_of_their_own() -> None:
    """h = X + U with U independent of the noise: the bounds hold, and normal h is no equality any more."""
    s2, of_x, of_u = 0.25, 1.0, 2.0
    found = math.log((of_x + of_u + s2) / (of_u + s2)) / 2  # Z and Z|X are normal
    assert found < math.log1p((of_x + of_u) / s2) / 2
    parts = [Component(0.5, np.array([h]), np.array([[of_u]]), y) for y, h in enumerate((1.0, -1.0))]
    told = sampled_information([p._replace(s=0) for p in parts], "y", "s", 0.5, draws=20_000, seed=3)
    assert 0 < told.value < bounds_by_eigenvalues(parts, "s", 0.5)[0]


def test_random_scale_is_refuted_only_where_it_is_random() -> None:
    """The same E B^2 held constant keeps the bound."""
    square = Fraction(10009, 1000)
    root = Fraction(math.isqrt(10009 * 10**9), 10**6)
    assert float(root) ** 2 == pytest.approx(float(square), rel=1e-5)
    assert float(information(SIGN, "x", "y", root)) < float(ball(1 / (2 * square)))


def test_assumptions_and_status() -> None:
    assert INFORMATION_BOUND.status == "proved"
    assert set(INFORMATION_BOUND.assumptions) == {
        "feature_of_input",
        "independent_noise",
        "normal_noise",
        "constant_scale",
    }
