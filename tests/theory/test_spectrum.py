"""B5: the spectrum of the Hessian in W at collapse.

Independent channels: the predicted list (arithmetic in theory.numeric.collapse_spectrum), eigvalsh of the exact
Hessian by automatic differentiation, Hessian-vector products, and high-precision arithmetic with mpmath.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.strategies import collapsed_heads, seeds
from theory.formulas import kappa_at_collapse, levels
from theory.numeric.collapse_spectrum import (
    aligned_head,
    hessian_spectrum,
    softmax_curvatures,
    sorted_spectrum,
    spectrum_at_collapse,
)
from theory.numeric.configurations import Head, collapsed, generator_of, normal, simplex
from theory.numeric.oracle import head_hessian
from theory.spectrum import SPECTRUM

FEW = st.integers(2, 4)
MODERATE = st.floats(0.05, 9)


def radius_of(head: Head) -> float:
    means = head.features[torch.unique_consecutive(head.labels, return_counts=True)[1].cumsum(0) - 1]
    return float((means - means.mean(dim=0)).norm(dim=1)[0])


@given(drawn=collapsed_heads(classes=FEW, gaps=MODERATE))
def test_every_eigenvalue(drawn: tuple[Head, int, float, float]) -> None:
    """The whole sorted list against eigvalsh of the exact Hessian, in random rotations."""
    head, K, gap, gamma = drawn
    radius = radius_of(head)
    found = hessian_spectrum(head)
    claimed = sorted_spectrum(gap, K, head.weight.shape[1], radius=radius, mean_norm=gamma * radius)
    assert np.abs(found - claimed).max() <= 1e-10 * claimed[0]


def test_two_classes_by_hand() -> None:
    """Delta = log 3, M = 1: p = (3/4, 1/4), b_o = c = 1/4, g = 2, one eigenvalue 3/8."""
    values, counts = spectrum_at_collapse(math.log(3), 2, 3)
    assert values == pytest.approx([3 / 8, 0])
    assert counts.tolist() == [1, 5]


def test_three_classes_by_hand() -> None:
    """Delta = log 4, M = 1: b_o = 1/6, c = 1/4, g = 3/2: 1/6, 1/8 twice, 1/12, and 3m - 4 zeros."""
    values, counts = spectrum_at_collapse(math.log(4), 3, 5)
    assert values == pytest.approx([1 / 6, 1 / 8, 1 / 12, 0])
    assert counts.tolist() == [1, 2, 1, 11]


def test_two_classes_with_a_mean_by_hand() -> None:
    """Delta = log 3, M = G = 1: (G^2/2)(2 b_o + c) = 3/8 joins the first, so two lines coincide."""
    assert sorted_spectrum(math.log(3), 2, 2, mean_norm=1.0) == pytest.approx([3 / 8, 3 / 8, 0, 0])


def test_three_classes_with_a_mean_by_hand() -> None:
    """Delta = log 4, M = G = 1: the pair solves x^2 - (9/8) x + 1/4, once over K."""
    values, counts = spectrum_at_collapse(math.log(4), 3, 3, mean_norm=1.0)
    root = math.sqrt(81 / 64 - 1)
    assert values[[1, 3]] * 3 == pytest.approx([(9 / 8 + root) / 2, (9 / 8 - root) / 2])
    assert counts.tolist() == [1, 2, 1, 2, 3]


@pytest.mark.parametrize("mean_norm", [0.0, 1.0])
@pytest.mark.parametrize("K", [2, 3, 4, 10, 97])
def test_multiplicities_fill_the_space(K: int, mean_norm: float) -> None:
    for m in (K, K + 7):
        values, counts = spectrum_at_collapse(3.0, K, m, mean_norm=mean_norm)
        assert counts.min() > 0
        assert counts.sum() == K * m
        nonzero = K * (K - 1) - (mean_norm == 0) * (K - 1)
        assert counts[values > 0].sum() == nonzero


@given(drawn=collapsed_heads(classes=FEW, gaps=st.floats(0.2, 8)))
def test_rank_of_the_hessian(drawn: tuple[Head, int, float, float]) -> None:
    """Zeros counted on the exact Hessian: Km - (K-1)^2 with mu_G = 0, else Km - K(K-1)."""
    head, K, _, gamma = drawn
    found = hessian_spectrum(head)
    # The smallest nonzero line stays above 1e-6 of the largest for these gaps and gammas.
    assert int((found > 1e-8 * found[0]).sum()) == ((K - 1) * K if gamma else (K - 1) ** 2)


@given(K=st.integers(2, 100), gap=st.floats(0, 500), gamma=st.floats(0, 5), radius=st.floats(0.1, 10))
def test_trace_is_kappa(K: int, gap: float, gamma: float, radius: float) -> None:
    """kappa = lam^2 g Tr H with Delta = lam g: the collapse curve, another closed form."""
    values, counts = spectrum_at_collapse(gap, K, K, radius=radius, mean_norm=gamma * radius)
    g = radius**2 * K / (K - 1)
    assert gap**2 / g * float(values @ counts) == pytest.approx(float(kappa_at_collapse(gap, K, gamma)), rel=1e-11)


@pytest.mark.parametrize("gamma", [0.0, 1.3])
def test_squares_sum_to_the_frobenius_norm(gamma: float) -> None:
    head = collapsed(2, K=4, m=5, gap=2.5, radius=1.3, gamma=gamma)
    claimed = sorted_spectrum(2.5, 4, 5, radius=1.3, mean_norm=1.3 * gamma)
    assert float(head_hessian(head).square().sum()) == pytest.approx(float((claimed**2).sum()), rel=1e-11)


@pytest.mark.parametrize("gap", [5.0, 60.0, 300.0])
def test_nothing_cancels_at_large_gaps(gap: float) -> None:
    """The smaller root of the pair against the plain quadratic formula in 400 digits."""
    with mpmath.workdps(400):
        q = mpmath.exp(-mpmath.mpf(gap))
        b = q / (1 + 4 * q)
        p_true = 1 - 4 * b
        c, g, G2, theta = (p_true - b) * (1 - p_true + b), mpmath.mpf(5) / 4, mpmath.mpf("1e-8"), mpmath.mpf(3) / 5
        half = ((b + c * theta) * g + (5 * b + c) * G2) / 2
        other = ((b + c * theta) * g - (5 * b + c) * G2) / 2
        root = half - mpmath.sqrt(other**2 + c**2 * theta * g * G2)
        expected = float(root / 5)
    values, _ = spectrum_at_collapse(gap, 5, 5, mean_norm=1e-4)
    assert values[3] == pytest.approx(expected, rel=1e-13)


def test_no_gap_is_a_uniform_output() -> None:
    """Delta = 0: A_c = P/K, so every nonzero eigenvalue is M^2/(K(K-1)) or G^2/K."""
    values, counts = spectrum_at_collapse(0.0, 4, 6, radius=3.0, mean_norm=2.0)
    assert sorted(np.repeat(values, counts)) == pytest.approx([0.0] * 12 + [0.75] * 9 + [1.0] * 3)


def test_the_first_line_tends_to_k_times_the_bulk() -> None:
    """b_o ~ q and c ~ K q: every bulk eigenvalue is a K-th of the largest at low loss."""
    values, _ = spectrum_at_collapse(40.0, 7, 6)
    assert values[0] / values[-2] == pytest.approx(7, rel=1e-12)


def test_zero_mean_is_the_limit() -> None:
    small = sorted_spectrum(3.0, 5, 5, mean_norm=1e-9)
    assert small == pytest.approx(sorted_spectrum(3.0, 5, 5), abs=1e-15)


@pytest.mark.parametrize(
    ("gap", "K", "m", "mean_norm"), [(-1.0, 3, 3, 0.0), (1.0, 1, 3, 0.0), (1.0, 4, 2, 0.0), (1.0, 4, 3, 0.5)]
)
def test_refuses_what_cannot_collapse(gap: float, K: int, m: int, mean_norm: float) -> None:
    with pytest.raises(ValueError, match="no collapse"):
        spectrum_at_collapse(gap, K, m, mean_norm=mean_norm)


def test_a_wrong_multiplicity_shows() -> None:
    """One eigenvalue moved from the second line to the bulk is far outside the tolerance of the tests above."""
    values, counts = spectrum_at_collapse(3.0, 5, 6)
    wrong = np.sort(np.repeat(values, counts + np.array([0, -1, 1, 0])))[::-1]
    found = hessian_spectrum(collapsed(1, K=5, m=6, gap=3.0, radius=1.0))
    assert np.abs(found - wrong).max() > 0.1 * found[0]
    assert found == pytest.approx(np.repeat(values, counts), abs=1e-12)


def test_eigenvector_of_the_largest() -> None:
    """sum_c u_c (x) (mu_c - mu_G) by a Hessian-vector product, with mu_G orthogonal."""
    head = collapsed(3, K=4, m=6, gap=2.0, radius=1.0, gamma=0.3)
    weight = head.weight.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(head.features @ weight.T + head.bias, head.labels)
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    # The rows of W are the centred means up to a factor, and u_c (x) . summed over c gives them back.
    (product,) = torch.autograd.grad(gradient, weight, head.weight)
    value = spectrum_at_collapse(2.0, 4, 6, mean_norm=0.3)[0][0]
    assert torch.allclose(product, float(value) * head.weight, atol=1e-13, rtol=0)


def test_largest_eigenvalue_matrix_free() -> None:
    """Power iteration on Hessian-vector products, no Hessian formed; a large mean, so the pair is on top."""
    head = collapsed(3, K=4, m=6, gap=2.0, radius=1.0, gamma=3.0)
    weight = head.weight.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(head.features @ weight.T + head.bias, head.labels)
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    direction, size = normal(generator_of(0), 4, 6), torch.zeros(())
    for _ in range(60):
        (product,) = torch.autograd.grad(gradient, weight, direction / direction.norm(), retain_graph=True)
        direction, size = product, product.norm()
    claimed = sorted_spectrum(2.0, 4, 6, mean_norm=3.0)
    assert float(size) == pytest.approx(claimed[0], rel=1e-9)
    assert claimed[0] > spectrum_at_collapse(2.0, 4, 6, mean_norm=3.0)[0][0]


def test_samples_per_class_do_not_matter() -> None:
    once, thrice = (hessian_spectrum(collapsed(4, K=3, m=4, gamma=0.5, counts=n)) for n in (1, 3))
    assert once == pytest.approx(thrice, abs=1e-14)


@pytest.mark.parametrize("gap", [-0.7, -4.0])
def test_the_sign_of_lam_is_free_in_the_list(gap: float) -> None:
    """The lines hold for lam < 0 too, with c < 0; only the bounds need lam > 0."""
    K, g, G2 = 4, 4 / 3, 0.25
    b, c = softmax_curvatures(gap, K)
    assert c < 0
    claimed = levels(K, b, c, g, G2, 1 - 2 / K)
    root = math.sqrt(claimed.pair_sum**2 - 4 * claimed.pair_product)
    pair = [(claimed.pair_sum + root) / 2] * 3 + [(claimed.pair_sum - root) / 2] * 3
    expected = sorted([claimed.top, *[claimed.bulk] * 5, *pair, *[0.0] * 4], reverse=True)
    found = K * hessian_spectrum(collapsed(5, K=K, m=4, gap=gap, radius=1.0, gamma=0.5))
    assert found == pytest.approx(expected, abs=1e-13)


def any_mean(seed: int, K: int, m: int, size: float) -> torch.Tensor:
    return simplex(K, m, 1.0, seed=seed) + size * normal(generator_of(seed + 1), 1, m)


@given(seed=seeds, K=FEW, extra=st.integers(-1, 2), size=st.floats(0, 4), gap=st.floats(0.1, 8))
def test_bounds_for_any_mean(seed: int, K: int, extra: int, size: float, gap: float) -> None:
    """Weyl's bounds, with mu_G in any direction, m = K - 1 included; P (x) Sigma by a Kronecker product."""
    means = any_mean(seed, K, K + extra, size)
    found = K * hessian_spectrum(aligned_head(means, gap))
    centring = torch.eye(K, dtype=torch.float64) - 1 / K
    reference = torch.linalg.eigvalsh(torch.kron(centring, means.T @ means)).flip(0).numpy()
    p = torch.softmax(torch.tensor([gap] + [0.0] * (K - 1), dtype=torch.float64), dim=0)
    b, step = float(p[1]), float(p[0] - p[1])
    c = step * (1 - step)
    rounding = 1e-11 * found[0]
    assert (b * reference <= found + rounding).all()
    assert (found <= (b + c * (1 - 1 / K)) * reference + rounding).all()
    assert (found[K:] <= b * reference[:-K] + rounding).all()


