"""B6 and B6': laws of the flattest head beyond the stored certificates.

Independent channels: kappa by the dense Hessian of the definition (torch.func), explicit numbers by plain
arithmetic over pairs of classes, descent by LBFGS, and the statements' own sums of squares. Where two heads are only
compared with each other, kappa is the library's closed form.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokcore.flatness import relative_flatness
from tests.theory.strategies import random_heads, seeds
from theory.factorisation import equal_ranks
from theory.formulas import kappa_at_collapse
from theory.numeric.configurations import Head, collapsed, generator_of, normal, random_head, rotation, simplex
from theory.numeric.fixed_outputs import attack, excess, head_with_outputs
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.reparametrisation import approaching, descended, found_for, geodesic, power, reparametrised
from theory.optimality import _larger_bound
from theory.proof import Proof

gammas = st.one_of(st.just(0.0), st.floats(0.05, 3))


@st.composite
def heads_with_collapsed_outputs(draw: st.DrawFn) -> tuple[Head, int, float]:
    """Any head, bias and features whose outputs are the collapsed ones; from m = K - 1, n = 1 up."""
    K, n, gap = draw(st.integers(2, 6)), draw(st.integers(1, 3)), draw(st.floats(0.05, 10))
    m = K - 1 + draw(st.integers(0, 3))
    generator, labels = generator_of(draw(seeds)), torch.arange(K).repeat_interleave(n)
    free = draw(st.sampled_from([0.0, 1e-3, 1.0])) * normal(generator, K * n, m)
    bias = draw(st.sampled_from([0.0, 1.0])) * normal(generator, K)
    return head_with_outputs(gap, labels, normal(generator, K, m), bias, free), K, gap


@given(drawn=heads_with_collapsed_outputs())
def test_no_head_with_these_outputs_is_flatter(drawn: tuple[Head, int, float]) -> None:
    head, K, gap = drawn
    assert kappa_by_hessian(head) >= float(kappa_at_collapse(gap, K)) * (1 - 1e-9)


@given(drawn=heads_with_collapsed_outputs())
def test_the_excess_is_the_sum_of_squares(drawn: tuple[Head, int, float]) -> None:
    head, K, gap = drawn
    expected = float(kappa_at_collapse(gap, K)) + excess(head, gap)
    assert kappa_by_hessian(head) == pytest.approx(expected, rel=1e-7)


@given(seed=seeds, K=st.integers(2, 7), gap=st.floats(0.05, 12), gamma=gammas, n=st.integers(1, 3))
def test_collapse_exceeds_the_bound_by_gamma_squared(seed: int, K: int, gap: float, gamma: float, n: int) -> None:
    """So it reaches the bound exactly where mu_G = 0."""
    head = collapsed(seed, K=K, m=K, gap=gap, gamma=gamma, counts=n)
    assert kappa_by_hessian(head) == pytest.approx((1 + gamma**2) * float(kappa_at_collapse(gap, K)), rel=1e-8)
    assert excess(head, gap) == pytest.approx(gamma**2 * float(kappa_at_collapse(gap, K)), rel=1e-8, abs=1e-11)


def test_two_classes_by_hand() -> None:
    """K = 2, Delta = 4: Delta^2 p (1 - p)."""
    p = 1 / (1 + math.exp(-4))
    assert kappa_by_hessian(collapsed(K=2, m=1, gap=4.0)) == pytest.approx(16 * p * (1 - p), rel=1e-12)


def test_stretched_axes_by_hand() -> None:
    """K = 4, rows (+-s_1, +-s_2, +-s_3) / norm: sum over pairs of p_s p_t ||w_s - w_t||^2 ||h||^2 in plain numbers."""
    gap, s = 3.0, [1.0, 2.0, 3.0]
    signs = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    # W~^+ u_c: <w_s, h_c> = Delta (delta_sc - 1/4) for h_c = (Delta/4)(sign_j / s_j).
    norm = sum((gap / 4 / a) ** 2 for a in s)
    total = 1 + 3 * math.exp(-gap)
    p = [1 / total] + 3 * [math.exp(-gap) / total]
    variance = sum(
        p[i] * p[j] * sum((a * (x - y)) ** 2 for a, x, y in zip(s, signs[i], signs[j], strict=True))
        for i, j in combinations(range(4), 2)
    )
    weight = torch.tensor(signs, dtype=torch.float64) * torch.tensor(s, dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    head = head_with_outputs(gap, torch.arange(4), weight, zero, torch.zeros(4, 3, dtype=torch.float64))
    assert kappa_by_hessian(head) == pytest.approx(norm * variance, rel=1e-10)
    assert excess(head, gap) == pytest.approx(norm * variance - float(kappa_at_collapse(gap, 4)), rel=1e-9)


@given(seed=seeds, K=st.integers(2, 8), gap=st.floats(0.1, 10), size=st.floats(0, 20))
def test_the_outputs_need_every_direction(seed: int, K: int, gap: float, size: float) -> None:
    """Delta P - beta 1^T has rank K - 1 for every centred beta, so m >= K - 1 is no assumption of its own."""
    beta = size * normal(generator_of(seed), K)
    centring = torch.eye(K, dtype=torch.float64) - 1 / K
    logits = gap * centring - (beta - beta.mean())[:, None]
    assert int(torch.linalg.matrix_rank(logits, rtol=1e-10)) == K - 1


@given(seed=seeds, K=st.integers(2, 6), scale=st.floats(0.1, 10))
def test_equal_biases_follow(seed: int, K: int, scale: float) -> None:
    """With mu_G = 0, NC1-NC3 and unequal biases the outputs are never the collapsed ones: that clause is redundant."""
    rows = simplex(K, K, 1.0, seed)
    bias = normal(generator_of(seed), K)
    probabilities = Head(scale * rows, rows, bias, torch.arange(K)).probabilities
    # Row c: what every other class lacks to the own one; the collapsed outputs make all of these equal.
    off = torch.diagonal(probabilities).log()[:, None] - probabilities.log()
    gaps = off[~torch.eye(K, dtype=torch.bool)]
    assert float(gaps.max() - gaps.min()) > 1e-3 * float((bias - bias.mean()).norm())


@given(drawn=heads_with_collapsed_outputs())
def test_class_means_are_flatter_than_their_samples(drawn: tuple[Head, int, float]) -> None:
    """The outputs are affine constraints on features: the class means keep them, and NC1 costs nothing."""
    head, K, _ = drawn
    means = torch.stack([head.features[head.labels == k].mean(0) for k in range(K)])
    merged = head._replace(features=means[head.labels])
    torch.testing.assert_close(merged.probabilities, head.probabilities, rtol=1e-7, atol=1e-12)
    assert float(relative_flatness(*merged[:3])) <= float(relative_flatness(*head[:3])) * (1 + 1e-9)


@given(drawn=heads_with_collapsed_outputs())
def test_the_first_step_alone_measures_collapse(drawn: tuple[Head, int, float]) -> None:
    """mean ||h||^2 ||w_y||^2 = Delta^2 ((K-1)/K)^2 only at collapse: W~W~^T is then a multiple of P."""
    head, K, gap = drawn
    rows = head.weight - head.weight.mean(0)
    first = float((head.features.square().sum(1) * rows[head.labels].square().sum(1)).mean())
    least = (gap * (K - 1) / K) ** 2
    assert first >= least * (1 - 1e-9)
    if K > 2:
        gram, centring = rows @ rows.T, torch.eye(K, dtype=torch.float64) - 1 / K
        assert float((gram / gram.trace() - centring / (K - 1)).norm()) < 1e-2 or first > least * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_two_imbalanced_classes(share: float) -> None:
    """The best bias is Delta (2 share - 1) and wins the factor 1 - (2 share - 1)^2."""
    gap, larger = 3.0, round(20 * share)
    labels = torch.tensor([0] * larger + [1] * (20 - larger))
    bias = torch.tensor([gap * (share - 0.5), -gap * (share - 0.5)], dtype=torch.float64)
    zero, weight = torch.zeros(20, 1, dtype=torch.float64), torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    head = head_with_outputs(gap, labels, weight, bias, zero)
    expected = (1 - (2 * share - 1) ** 2) * float(kappa_at_collapse(gap, 2))
    assert kappa_by_hessian(head) == pytest.approx(expected, rel=1e-10)


def test_descent_at_a_wrong_output_does_beat_the_bound() -> None:
    """The attack can win: against the bound of a gap larger by a tenth, below the maximum of the curve."""
    head = attack(0, K=3, m=2, n=1, gap=1.0)
    assert kappa_by_hessian(head) < 0.9 * float(kappa_at_collapse(1.1, 3))


def test_the_larger_bound_fails_in_each_channel_for_its_own_reason() -> None:
    proof = Proof()
    _larger_bound(proof)
    failed = [step.text for step in proof.steps if not step.holds]
    assert failed[0] == "the sum of both is the bound"
    assert any("never below" in text for text in failed)
    assert any("Cauchy-Schwarz" in step.text and step.holds for step in proof.steps)


# B6'


@given(head=random_heads(classes=st.integers(2, 5), widths=st.integers(1, 5)), seed=seeds)
def test_nothing_goes_below_the_infimum(head: Head, seed: int) -> None:
    found = found_for(head)
    A = normal(generator_of(seed), head.features.shape[1], head.features.shape[1])
    assert found.infimum <= kappa_by_hessian(reparametrised(head, A)) * (1 + 1e-7) + 1e-12


@given(seed=seeds, K=st.integers(2, 5), m=st.integers(1, 6), n=st.integers(1, 6))
def test_explicit_maps_approach_the_infimum(seed: int, K: int, m: int, n: int) -> None:
    """The error of A_eps falls as eps^2."""
    head = random_head(seed, K=K, m=m, n=n)
    found = found_for(head)
    near = (reparametrised(head, approaching(head, found, eps)) for eps in (1e-1, 1e-3))
    coarse, fine = (float(relative_flatness(*at[:3])) for at in near)
    assert fine - found.infimum <= 2e-4 * (coarse - found.infimum) + 1e-8 * found.infimum


@given(seed=seeds, K=st.integers(2, 6), extra=st.integers(0, 2), gap=st.floats(0.05, 12), gamma=gammas)
def test_at_collapse_only_the_global_mean_can_be_shrunk(
    seed: int, K: int, extra: int, gap: float, gamma: float
) -> None:
    head = collapsed(seed, K=K, m=K + extra, gap=gap, gamma=gamma, counts=2)
    found = found_for(head)
    assert found.infimum == pytest.approx(kappa_by_hessian(head) / (1 + gamma**2), rel=1e-8)
    assert found.attained == (gamma == 0)


@given(seed=seeds, K=st.integers(2, 5), n=st.integers(1, 6), r=st.integers(1, 4), extra=st.integers(0, 3))
def test_the_infimum_is_a_function_of_the_logits(seed: int, K: int, n: int, r: int, extra: int) -> None:
    """Heads of other widths with the same centred logits and the same outputs share it."""
    head = random_head(seed, K=K, m=r, n=n)
    generator, m = generator_of(seed + 1), r + extra
    A = normal(generator, m, m)
    padded = (
        torch.cat([head.features, normal(generator, n, extra)], 1),
        torch.nn.functional.pad(head.weight, (0, extra)),
    )
    wide = reparametrised(head._replace(features=padded[0], weight=padded[1] + normal(generator, m)), A)
    # The common row shifts all logits of a sample, by amounts that softmax does not see.
    torch.testing.assert_close(wide.probabilities, head.probabilities, rtol=1e-6, atol=1e-10)
    assert found_for(wide).infimum == pytest.approx(found_for(head).infimum, rel=1e-5)


@given(drawn=heads_with_collapsed_outputs())
def test_reparametrising_cannot_pass_the_bound_of_the_outputs(drawn: tuple[Head, int, float]) -> None:
    head, K, gap = drawn
    bound, infimum = float(kappa_at_collapse(gap, K)), found_for(head).infimum
    assert infimum >= bound * (1 - 1e-8)
    beta = head.bias - head.bias.mean()
    if len(head.labels) == K and float(beta.norm()) == 0:
        # One sample a class and no bias: linear maps reach collapse itself.
        assert infimum == pytest.approx(bound, rel=1e-6)


@given(seed=seeds, t=st.floats(0, 1), r=st.integers(1, 4))
def test_geodesics_are_those_of_the_matrix_geometric_mean(seed: int, t: float, r: int) -> None:
    """P at 0, Q at 1, the same backwards, and equivariant under every A."""
    P, Q = (A @ A.T + 0.1 * torch.eye(r, dtype=torch.float64) for A in normal(generator_of(seed), 2, r, r))
    torch.testing.assert_close(geodesic(P, Q, 0.0), P, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(geodesic(P, Q, 1.0), Q, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(geodesic(P, Q, t), geodesic(Q, P, 1 - t), rtol=1e-6, atol=1e-7)
    A = rotation(seed, r) * 2
    torch.testing.assert_close(geodesic(A @ P @ A.T, A @ Q @ A.T, t), A @ geodesic(P, Q, t) @ A.T, rtol=1e-6, atol=1e-7)


@given(seed=seeds, K=st.integers(2, 4), m=st.integers(2, 3))
def test_kappa_is_convex_along_geodesics(seed: int, K: int, m: int) -> None:
    """Also its logarithm is: at the middle, kappa is at most the geometric mean of the ends."""
    head = random_head(seed, K=K, m=m, n=3)
    P, Q = (A @ A.T + 0.1 * torch.eye(m, dtype=torch.float64) for A in normal(generator_of(seed), 2, m, m))
    moved = (reparametrised(head, power(geodesic(P, Q, t), 0.5)) for t in (0.0, 0.5, 1.0))
    low, middle, high = (float(relative_flatness(*at[:3])) for at in moved)
    assert middle <= math.sqrt(low * high) * (1 + 1e-9)


@given(seed=seeds, K=st.integers(2, 5), ranks=st.tuples(*[st.integers(0, 4)] * 2), m=st.integers(1, 4))
def test_attained_where_the_ranks_say(seed: int, K: int, ranks: tuple[int, int], m: int) -> None:
    generator = generator_of(seed)
    features = normal(generator, 6, ranks[0]) @ normal(generator, ranks[0], m)
    # Coordinates that features and rows use, partly different ones.
    weight = normal(generator, K, m) * (torch.arange(m) >= m - ranks[1])
    features = features * (torch.arange(m) < max(ranks[0], 1))
    head = Head(features, weight, normal(generator, K), torch.arange(6) % K)
    found = found_for(head)
    assert found.attained == equal_ranks(head)
    if found.full_map is not None:
        moved = reparametrised(head, found.full_map)
        assert kappa_by_hessian(moved) == pytest.approx(found.infimum, rel=1e-7, abs=1e-14)


@given(head=random_heads(classes=st.just(2), widths=st.integers(1, 4)))
def test_two_classes_leave_only_the_logit(head: Head) -> None:
    """K = 2: rank 1, so the infimum is mean p(1-p) <w_1 - w_2, h>^2, in plain numbers."""
    total = 0.0
    for p, h in zip(head.probabilities.numpy(), head.features.numpy(), strict=True):
        total += float(p[0] * p[1] * np.dot(head.weight[0].numpy() - head.weight[1].numpy(), h) ** 2)
    assert found_for(head).infimum == pytest.approx(total / len(head.labels), rel=1e-8, abs=1e-14)


@settings(max_examples=3)
@given(seed=seeds)
def test_descent_from_two_starts_ends_at_the_infimum(seed: int) -> None:
    """No spurious minima: the two starts and the Newton method agree."""
    head = random_head(seed, K=4, m=3, n=7)
    assert [descended(head, s) for s in (1, 2)] == pytest.approx([found_for(head).infimum] * 2, rel=1e-8)


def test_rank_of_the_logits_decides_not_that_of_the_parts() -> None:
    """H and W~ of rank 2, W~ H of rank 1: no A attains the infimum."""
    head = random_head(1, K=4, m=3, n=6)
    head = head._replace(
        features=head.features * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
        weight=head.weight * torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64),
    )
    found = found_for(head)
    assert (found.rank, found.attained) == (1, False)


def test_imbalanced_collapse_can_be_flattened() -> None:
    """K = 3, sizes 1, 1, 8: by a map that is not a multiple of a rotation, and LBFGS finds the same."""
    head = collapsed(K=3, m=2, gap=4.0, counts=[1, 1, 8])
    found = found_for(head)
    assert found.full_map is not None
    assert float(torch.linalg.cond(found.full_map)) > 1.05
    assert descended(head, 3) == pytest.approx(found.infimum, rel=1e-9)
    assert found.infimum < 0.95 * kappa_by_hessian(head)
