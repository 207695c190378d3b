"""The published curve against its formula in 40 digits, and that it is the curvature of nothing."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grokcore import frobenius_surrogate, relative_flatness
from grokcore.training.published import product_surrogate


def draw(seed: int, *, n: int = 5, m: int = 4, K: int = 6, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 2, m, generator=generator, dtype=torch.float64)
    return features, scale * torch.randn(K, m, generator=generator, dtype=torch.float64)


def in_words(features: Tensor, weight: Tensor) -> tuple[float, float]:
    """Both numbers from the formula, sample by sample and row by row."""
    with mpmath.workdps(40):
        w = [[mpmath.mpf(x) for x in row] for row in weight.tolist()]
        frobenius = sum(x * x for row in w for x in row)
        product = variance = mpmath.mpf(0)
        for sample in features.tolist():
            h1, h2 = ([mpmath.mpf(x) for x in position] for position in sample)
            logits = [_dot(row, h1) * _dot(row, h2) for row in w]
            masses = [mpmath.exp(z - max(logits)) for z in logits]
            q = [mass / sum(masses) for mass in masses]
            norm = _dot(h1, h1) + _dot(h2, h2)
            product += frobenius * norm * sum(a * b for a, b in itertools.permutations(q, 2))
            mean = [sum(p * row[j] for p, row in zip(q, w, strict=True)) for j in range(len(h1))]
            variance += norm * sum(
                p * sum((x - y) ** 2 for x, y in zip(row, mean, strict=True)) for p, row in zip(q, w, strict=True)
            )
        return float(product / len(features)), float(variance / len(features))


def _dot(a: list[mpmath.mpf], b: list[mpmath.mpf]) -> mpmath.mpf:
    return sum(x * y for x, y in zip(a, b, strict=True))


@given(seed=st.integers(0, 1000), K=st.integers(2, 7), m=st.integers(1, 5), n=st.integers(1, 6))
def test_is_its_formula(seed: int, K: int, m: int, n: int) -> None:
    features, weight = draw(seed, n=n, m=m, K=K)
    assert product_surrogate(features, weight) == pytest.approx(in_words(features, weight), rel=1e-12)


def test_nothing_cancels_where_the_products_are_confident() -> None:
    """Logits of 6.8 have a product of 46: q is within 1e-20 of a corner, and the digits stay."""
    weight = 2 * torch.eye(3, 4, dtype=torch.float64) + 1e-3 * draw(0, K=3)[1]
    features = (1.7 * weight[[0, 1, 2, 0]])[:, None].expand(4, 2, 4)
    expected = in_words(features, weight)
    assert 0 < max(expected) < 1e-15
    assert product_surrogate(features, weight) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 50, 4096])
def test_chunks_do_not_matter(chunk: int) -> None:
    features, weight = draw(2, n=50)
    assert product_surrogate(features, weight, chunk=chunk) == pytest.approx(in_words(features, weight), rel=1e-12)


def test_float32_features_are_taken_as_they_are_rounded() -> None:
    features, weight = (value.float() for value in draw(3))
    weight.requires_grad_()
    expected = in_words(features.double(), weight.detach().double())
    assert product_surrogate(features, weight) == pytest.approx(expected, rel=1e-12)


def test_one_position_with_a_constant_other_is_the_surrogate_of_another_paper() -> None:
    """The formula's parts are right: where z2 = 1 for every row it is frobenius_surrogate and kappa, with phi for h."""
    features, weight = draw(4)
    direction = torch.zeros(1, 4, dtype=torch.float64)
    direction[0, 3] = 1
    weight[:, 3], features[:, 0, 3] = 1.0, 0.0
    features[:, 1] = direction
    product, variance = product_surrogate(features, weight)
    first = features[:, 0]
    factor = (first.square().sum(1) + 1) / first.square().sum(1)
    kappas = relative_flatness(first, weight, reduction="none")
    assert variance == pytest.approx(float((kappas * factor).mean()), rel=1e-12)
    each = torch.stack([frobenius_surrogate(one[None], weight) for one in first])
    assert product == pytest.approx(float((each * factor).mean()), rel=1e-12)


def kappa(features: Tensor, weight: Tensor) -> float:
    """Exact relative flatness of the head under the loss that is trained: both positions, mean over targets."""
    return float(relative_flatness(features.flatten(0, 1), weight))


def test_a_shift_of_every_row_leaves_the_model_and_moves_the_curve() -> None:
    """No probability of the model changes, so no curvature does."""
    features, weight = draw(5)
    shift = torch.randn(4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    values = [product_surrogate(features, weight + t * shift) for t in (0.0, 3.0, 300.0)]
    kappas = [kappa(features, weight + t * shift) for t in (0.0, 3.0, 300.0)]
    assert kappas[1:] == pytest.approx([kappas[0]] * 2, rel=1e-9)
    assert values[1][0] > 5 * values[0][0]
    assert abs(values[1][1] / values[0][1] - 1) > 0.1
    assert max(values[2]) < 1e-10 * min(values[0])


def test_it_falls_while_kappa_rises() -> None:
    """As one logit gap z grows, z^2 sigma'(z) rises to z = 2.4 and z^2 sigma'(z^2) falls from z = 1.24 on."""
    weight = torch.eye(2, dtype=torch.float64)
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    before, after = (product_surrogate(features, z * weight) for z in (1.4, 2.2))
    assert kappa(features, 2.2 * weight) > 1.3 * kappa(features, 1.4 * weight)
    assert after[0] < 0.2 * before[0]
    assert after[1] < 0.2 * before[1]


def test_it_is_large_where_every_probability_is_certain_and_zero_where_none_is() -> None:
    """The sign of a logit is lost in the product: a certain model has q uniform, an undecided one has q certain."""
    weight = torch.eye(2, dtype=torch.float64)
    # Both positions certain, logits (40, 0) and (0, 40): their products are 0 and 0.
    certain = torch.tensor([[[40.0, 0.0], [0.0, 40.0]]], dtype=torch.float64)
    assert kappa(certain, weight) < 1e-13
    assert product_surrogate(certain, weight) == pytest.approx((2 * 0.5 * 3200, 3200 * 0.5), rel=1e-12)
    # Both undecided up to a shift of the logits that softmax does not see: 30 in one row, 31 in the other.
    undecided = torch.tensor([[[30.0, 31.0], [30.0, 31.0]]], dtype=torch.float64)
    assert kappa(undecided, weight) > 100
    assert max(product_surrogate(undecided, weight)) < 1e-20
