"""D2: critical points and spectra of the unconstrained-features model.

Channels that share no code: the closed spectra (theory.numeric.ufm_spectrum), dense joint Hessians by
torch.func at explicit points and at points an optimiser finds, and Hessians by finite differences of the
gradient.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.strategies import seeds
from theory.algebra.class_matrices import FAMILIES, letter
from theory.algebra.ufm_second_variation import at_the_minimiser
from theory.landscape import critical_points
from theory.numeric.configurations import Head, generator_of, normal, rotation
from theory.numeric.ufm import FreeFeatures, balanced
from theory.numeric.ufm_spectrum import minimiser, spectrum_at_minimum, spectrum_at_origin
from theory.proof import Proof


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int, int, float, float]:
    """K, n, m >= K - 1 and unequal decays with L < 1/K."""
    K, n = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    share, ratio = draw(st.floats(0.02, 0.9)), draw(st.floats(0.2, 5))
    decay = share / (K * math.sqrt(n))
    return K, n, K - 1 + draw(st.integers(0, 2)), decay * ratio, decay / ratio


@given(size=sizes(), seed=seeds)
def test_every_eigenvalue_at_the_minimum(size: tuple[int, int, int, float, float], seed: int) -> None:
    model = balanced(*size)
    found = model.spectrum(model.point(minimiser(*size, seed=seed)))
    expected = spectrum_at_minimum(*size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * expected.max())


@given(size=sizes(), share=st.floats(0.1, 4))
def test_every_eigenvalue_at_the_origin(size: tuple[int, int, int, float, float], share: float) -> None:
    K, n, m, l_W, l_H = size
    model = balanced(K, n, m, share * l_W, l_H)
    found = model.spectrum(torch.zeros(model.size, dtype=torch.float64))
    np.testing.assert_allclose(found, spectrum_at_origin(K, n, m, share * l_W, l_H), rtol=0, atol=1e-13)


@given(size=sizes(), seed=seeds)
@settings(max_examples=10)
def test_the_minimiser_found_has_that_spectrum(size: tuple[int, int, int, float, float], seed: int) -> None:
    """The optimiser knows no closed form; start and rotation do not matter."""
    model = balanced(*size)
    point = model.minimise(seed)
    expected = spectrum_at_minimum(*size)
    np.testing.assert_allclose(model.spectrum(point), expected, rtol=0, atol=1e-7 * expected.max())
    best = float(model.objective(model.point(minimiser(*size))))
    assert float(model.objective(point)) == pytest.approx(best, rel=1e-12)


@given(K=st.integers(2, 12), n=st.integers(1, 4), extra=st.integers(0, 6), share=st.floats(0.01, 0.95))
def test_zero_directions_are_the_rotations(K: int, n: int, extra: int, share: float) -> None:
    m, decay = K - 1 + extra, share / (K * math.sqrt(n))
    values = spectrum_at_minimum(K, n, m, decay / 2, decay * 2)
    assert values.shape == (K * m + m * n * K,)
    zero = np.abs(values) < 1e-12 * values.max()
    assert int(zero.sum()) == (K - 1) * (2 * m - K) // 2
    assert values[~zero].min() > 0


@pytest.mark.parametrize(("K", "n", "m"), [(2, 1, 3), (3, 2, 2), (4, 1, 6)])
def test_rotations_span_the_zero_directions(K: int, n: int, m: int) -> None:
    """Rank of the tangent space of the orbit under O(m), by explicit generators, and H kills it."""
    model = balanced(K, n, m, 0.03, 0.02)
    head = minimiser(K, n, m, 0.03, 0.02)
    hessian = model.joint_hessian(model.point(head))
    tangents = []
    for i in range(m):
        for j in range(i):
            generator = torch.zeros(m, m, dtype=torch.float64)
            generator[i, j], generator[j, i] = 1.0, -1.0
            moved = Head(head.features @ generator, head.weight @ generator, head.bias, head.labels)
            tangents.append(model.point(moved))
    orbit = torch.stack(tangents)
    assert float((orbit @ hessian).abs().max()) < 1e-13
    assert int(torch.linalg.matrix_rank(orbit, rtol=1e-10)) == (K - 1) * (2 * m - K) // 2


@pytest.mark.parametrize(("K", "n", "m"), [(2, 1, 1), (3, 2, 4), (4, 1, 3)])
def test_at_the_threshold_the_zeros_are_m_times_k_minus_one(K: int, n: int, m: int) -> None:
    decay = 1 / (K * math.sqrt(n))
    values = spectrum_at_minimum(K, n, m, decay * 2, decay / 2)
    assert int((np.abs(values) < 1e-12).sum()) == m * (K - 1)


def test_above_the_threshold_the_minimum_is_the_origin() -> None:
    np.testing.assert_array_equal(spectrum_at_minimum(3, 1, 2, 0.5, 0.4), spectrum_at_origin(3, 1, 2, 0.5, 0.4))
    assert spectrum_at_minimum(3, 1, 2, 0.5, 0.4).min() > 0


def test_the_spectrum_joins_at_the_threshold() -> None:
    """Both closed forms meet at L = 1/K, K = 2 and K = 5."""
    for K in (2, 5):
        below = spectrum_at_minimum(K, 1, K, (1 - 1e-9) / K, (1 - 1e-9) / K)
        np.testing.assert_allclose(below, spectrum_at_origin(K, 1, K, 1 / K, 1 / K), atol=1e-7)


def test_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        spectrum_at_minimum(4, 1, 2, 0.01, 0.01)


def test_two_classes_in_one_dimension_by_hand() -> None:
    """K = 2, n = m = 1, L = l = 0.1: Delta = log 9, p_t = 0.9; four numbers, none of them 0."""
    gap = math.log(9)
    a = 0.9 * gap
    expected = sorted([0.1 * (1 + a + (a - 1)), 0.1 * (1 + a - (a - 1)), 0.1, 0.1 * (1 + gap / 2 + gap * 0.8 / 2)])
    np.testing.assert_allclose(spectrum_at_minimum(2, 1, 1, 0.1, 0.1), expected, rtol=1e-12)


def test_hessian_by_differences_of_the_gradient() -> None:
    """A channel without second derivatives: central differences at the explicit minimiser."""
    size = (3, 2, 3, 0.05, 0.02)
    model = balanced(*size)
    point, step = model.point(minimiser(*size)), 1e-5
    basis = step * torch.eye(model.size, dtype=torch.float64)
    columns = [(model.gradient(point + e) - model.gradient(point - e)) / (2 * step) for e in basis]
    found = torch.linalg.eigvalsh(torch.stack(columns))
    np.testing.assert_allclose(found, spectrum_at_minimum(*size), atol=1e-8)


def test_a_bias_adds_directions_but_no_negative_one() -> None:
    """With a bias the minimum is the same point; its one new zero is b -> b + t 1."""
    size = (3, 2, 4, 0.05, 0.02)
    model = balanced(*size, bias=True)
    head = minimiser(*size)
    values = model.spectrum(model.point(head))
    assert float(values[0]) > -1e-14
    assert int((values.abs() < 1e-12).sum()) == 2 * (8 - 3) // 2 + 1


@given(K=st.integers(3, 5), extra=st.integers(0, 2), seed=seeds)
@settings(max_examples=8)
def test_critical_points_of_lower_rank_have_negative_curvature(K: int, extra: int, seed: int) -> None:
    """A minimiser in fewer dimensions, padded with zeros: critical, not minimal, and not a local minimum."""
    m = K - 1 + extra
    narrow, model = (balanced(K, 1, width, 0.02, 0.03) for width in (K - 2, m))
    head = narrow.head(narrow.minimise(seed))
    features, weight = (torch.nn.functional.pad(part, (0, m - K + 2)) for part in (head.features, head.weight))
    turn = rotation(seed, m)
    point = model.point(Head(features @ turn, weight @ turn, head.bias, head.labels))
    assert float(model.gradient(point).norm()) < 1e-9
    assert float(model.spectrum(point)[0]) < -1e-4


@pytest.mark.parametrize(("K", "m", "bias"), [(2, 1, False), (3, 2, False), (3, 2, True)])
def test_critical_points_that_newton_finds(K: int, m: int, bias: bool) -> None:
    """Newton's method on the gradient goes to saddles as gladly as to minima: none is a local minimum but the best."""
    model = balanced(K, 1, m, 0.04, 0.03, bias=bias)
    best = float(model.objective(model.minimise(0)))
    saddles = 0
    for seed in range(4):
        point = (0.2 + seed / 4) * normal(generator_of(seed), model.size)
        for _ in range(30):
            if float(model.gradient(point).norm()) < 1e-11:
                break
            step = torch.linalg.pinv(model.joint_hessian(point), rtol=1e-8, hermitian=True) @ model.gradient(point)
            point = point - step / max(1.0, float(step.norm()))
        if float(model.gradient(point).norm()) < 1e-10 and float(model.objective(point)) > best + 1e-6:
            saddles += 1
            assert float(model.spectrum(point)[0]) < -1e-3
    assert saddles > 0


