"""Metrics at the ends of the number line, in odd dtypes and orders: a number that holds, a reason, or an error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grokcore import ClassMoments, NonFiniteError, cdnv, collapse_report, measure, nearest_mean_agreement
from tests.cases import orthogonal
from tests.contracts.clouds import Cloud, collapsed_cloud, random_cloud
from tests.contracts.instruments import measured, model_of

pytestmark = pytest.mark.usefixtures("no_shape_checks")
C = random_cloud(0, K=4, m=6)
H, Y, W = C.features, C.labels, C.weight


def mom(h: Tensor = H, y: Tensor = Y) -> ClassMoments:
    return ClassMoments(4, 6).update(h, y)


@pytest.mark.parametrize("s", [1e-15, 1e-20])
def test_batch_cdnv_is_scale_free(s: object) -> None:
    assert float(cdnv(s * H, Y, 4)) == pytest.approx(float(cdnv(H, Y, 4)), rel=1e-6)


@pytest.mark.parametrize("gap", [20.0, 40.0, 100.0])
def test_loss_of_large_gaps(gap: object) -> None:
    c = collapsed_cloud(K=4, m=5, gap=gap, radius=1.0, gamma=0.5)
    assert measured(c)["loss"] == pytest.approx(math.log1p(3 * math.exp(-gap)), rel=1e-9, abs=0)


def test_same_data_in_every_class_about_the_origin() -> None:
    g = torch.Generator().manual_seed(0)
    a = (torch.randn(1111, 4, generator=g) * 8).round() / 8
    f = torch.cat([a[torch.randperm(1111, generator=g)] for _ in range(3)])
    r = collapse_report(ClassMoments(3, 4).update(f, torch.arange(3).repeat_interleave(1111)))
    assert math.isnan(r.nc1_trace_ratio), (r.nc1_trace_ratio, r.nc1_papyan)


def test_inference_mode_then_not() -> None:
    with torch.inference_mode():
        m = mom()
    m.update(H, Y)


def test_nc4_nan_bias() -> None:
    with pytest.raises(NonFiniteError):
        nearest_mean_agreement(H, W, C.bias * math.nan, mom().means)


def test_nc4_wrong_number_of_means() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        nearest_mean_agreement(H, W, C.bias, mom().means[:3])


def test_nc4_logits_in_float64() -> None:
    c = random_cloud(0, K=5, m=8, largest=60)
    w = c.weight
    f = (c.features + 1e6).float()
    b = (c.bias - 1e6 * w.sum(1)).float()
    mu = ClassMoments(5, 8).update(f, c.labels).means
    assert nearest_mean_agreement(f, w.float(), b, mu) == nearest_mean_agreement(
        f.double(), w.float().double(), b.double(), mu
    )


def test_nc3_weight_of_another_shape() -> None:
    with pytest.raises(ValueError, match="weight must be"):
        collapse_report(mom(), W[:1])


@pytest.mark.parametrize("s", [1e200, 1e-300])
def test_nc3_is_free_of_the_heads_scale(s: object) -> None:
    assert collapse_report(mom(), s * W).nc3_duality == pytest.approx(collapse_report(mom(), W).nc3_duality)


@pytest.mark.parametrize("s", [1e100, 1e-100])
def test_nc2_etf_scale(s: object) -> None:
    assert collapse_report(mom(s * H)).nc2_etf == pytest.approx(collapse_report(mom()).nc2_etf)


def test_float_labels() -> None:
    with pytest.raises(ValueError, match="labels integers"):
        mom(y=Y + 0.7)


@pytest.mark.parametrize("h", [(10 * H).long(), H > 0, H + 0j])
def test_features_that_are_not_floating(h: object) -> None:
    with pytest.raises(ValueError, match="features must be floating"):
        mom(h)


def test_papyan_is_not_negative() -> None:
    for seed in range(30):
        c = random_cloud(seed, K=5, m=9, along=0.0)
        assert collapse_report(ClassMoments(5, 9).update(c.features, c.labels)).nc1_papyan >= 0


def test_papyan_does_not_depend_on_the_order() -> None:
    g = torch.Generator().manual_seed(0)
    n = 100_000
    f = 1e-6 * torch.randn(n, 6, generator=g, dtype=torch.float64)
    y = torch.arange(n) % 2
    f[:, 0] += y
    f[0, 5] += 1
    f[1, 5] -= 1
    f = f @ orthogonal(3, 6)
    a, b = (collapse_report(ClassMoments(2, 6).update(*z)).nc1_papyan for z in ((f, y), (f.flip(0), y.flip(0))))
    assert a == pytest.approx(b, rel=1e-7, abs=0)  # 5e-6 where a long piece kept its first outliers as references


def test_finite_features_whose_squares_are_not() -> None:
    with pytest.raises(NonFiniteError, match="squares are not finite"):
        mom(1e160 * H)


def test_subnormal_squares() -> None:
    r = collapse_report(mom(1e-200 * H))
    assert r.reasons["rnc1_sup"] != "all features are zero"


def test_half_precision_logits_that_overflow() -> None:
    """The model's own logits are infinite; those of the rounded features and weights in float64 are not."""
    c = Cloud((1.5e4 * H).half(), Y, (4 * W).half(), C.bias.half())
    report = measure(model_of(c), [(c.features, Y)], "1")
    assert bool(torch.nn.functional.linear(c.features, c.weight, c.bias).isinf().any())
    assert report.logit_gap == pytest.approx(
        measured(Cloud(c.features.double(), Y, c.weight.double(), c.bias.double()))["logit_gap"]
    )
