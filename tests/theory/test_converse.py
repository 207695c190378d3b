"""B7: flat heads with low loss that are not collapsed.

Independent channels: the constructions' closed forms, exact Hessians and Hessian-vector products, and the collapse
metrics twice: grokcore's streaming ones and the plain definitions written out below.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.flatness import relative_flatness
from tests.theory.strategies import seeds
from theory.formulas import kappa_at_collapse
from theory.numeric.collapse_spectrum import aligned_head
from theory.numeric.configurations import Head, collapsed, generator_of, normal, simplex
from theory.numeric.noncollapsed import collapse_of, with_noise_in_span, with_silent_noise
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free

FEW = st.integers(2, 4)


def plain_nc1(head: Head) -> dict[str, float]:
    """Trace ratio, Papyan's NC1, CDNV and RNC1 (sup) by their definitions, with numpy."""
    h, y = head.features.numpy(), head.labels.numpy()
    K = len(head.weight)
    means = np.stack([h[y == c].mean(axis=0) for c in range(K)])
    away, centred = h - means[y], means - means.mean(axis=0)
    within, between = away.T @ away / len(h), centred.T @ centred / K
    spread = [float((away[y == c] ** 2).sum(axis=1).mean()) for c in range(K)]
    pairs = [
        (spread[c] + spread[d]) / (2 * float(((means[c] - means[d]) ** 2).sum()))
        for c in range(K)
        for d in range(K)
        if c != d
    ]
    return {
        "trace": float(np.trace(within) / np.trace(between)),
        "papyan": float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K),
        "cdnv": float(np.mean(pairs)),
        "rnc1": float(np.trace(within) / (h**2).sum(axis=1).max()),
    }


def kappa_in_closed_form(head: Head) -> float:
    """For gaps at which Hessians by differentiation cancel."""
    return float(relative_flatness(head.features, head.weight, head.bias))


# B7, first part.


@given(
    seed=seeds, K=FEW, extra=st.integers(0, 3), gap=st.floats(0.1, 10), sigma=st.floats(0.01, 4), size=st.floats(0, 3)
)
def test_silent_noise_exactly(seed: int, K: int, extra: int, gap: float, sigma: float, size: float) -> None:
    """kappa by the exact Hessian, mu_G in any direction: (1 + sigma^2 + gamma^2)((K-1)/K) Delta^2 U."""
    mean = size * normal(generator_of(seed), K + extra)
    means = simplex(K, K + extra, 1.0, seed=seed) + mean
    head = with_silent_noise(aligned_head(means, gap, [2] * K), sigma)
    factor = 1 + sigma**2 + float(mean.square().sum())
    assert kappa_by_hessian(head) == pytest.approx(factor * float(kappa_at_collapse(gap, K)), rel=1e-8)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_silent_noise_by_both_metrics(K: int) -> None:
    """The trace ratio is sigma^2 and Papyan's NC1 is 0, by grokcore and by the definitions."""
    head = with_silent_noise(collapsed(1, K=K, m=K + 1, gamma=0.5, counts=4), 0.7)
    plain, report = plain_nc1(head), collapse_of(head)
    for found, claimed in ((plain["trace"], 0.49), (report.nc1_trace_ratio, 0.49)):
        assert found == pytest.approx(claimed, rel=1e-10)
    assert max(abs(plain["papyan"]), abs(report.nc1_papyan)) < 1e-12
    # The CDNV sees it: V/||mu_c - mu_d||^2.
    assert report.cdnv == pytest.approx(plain["cdnv"]) == pytest.approx(0.49 * (K - 1) / (2 * K))


def test_silent_noise_leaves_every_output() -> None:
    head = collapsed(2, K=4, m=6, counts=2)
    noisy = with_silent_noise(head, 5.0)
    assert torch.allclose(noisy.probabilities, head.probabilities, atol=1e-14)
    assert noisy.loss == pytest.approx(head.loss, rel=1e-12)


def test_flat_and_uncollapsed_at_once() -> None:
    """Delta = 80: kappa below 1e-29 with the trace ratio at 9."""
    head = with_silent_noise(collapsed(3, K=5, m=5, gap=80.0, counts=2), 3.0)
    assert kappa_in_closed_form(head) < 1e-29
    assert collapse_of(head).nc1_trace_ratio == pytest.approx(9)


@pytest.mark.parametrize("K", [2, 3, 5])
def test_no_silent_direction_at_k_minus_one(K: int) -> None:
    """m = K - 1: W has rank m with equal singular values lam M sqrt(K/(K-1)), so nothing is silent."""
    head = collapsed(4, K=K, m=K - 1, gap=3.0, radius=1.0)
    assert torch.linalg.svdvals(head.weight).numpy() == pytest.approx([3.0 * math.sqrt((K - 1) / K)] * (K - 1))
    assert torch.linalg.matrix_rank(collapsed(4, K=K, m=K, gap=3.0).weight) == K - 1