def test_imbalance_keeps_the_landscape() -> None:
    """The proof of the first clause uses no balance: from every start the same minimum, m = K - 1."""
    model = FreeFeatures((4, 2, 1), 2, 0.02, 0.03)
    values = [float(model.objective(model.minimise(seed))) for seed in range(6)]
    assert max(values) - min(values) < 1e-12


def test_one_dimension_short_there_is_a_spurious_minimum() -> None:
    """K = 6, m = 4: another stable value of F, so m >= K - 1 cannot be relaxed to K - 2."""
    model = balanced(6, 1, 4, 0.03, 0.03)
    worse = model.minimise(4)
    assert float(model.objective(worse)) > float(model.objective(model.minimise(0))) + 1e-3
    nudged = worse + 1e-3 * normal(generator_of(0), model.size)
    again = nudged.clone()
    for _ in range(400):
        again = again - 2.0 * model.gradient(again)
    assert float(model.objective(again)) == pytest.approx(float(model.objective(worse)), abs=1e-7)


def test_the_minimum_is_the_least_of_random_points() -> None:
    size = (4, 2, 3, 0.02, 0.01)
    model = balanced(*size)
    best = float(model.objective(model.point(minimiser(*size))))
    for seed in range(30):
        point = model.point(minimiser(*size)) + 0.1 * (seed + 1) * normal(generator_of(seed), model.size)
        assert float(model.objective(point)) > best


