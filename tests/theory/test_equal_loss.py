"""B6r: heads at the loss of collapse, in the mean and on each sample, that are flatter than it.

Independent channels: exact Hessians, the closed form of kappa (which knows no loss and no collapse), the collapse
curve, and grokcore's collapse metrics.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import theory.equal_loss as equal_loss
from grokcore.flatness import relative_flatness
from theory.formulas import gap_of_loss, kappa_at_collapse
from theory.numeric.configurations import Head, collapsed
from theory.numeric.noncollapsed import collapse_of, product_of_two, with_idle_samples
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof

FEW = st.integers(2, 4)


def kappa_in_closed_form(head: Head) -> float:
    """For gaps at which Hessians by differentiation cancel."""
    return float(relative_flatness(head.features, head.weight, head.bias))


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
    equal_loss._idle_heads(proof, 4.0, lambda most, count: max(1, math.floor(most / 2)))
    assert all(step.holds for step in proof.steps)
    refuted = Proof()
    equal_loss._idle_heads(refuted, 0.5, lambda most, count: count // 10)
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


def test_what_is_on_record() -> None:
    """B6r is refuted as stated and names the right statement."""
    refuted = equal_loss.FLATTEST_AT_ITS_LOSS
    assert (refuted.status, refuted.instead) == ("refuted", "flattest_given_outputs")
    assert not refuted.assumptions
