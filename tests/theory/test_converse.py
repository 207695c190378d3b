"""B7, B6r and B9: flat without collapse, below collapse at its loss, and the price of non-negative features.

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
from torch import Tensor

import theory.converse as converse
from grokcore.flatness import relative_flatness
from tests.theory.strategies import collapsed_heads, seeds
from theory.collapse_spectrum import aligned_head
from theory.configurations import Head, collapsed, generator_of, normal, simplex
from theory.formulas import gap_of_loss, kappa_at_collapse, softmax_impurity
from theory.noncollapsed import collapse_of, product_of_two, with_idle_samples, with_noise_in_span, with_silent_noise
from theory.oracle import kappa_by_hessian, kappa_matrix_free
from theory.proof import Proof
from theory.relu_price import nonnegative_simplices

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


# B6r.


@given(K=FEW, gap=st.floats(2.9, 6), part=st.floats(0.2, 0.95))
def test_idle_samples_beat_collapse(K: int, gap: float, part: float) -> None:
    """Above the maximum of the curve any share of idle samples lowers kappa at the same loss."""
    loss = collapsed(K=K, m=K, gap=gap).loss
    count = math.ceil(math.log(K) / loss / part)
    rival = with_idle_samples(K, K, loss, idle=1, count=count)
    assert rival.loss == pytest.approx(loss, rel=1e-9)
    assert kappa_in_closed_form(rival) < float(kappa_at_collapse(gap, K))


def test_idle_samples_exactly() -> None:
    """(1 - s) times the curve at the other samples' gap, by the exact Hessian."""
    loss, share = 0.3, 0.2
    head = with_idle_samples(4, 3, loss, idle=2, count=10)
    gap = float(gap_of_loss((loss - share * math.log(4)) / (1 - share), 4))
    assert kappa_by_hessian(head) == pytest.approx(0.8 * float(kappa_at_collapse(gap, 4)), rel=1e-9)


def test_idle_samples_break_nc1_alone() -> None:
    """Means still a simplex, head aligned; the trace ratio is s/(1-s). Each class has the same loss."""
    head = with_idle_samples(5, 6, 0.4, idle=1, count=5)
    report = collapse_of(head)
    assert max(report.nc2_etf, report.nc3_duality, report.global_mean_ratio) < 1e-12
    assert report.nc1_trace_ratio == pytest.approx(0.25)
    losses = torch.nn.functional.cross_entropy(head.features @ head.weight.T, head.labels, reduction="none")
    assert losses.reshape(5, 5).mean(dim=1).numpy() == pytest.approx([0.4] * 5)


def test_kappa_at_a_loss_has_infimum_zero() -> None:
    """K = 3, loss log(3) 0.3: shares ever closer to 0.3 drive kappa down."""
    loss = 0.3 * math.log(3)
    kappas = [
        kappa_in_closed_form(with_idle_samples(3, 2, loss * (1 + 1e-15), idle=3 * n - 1, count=10 * n))
        for n in (2, 20, 200)
    ]
    assert kappas[0] > 2 * kappas[1] > 4 * kappas[2]