# B7, second part.


@given(seed=seeds, K=FEW, extra=st.integers(-1, 2), gap=st.floats(0.5, 11), share=st.floats(0.05, 0.999))
def test_noise_in_span_bound(seed: int, K: int, extra: int, gap: float, share: float) -> None:
    """Noise of norm sigma M in random directions of the span, +- in each class, by Hessian-vector products."""
    m, sigma = K + extra, share * math.sqrt(K / (2 * (K - 1)))
    head = collapsed(seed, K=K, m=m, gap=gap, radius=1.0, counts=2)
    noise = normal(generator_of(seed), K, K) @ head.weight
    noise = (sigma * noise / noise.norm(dim=1, keepdim=True)).repeat_interleave(2, dim=0)
    noise[1::2] *= -1
    noisy = head._replace(features=head.features + noise)
    decay = math.exp(-(1 - share) * gap)
    bound = 2 * (1 + sigma**2) * (K - 1) ** 2 / K * gap**2 * decay
    assert kappa_matrix_free(noisy) <= bound * (1 + 1e-9)
    assert noisy.loss <= (K - 1) * decay


@pytest.mark.parametrize("K", [2, 3, 7])
def test_the_worst_noise_uses_up_the_margin(K: int) -> None:
    """The margin left is exactly (1 - eta) Delta for half of the samples."""
    sigma = 0.8 * math.sqrt(K / (2 * (K - 1)))
    head = with_noise_in_span(collapsed(5, K=K, m=K - 1, gap=10.0, counts=2), sigma)
    logits = head.features @ head.weight.T
    true = logits.gather(1, head.labels[:, None])
    others = logits.scatter(1, head.labels[:, None], -torch.inf)
    margins = true.squeeze(1) - others.max(dim=1).values
    assert margins[::2].numpy() == pytest.approx([2.0] * K)
    assert (margins[1::2] > 2.0).all()


@pytest.mark.parametrize(("K", "m"), [(2, 1), (3, 2), (5, 8)])
def test_every_nc1_is_held_by_noise_in_span(K: int, m: int) -> None:
    """Trace ratio sigma^2, Papyan sigma^2 (K-1)/K, CDNV sigma^2 (K-1)/(2K), RNC1 positive, the same at any Delta."""
    for gap in (2.0, 40.0):
        head = with_noise_in_span(collapsed(6, K=K, m=m, gap=gap, counts=2), 0.5)
        plain, report = plain_nc1(head), collapse_of(head)
        claimed = {"trace": 0.25, "papyan": 0.25 * (K - 1) / K, "cdnv": 0.25 * (K - 1) / (2 * K)}
        for name, found in (("trace", report.nc1_trace_ratio), ("papyan", report.nc1_papyan), ("cdnv", report.cdnv)):
            assert found == pytest.approx(claimed[name], rel=1e-9)
            assert plain[name] == pytest.approx(claimed[name], rel=1e-9)
        assert report.rnc1_sup == pytest.approx(plain["rnc1"])
        assert report.rnc1_sup >= 0.25 / 1.5**2 * (1 - 1e-12)


def test_noise_in_span_vanishes_in_kappa() -> None:
    """K = 3, eta = 0.9: kappa at Delta = 300 is below 1e-6; at Delta = 20 it is not."""
    sigma = 0.9 * math.sqrt(3) / 2
    near, far = (
        kappa_in_closed_form(with_noise_in_span(collapsed(7, K=3, m=2, gap=gap, counts=2), sigma))
        for gap in (20.0, 300.0)
    )
    assert far < 1e-6 < 1 < near


def test_the_threshold_is_sharp() -> None:
    """eta = 1, K = 3: kappa / Delta^2 tends to the constant ||h||^2 ||w_1 - w_2||^2 / 8 of a tie, so kappa grows."""
    sigma = math.sqrt(3) / 2
    head = with_noise_in_span(collapsed(8, K=3, m=2, gap=60.0, radius=1.0, counts=2), sigma)
    on_boundary, apart = head.features[0], head.weight[0] - head.weight[1]
    tie = float(on_boundary.square().sum() * apart.square().sum()) / 8
    assert kappa_in_closed_form(head) == pytest.approx(tie, rel=1e-6)
    assert tie / 3600 == pytest.approx(1 / 24, rel=1e-9)


def test_two_classes_at_the_threshold() -> None:
    """K = 2, sigma = 1 puts samples at h = 0: kappa still falls although the loss does not. With mu_G != 0 it grows."""
    still = with_noise_in_span(collapsed(9, K=2, m=1, gap=60.0, counts=2), 1.0)
    assert kappa_in_closed_form(still) < 1e-12
    assert still.loss == pytest.approx(math.log(2) / 2)
    moved = with_noise_in_span(collapsed(9, K=2, m=2, gap=60.0, gamma=0.5, counts=2), 1.0)
    assert kappa_in_closed_form(moved) > 10