@pytest.mark.parametrize("K", [3, 4, 6])
def test_as_many_outliers_as_classes(K: int) -> None:
    """K >= 3, mu_G = 0: exactly K eigenvalues of K H pass b_o g, the largest of b_o P (x) Sigma."""
    head = collapsed(K, K=K, m=K, gap=3.0, radius=1.0)
    b, _ = softmax_curvatures(3.0, K)
    assert int((K * hessian_spectrum(head) > b * K / (K - 1) * (1 + 1e-9)).sum()) == K


def test_both_bounds_are_attained() -> None:
    """mu_G = 0, K = 4: the largest eigenvalue is the upper bound, the bulk the lower one."""
    b, c = softmax_curvatures(2.0, 4)
    found = 4 * hessian_spectrum(collapsed(0, K=4, m=3, gap=2.0, radius=1.0))
    assert found[0] == pytest.approx((b + c * 3 / 4) * 4 / 3, rel=1e-12)
    assert found[8] == pytest.approx(b * 4 / 3, rel=1e-12)


def test_a_leaning_mean_is_not_covered_by_the_list() -> None:
    """With mu_G inside the span the trace is right and the list is not: only the bounds are claimed there."""
    centred = simplex(3, 2, 1.0)
    found = hessian_spectrum(aligned_head(centred + 0.8 * centred[0], 3.0))
    claimed = sorted_spectrum(3.0, 3, 3, mean_norm=0.8)
    assert found.sum() == pytest.approx(claimed.sum(), rel=1e-12)
    assert abs(found[0] - claimed[0]) > 0.05 * claimed[0]


def test_what_is_on_record() -> None:
    assert (SPECTRUM.label, SPECTRUM.kind, SPECTRUM.status) == ("B5", "equality", "proved")