def test_idle_check_passes_where_the_claim_is_true() -> None:
    """The check that refutes "any share flattens" at Delta = 1/2 passes at Delta = 4, where it does."""
    proof = Proof()
    converse._idle_heads(proof, 4.0, lambda most, count: max(1, math.floor(most / 2)))
    assert all(step.holds for step in proof.steps)
    refuted = Proof()
    converse._idle_heads(refuted, 0.5, lambda most, count: count // 10)
    assert not any(step.holds for step in refuted.steps if "kappa" in step.text)


@pytest.mark.parametrize("gap", [1.5, 3.0, 8.0])
def test_product_beats_collapse_at_each_samples_loss(gap: float) -> None:
    """K = 4: NC1 exact, mu_G = 0, the same p_y everywhere, in two dimensions; NC2 is what breaks."""
    head = collapsed(K=4, m=3, gap=gap)
    rival = product_of_two(head.loss, 20.0 + gap)
    losses = torch.nn.functional.cross_entropy(rival.features @ rival.weight.T, rival.labels, reduction="none")
    assert losses.numpy() == pytest.approx([head.loss] * 4, rel=1e-9)
    assert kappa_in_closed_form(rival) < 0.6 * float(kappa_at_collapse(gap, 4))
    report = collapse_of(rival)
    assert (report.nc1_trace_ratio, report.global_mean_ratio) == (0.0, pytest.approx(0.0))
    assert "no simplex" in report.reasons["nc2_etf"]


def test_product_falls_to_its_second_factor() -> None:
    """kappa -> delta^2 x (1-x), delta = log((1-x)/x): the binary collapse curve at the same loss."""
    loss = 0.05
    x = -math.expm1(-loss)
    binary = math.log((1 - x) / x) ** 2 * x * (1 - x)
    assert binary == pytest.approx(float(kappa_at_collapse(float(gap_of_loss(loss, 2)), 2)))
    found = [kappa_in_closed_form(product_of_two(loss, gap)) / binary - 1 for gap in (20.0, 60.0, 120.0)]
    assert found[0] > found[1] > found[2] > 0
    assert found[2] < 1e-6


def test_product_refuses_what_it_cannot_make() -> None:
    with pytest.raises(ValueError, match="no product"):
        product_of_two(0.01, 2.0)
    with pytest.raises(ValueError, match="no product"):
        product_of_two(0.7, 20.0)


# B9.


@given(seed=seeds, K=st.integers(2, 12), m=st.integers(1, 12))
def test_nonnegative_means_force_a_global_mean(seed: int, K: int, m: int) -> None:
    """(K-1) ||mu_G||^2 >= M^2 for any non-negative means, simplex or not: rows after a ReLU."""
    means = normal(generator_of(seed), K, m).relu()
    centre = means.mean(dim=0)
    assert (K - 1) * float(centre.square().sum()) >= float((means - centre).square().sum()) / K - 1e-12


@given(seed=seeds, K=st.integers(2, 8))
def test_disjoint_supports_are_the_equality(seed: int, K: int) -> None:
    """Any non-negative rows on their own blocks, of any norms: equality; one shared entry: strict."""
    rows = normal(generator_of(seed), K, 2).abs() + 0.1
    means = torch.block_diag(*rows.unbind(0))

    def excess(means: Tensor) -> float:
        centre = means.mean(dim=0)
        return (K - 1) * float(centre.square().sum()) - float((means - centre).square().sum()) / K

    assert excess(means) == pytest.approx(0.0, abs=1e-12 * float(means.square().sum()))
    means[1, 0] += 0.2
    assert excess(means) == pytest.approx(2 * float(means[0, 0]) * 0.2 / K)


@given(drawn=collapsed_heads(classes=FEW, gaps=st.floats(0.1, 9)))
def test_exact_price_for_any_sign(drawn: tuple[Head, int, float, float]) -> None:
    """kappa = Delta^2 U (1 + S/(K M)^2) at every collapsed head, S the sum of <mu_j, mu_c> over pairs."""
    head, K, gap, _ = drawn
    means = head.features[:: len(head.features) // K]
    overlap = float((means @ means.T).fill_diagonal_(0.0).sum())
    square = float((means - means.mean(dim=0)).square().sum()) / K
    claimed = gap**2 * float(softmax_impurity(gap, K)) * (1 + overlap / (K**2 * square))
    assert kappa_by_hessian(head) == pytest.approx(claimed, rel=1e-8)


def test_one_hot_by_hand() -> None:
    """K = 3, Delta = log 4: U = 1/2, kappa = log(4)^2/2 by the exact Hessian; a centred simplex pays 2/3 of it."""
    one_hot = aligned_head(torch.eye(3, dtype=torch.float64), math.log(4))
    assert kappa_by_hessian(one_hot) == pytest.approx(math.log(4) ** 2 / 2, rel=1e-11)
    centred = kappa_by_hessian(collapsed(K=3, m=2, gap=math.log(4)))
    assert centred == pytest.approx(math.log(4) ** 2 / 3, rel=1e-11)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_simplices_are_nonnegative_and_simplices(K: int) -> None:
    for name, means in nonnegative_simplices(K).items():
        assert float(means.min()) >= 0, name
        assert collapse_of(aligned_head(means, 3.0)).nc2_etf < 1e-12, name


def test_two_classes_of_unequal_norms() -> None:
    """K = 2: means 3 e_1 and e_2 are disjoint, so kappa = Delta^2 U although mu_G leans."""
    means = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = 4.0 * float(softmax_impurity(2.0, 2))
    assert kappa_by_hessian(aligned_head(means, 2.0)) == pytest.approx(expected, rel=1e-11)


def test_too_few_features_for_disjoint_supports() -> None:
    """m = K - 1: a non-negative simplex exists (an equilateral triangle in the quadrant) but pays strictly more."""
    triangle = simplex(3, 2, 1.0)
    means = triangle - triangle.min(dim=0).values
    gamma_squared = float(means.mean(dim=0).square().sum())
    assert gamma_squared > 0.5 + 0.1
    expected = 9.0 * float(softmax_impurity(3.0, 3)) * (1 + gamma_squared) * 2 / 3
    assert kappa_by_hessian(aligned_head(means, 3.0)) == pytest.approx(expected, rel=1e-10)


def test_what_is_on_record() -> None:
    """B6r is refuted as stated and names the right statement."""
    refuted = converse.FLATTEST_AT_ITS_LOSS
    assert (refuted.status, refuted.instead) == ("refuted", "flattest_given_outputs")
    assert not refuted.assumptions