def test_the_wrong_zero_count_is_found() -> None:
    proof = Proof()
    at_the_minimiser(proof, lambda K, m: (K - 1) * m)
    assert [step.text[:5] for step in proof.steps if not step.holds] == ["zeros"]


def test_every_case_of_a_critical_point_is_checked() -> None:
    proof = Proof()
    critical_points(proof)
    assert {step.text.split()[0] for step in proof.steps if step.text.startswith("(")} == {"(i)", "(ii)", "(iii)"}
    assert all(step.holds for step in proof.steps)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_families_are_centred(name: str) -> None:
    family = FAMILIES[name]
    for centred in (family.centre_columns(), family.centre_rows()):
        assert all(sympy.cancel(value) == 0 for value in (centred - family).coefficients())


def test_class_matrices_are_matrices() -> None:
    """Centring, transposition and the diagonal of a generic combination at K = 4, against sympy's matrices."""
    v = sympy.Matrix([3, -1, -4, 2])
    S = sympy.Matrix([[0, 2, -2, 0], [2, 0, 0, -2], [-2, 0, 0, 2], [0, -2, 2, 0]])
    T = sympy.Matrix([[0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1], [1, 0, -1, 0]])
    total = sum(((i + 2) * letter(name) for i, name in enumerate(("J", "V", "v1", "1v", "S", "T"))), letter("I"))
    P = sympy.eye(4) - sympy.ones(4, 4) / 4
    spelt = total.explicit(v, S, T)
    assert total.centre_columns().explicit(v, S, T) == P * spelt
    assert total.centre_rows().explicit(v, S, T) == spelt * P
    assert total.T.explicit(v, S, T) == spelt.T
    assert total.diagonal().explicit(v, S, T) == sympy.diag(*[spelt[i, i] for i in range(4)])
