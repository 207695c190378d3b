"""F4: variance within super-classes pays for fine information; grids, balls, exact entropies by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.numeric.information_cases import families
from theory.numeric.information_quadrature import Atom, bounds, information, information_by_entropies, variances
from theory.numeric.information_sampled import Component, bounds_by_eigenvalues, sampled_information
from theory.superclass_information import coin, mostly_the_label, the_chain

HALF = Fraction(1, 2)


@st.composite
def joint(draw: st.DrawFn, *, of_label: bool = True) -> list[Atom]:
    """(X, Y, S) on a few points, X = the feature; labels may be noisy, S a function of Y or anything."""
    count = draw(st.integers(2, 6))
    cells = draw(
        st.lists(
            st.tuples(st.integers(-8, 8), st.integers(0, 3), st.integers(0, 1)),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )
    weights = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    whole = sum(weights)
    return [
        Atom(Fraction(w, whole), Fraction(x, 3), x, y, y // 2 if of_label else s)
        for w, (x, y, s) in zip(weights, cells, strict=True)
    ]


def told(atoms: list[Atom], of: str, given: str, noise: float) -> float:
    return information_by_entropies(atoms, of, given, noise, points=6001)


@given(atoms=joint(), noise=st.floats(0.3, 5))
def test_chain_and_equalities(atoms: list[Atom], noise: float) -> None:
    beyond, inner = told(atoms, "y", "s", noise), told(atoms, "x", "s", noise)
    log_det, _, trace = (float(b) for b in bounds(atoms, "s", Fraction(noise)))
    assert -1e-9 <= beyond <= inner + 1e-9
    assert inner <= log_det + 1e-9
    assert log_det <= trace + 1e-12
    assert beyond == pytest.approx(inner - told(atoms, "x", "y", noise), abs=1e-8)
    assert beyond == pytest.approx(told(atoms, "y", "", noise) - told(atoms, "s", "", noise), abs=1e-8)


@given(atoms=joint(of_label=False), noise=st.floats(0.3, 5))
def test_inequalities_hold_for_any_s(atoms: list[Atom], noise: float) -> None:
    beyond, inner = told(atoms, "y", "s", noise), told(atoms, "x", "s", noise)
    assert beyond <= inner + 1e-9
    assert inner <= float(bounds(atoms, "s", Fraction(noise)).log_det) + 1e-9


@given(atoms=joint())
def test_variance_within_super_classes_splits(atoms: list[Atom]) -> None:
    """V_S = Tr Sigma_W + E||mu_Y - mu_S||^2, in fractions by hand."""

    def mean(of: list[Atom]) -> Fraction:
        return sum((a.share * a.feature for a in of), Fraction(0)) / sum((a.share for a in of), Fraction(0))

    apart = sum(
        (
            a.share * (mean([b for b in atoms if b.y == a.y]) - mean([b for b in atoms if b.s == a.s])) ** 2
            for a in atoms
        ),
        Fraction(0),
    )
    of_y, of_s = (sum((p * v for p, v in variances(atoms, given)), Fraction(0)) for given in "ys")
    assert of_s == of_y + apart


def test_variance_does_not_split_for_any_s() -> None:
    """Tr Sigma_W + E||mu_Y - mu_S||^2 = 1/12 + 13/16 = 43/48 by hand; what pays is E||h - mu_S||^2 = 49/48."""
    atoms = mostly_the_label()
    of_y, of_s = (sum((p * v for p, v in variances(atoms, given)), Fraction(0)) for given in "ys")
    assert (of_y, of_s) == (Fraction(1, 12), Fraction(49, 48))
    told_of_y = float(information(atoms, "y", "s", 3))
    assert float(Fraction(43, 48) / 18) < told_of_y < float(bounds(atoms, "s", 3).log_det)


def test_fine_collapse_tells_all_of_the_variance_and_super_class_collapse_nothing() -> None:
    fine = [Atom(HALF, 1, 0, 0), Atom(HALF, -1, 1, 1)]
    assert float(information(fine, "y", "s", 1)) == pytest.approx(0.33683082, abs=1e-8)
    upper = [Atom(HALF, 1, 0, 0, 0), Atom(HALF / 2, -1, 1, 1, 1), Atom(HALF / 2, -1, 1, 2, 1)]
    assert float(information(upper, "y", "s", 1)) == float(bounds(upper, "s", 1).trace) == 0


def test_the_price_is_sharp_as_the_variance_vanishes() -> None:
    """Fine collapse on two means +-d: I(Z;Y|S) / (V_S/2s^2) = 1 - d^2/2s^2 + ... -> 1."""
    for d in (Fraction(1, 10), Fraction(1, 40)):
        atoms = [Atom(HALF, d, 0, 0), Atom(HALF, -d, 1, 1)]
        ratio = float(information(atoms, "y", "s", 1) / bounds(atoms, "s", 1).trace)
        assert 1 - ratio == pytest.approx(float(d) ** 2 / 2, rel=0.05)


def test_coins_hide_each_other() -> None:
    """h = +-1 by the parity of two coins: I(Z;Y) = I(Z;S) = 0 and I(Z;Y|S) is that of h = +-1."""
    assert float(information(coin(), "y", "", 1)) == pytest.approx(0, abs=1e-11)
    assert float(information(coin(), "y", "s", 1)) == pytest.approx(0.33683082, abs=1e-8)


def test_noisy_labels_keep_the_chain_and_lose_information() -> None:
    """Y is X flipped with probability f: I(Z;Y|S) falls from I(Z;X|S) at f = 0 to 0 at f = 1/2."""
    found = []
    for f in (Fraction(0), Fraction(1, 10), Fraction(3, 10), HALF):
        atoms = [Atom(HALF * (1 - f if x == y else f), 3 * x, x, y) for x in (0, 1) for y in (0, 1)]
        found.append(float(information(atoms, "y", "s", 1)))
        assert found[-1] <= float(information(atoms, "x", "s", 1)) + 1e-9
    assert found[0] > found[1] > found[2] > found[3] == pytest.approx(0, abs=1e-10)
    # A noisy channel after another: at most (1 - h(f)) log 2 is left.
    assert found[1] < math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)


def test_chain_drops_the_link_that_is_an_equality() -> None:
    assert next(name for name, _ in the_chain(families(0)[1][1], Fraction(1))) == "I(Z;X|S)"
    assert len(the_chain(families(0)[0][1], Fraction(1))) == 4


def test_sampled_in_the_plane_against_a_product() -> None:
    """Classes are the four corners (+-1, +-1), super-classes the first sign: I(Z;Y|S) is that of h = +-1."""
    parts = [
        Component(0.25, np.array([a, b]), np.zeros((2, 2)), int(2 * a + b), int(a))
        for a in (1.0, -1.0)
        for b in (1.0, -1.0)
    ]
    found = sampled_information(parts, "y", "s", 1.0, draws=40_000, seed=2)
    assert abs(found.value - 0.33683082) < 4 * found.stderr < 0.02
    assert bounds_by_eigenvalues(parts, "s", 1.0) == pytest.approx((math.log(2) / 2, math.log(2) / 2, 0.5))


# Stronger claims that are false.


def test_within_class_variance_does_not_pay() -> None:
    fine = [Atom(HALF, 1, 0, 0), Atom(HALF, -1, 1, 1)]
    assert float(information(fine, "y", "s", 1)) > float(bounds(fine, "y", 1).trace) == 0


def test_means_alone_do_not_pay() -> None:
    """Two classes of mean 0, variances 0 and 4."""
    atoms = [Atom(HALF, 0, 0, 0), Atom(HALF / 2, 2, 1, 1), Atom(HALF / 2, -2, 2, 1)]
    assert float(information(atoms, "y", "s", 1)) > 0.2


def test_the_difference_of_log_dets_is_no_bound() -> None:
    """Classes +-1 and (0, +-sqrt 2) share mean and variance: the two log dets are equal, and Z tells them apart."""
    atoms = [
        *(Atom(HALF / 2, h, h, 0) for h in (-1, 1)),
        *(Atom(HALF / 4, Fraction(h, 100), h, 1) for h in (-141, 141)),
    ]
    atoms.append(Atom(HALF / 2, 0, 0, 1))
    log_det_s, log_det_y = (float(bounds(atoms, given, "1/3").log_det) for given in "sy")
    assert log_det_s - log_det_y < 0.01
    assert float(information(atoms, "y", "s", "1/3")) > 0.18
