"""Collapse metrics: definitions by an explicit oracle, laws, exact collapse, and reasons for NaN."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore import ClassMoments, CollapseReport, NonFiniteError, cdnv, collapse_report, nearest_mean_agreement
from tests.cases import collapsed, orthogonal, random_head


def report(features: Tensor, labels: Tensor, K: int, weight: Tensor | None = None) -> CollapseReport:
    return collapse_report(ClassMoments(K, features.shape[1]).update(features, labels), weight)


def values(found: CollapseReport) -> dict[str, float]:
    return {k: v for k, v in asdict(found).items() if k != "reasons"}


def by_definition(features: Tensor, labels: Tensor, K: int, weight: Tensor) -> dict[str, float]:
    """Every metric from design.md's words, in numpy loops."""
    h, y, w = features.numpy(), labels.numpy(), weight.numpy()
    mu = np.stack([h[y == c].mean(0) for c in range(K)])
    glob = mu.mean(0)
    mc = mu - glob
    v = [np.mean(np.sum((h[y == c] - mu[c]) ** 2, axis=1)) for c in range(K)]
    sigma_w = sum(np.outer(a - mu[c], a - mu[c]) for a, c in zip(h, y, strict=True)) / len(h)
    sigma_b = sum(np.outer(a, a) for a in mc) / K
    norms = np.linalg.norm(mc, axis=1)
    pairs = list(itertools.permutations(range(K), 2))
    cosines = [mc[a] @ mc[b] / norms[a] / norms[b] for a, b in pairs]
    gram = mc @ mc.T
    return {
        "nc1_papyan": np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=1e-10)) / K,
        "nc1_trace_ratio": np.trace(sigma_w) / np.trace(sigma_b),
        "rnc1_sup": np.trace(sigma_w) / np.max(np.linalg.norm(h, axis=1)) ** 2,
        "rnc1_mean": np.trace(sigma_w) / np.mean(np.linalg.norm(h, axis=1)) ** 2,
        "nc2_equinorm": norms.std() / norms.mean(),
        "nc2_equiangle": np.mean([abs(c + 1 / (K - 1)) for c in cosines]),
        "nc2_etf": np.linalg.norm(gram / np.linalg.norm(gram) - (np.eye(K) - 1 / K) / math.sqrt(K - 1)),
        "nc3_duality": np.linalg.norm(w / np.linalg.norm(w) - mc / np.linalg.norm(mc)),
        "cdnv": np.mean([(v[a] + v[b]) / (2 * np.sum((mu[a] - mu[b]) ** 2)) for a, b in pairs]),
        "within_class_variance": np.mean(v),
        "squared_mean_distance": np.mean([np.sum((mu[a] - mu[b]) ** 2) for a, b in pairs]),
        "global_mean_ratio": np.linalg.norm(glob) / math.sqrt(np.mean(norms**2)),
    }


@given(seed=st.integers(0, 5000), K=st.integers(2, 6), extra=st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_every_metric_is_its_definition(seed: int, K: int, extra: int) -> None:
    m = K - 1 + extra
    features, weight, _, labels = random_head(seed, n=4 * K, m=m, K=K)
    found = values(report(features, labels, K, weight))
    expected = by_definition(features, labels, K, weight)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-7, abs=1e-10), name


@pytest.mark.parametrize(("K", "m", "gamma"), [(2, 1, 0.0), (3, 5, 0.0), (10, 12, 2.0), (97, 128, 0.3)])
def test_zero_on_exact_collapse(K: int, m: int, gamma: float) -> None:
    features, weight, _, labels = collapsed(0, K=K, m=m, gamma=gamma)
    found = values(report(features, labels, K, weight))
    assert found.pop("global_mean_ratio") == pytest.approx(gamma, abs=1e-12)
    assert found.pop("squared_mean_distance") == pytest.approx(2 * 1.3**2 * K / (K - 1))
    assert all(abs(v) < 1e-12 for v in found.values()), found


def test_a_head_that_is_not_dual_is_not_reported_as_dual() -> None:
    features, weight, _, labels = collapsed(0, K=4, m=6)
    assert report(features, labels, 4, -weight).nc3_duality == pytest.approx(2)
    assert report(features, labels, 4, weight.roll(1, 0)).nc3_duality > 0.5


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_laws(seed: int, scale: float) -> None:
    """Rotation, scale and a permutation of the classes leave the scale-free metrics as they are."""
    features, weight, _, labels = random_head(seed, n=24, m=6, K=4)
    rotation, order = orthogonal(seed, 6), torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    plain = values(report(features, labels, 4, weight))
    moved = values(report(scale * features @ rotation, order.argsort()[labels], 4, (weight @ rotation)[order]))
    for name in set(plain) - {"within_class_variance", "squared_mean_distance"}:
        assert moved[name] == pytest.approx(plain[name], rel=1e-8, abs=1e-11), name


def test_float32_with_a_large_offset() -> None:
    """The float64 answer of the same rounded features."""
    features, weight, _, labels = random_head(0, n=200, m=8, K=4)
    rounded = (features + 3e3).float()
    narrow, wide = values(report(rounded, labels, 4, weight)), values(report(rounded.double(), labels, 4, weight))
    assert narrow == wide
    assert narrow["nc1_papyan"] == pytest.approx(values(report(features, labels, 4, weight))["nc1_papyan"], rel=1e-2)


def test_reasons_instead_of_silent_numbers() -> None:
    features, weight, _, labels = random_head(0, n=20, m=6, K=4)
    absent = collapse_report(ClassMoments(5, 6).update(features, labels))
    assert all(math.isnan(v) for v in values(absent).values())
    assert absent.reasons["cdnv"] == "no samples of class 4"
    narrow = report(features[:, :2], labels, 4, weight[:, :2])
    assert math.isnan(narrow.nc2_etf)
    assert "no simplex" in narrow.reasons["nc2_etf"]
    assert math.isfinite(narrow.nc1_papyan)
    assert report(features, labels, 4).reasons == {"nc3_duality": "no head weight given"}
    twin = torch.cat([features[labels == 0], features[labels == 0]])
    same = report(twin, torch.arange(2).repeat_interleave(len(twin) // 2), 2)
    assert math.isnan(same.cdnv)
    assert same.reasons["cdnv"] == "two class means coincide"
    assert same.reasons["nc1_papyan"] == "all class means coincide"


@given(seed=st.integers(0, 1000), K=st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_batch_cdnv_is_the_reports(seed: int, K: int) -> None:
    features, weight, _, labels = random_head(seed, n=5 * K, m=5, K=K)
    assert float(cdnv(features, labels, K)) == pytest.approx(report(features, labels, K, weight).cdnv, rel=1e-9)
    assert float(cdnv(features, labels)) == pytest.approx(float(cdnv(features, labels, K + 3)), rel=1e-12)


def test_batch_cdnv_gradient_and_absent_classes() -> None:
    features, _, _, labels = random_head(3, n=9, m=3, K=3)
    assert torch.autograd.gradcheck(lambda h: cdnv(h, labels * 2, 6), features.requires_grad_())
    alone = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    value = cdnv(alone, torch.full((4,), 2), 5)
    value.backward()
    assert float(value.detach()) == 0
    assert alone.grad is not None
    assert torch.count_nonzero(alone.grad) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cap", [2.5, None])
def test_batch_cdnv_stays_finite_where_means_coincide(dtype: torch.dtype, cap: float | None) -> None:
    """Two equal means among others, all means equal, and everything zero: a number and a gradient."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 12, generator=generator, dtype=dtype), torch.randn(4, 12, generator=generator, dtype=dtype)
    labels = torch.arange(3).repeat_interleave(4)
    for features in (torch.cat([a, a, 100 * b]), torch.cat([a, a, a]), torch.zeros(12, 12, dtype=dtype)):
        leaf = features.clone().requires_grad_()
        value = cdnv(leaf, labels, 3)
        (value if cap is None else value.clamp(max=cap)).backward()
        assert float(value.detach()) >= 0
        assert torch.isfinite(value)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_batch_cdnv_of_close_means_keeps_its_digits_in_float32() -> None:
    generator = torch.Generator().manual_seed(1)
    base = 3 * torch.randn(1, 12, generator=generator, dtype=torch.float64)
    means = torch.cat([base, base + 1e-3, -base])
    noise = 1e-3 * torch.randn(3, 6, 12, generator=generator, dtype=torch.float64)
    rounded = (means[:, None] + noise).reshape(18, 12).float()
    labels = torch.arange(3).repeat_interleave(6)
    assert float(cdnv(rounded, labels, 3)) == pytest.approx(report(rounded, labels, 3).cdnv, rel=1e-3)


def test_equal_means_are_told_by_rounding_and_not_by_zero() -> None:
    constant = torch.full((21, 1), 0.1)
    found = report(constant, torch.tensor([0] * 3 + [1] * 7 + [2] * 11), 3)
    assert math.isnan(found.nc1_papyan)
    assert found.reasons["nc1_papyan"] == "all class means coincide"


def test_batch_cdnv_saturates_as_the_protocol_says() -> None:
    """n samples a class about one common mean: near (n - 1)/2, not the population's infinity."""
    n, K = 6, 60
    noise = torch.randn(n * K, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(cdnv(noise, torch.arange(K).repeat_interleave(n), K)) == pytest.approx((n - 1) / 2, rel=0.05)


def test_nc4_refuses_nan() -> None:
    with pytest.raises(NonFiniteError):
        nearest_mean_agreement(torch.full((4, 2), math.nan), torch.eye(2), None, torch.eye(2))


def test_nc4_needs_the_bias() -> None:
    features, weight, bias, labels = collapsed(0, K=4, m=6, gamma=3.0)
    means = ClassMoments(4, 6).update(features, labels).means
    assert nearest_mean_agreement(features, weight, bias, means) == 1.0
    tilted = weight + 5.0 * means.mean(0) * torch.tensor([[1.0], [0.0], [0.0], [0.0]], dtype=torch.float64)
    assert nearest_mean_agreement(features, tilted, -tilted @ means.mean(0), means) == 1.0
    assert nearest_mean_agreement(features, tilted, None, means) < 0.5


def test_moments_without_a_scatter_give_all_but_papyans_nc1() -> None:
    features, weight, _, labels = random_head(6, n=40, m=6, K=4)
    whole = collapse_report(ClassMoments(4, 6).update(features, labels), weight)
    bare = collapse_report(ClassMoments(4, 6, scatter="trace").update(features, labels), weight)
    assert math.isnan(bare.nc1_papyan)
    assert "scatter='trace'" in bare.reasons["nc1_papyan"]
    assert replace(bare, nc1_papyan=whole.nc1_papyan, reasons={}) == whole


@pytest.mark.parametrize("exponent", [0, 4, 12])
def test_papyans_nc1_of_more_classes_than_features(exponent: int) -> None:
    """The triangle of Mc, well and ill conditioned, against the pseudo-inverse of Sigma_B itself."""
    generator = torch.Generator().manual_seed(exponent)
    scale = torch.logspace(0, -exponent, 5, dtype=torch.float64)
    means = torch.randn(9, 5, generator=generator, dtype=torch.float64) * scale
    labels = torch.arange(90) % 9
    features = means[labels] + torch.randn(90, 5, generator=generator, dtype=torch.float64) * scale
    moments = ClassMoments(9, 5).update(features, labels)
    # The quantity does not change with the features' coordinates; in these Sigma_B is well conditioned.
    scaled = ClassMoments(9, 5).update(features / scale, labels)
    between = scaled.centred_means().T @ scaled.centred_means() / 9
    wanted = float(torch.trace(scaled.within_covariance() @ torch.linalg.inv(between))) / 9
    assert collapse_report(moments).nc1_papyan == pytest.approx(wanted, rel=10.0 ** (exponent - 13) + 1e-12)


def test_papyans_nc1_drops_a_direction_that_the_means_do_not_span() -> None:
    """Ten classes on a plane of R^4, noise in all four directions: only the plane's noise counts."""
    generator = torch.Generator().manual_seed(1)
    means = torch.zeros(10, 4, dtype=torch.float64)
    means[:, :2] = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    labels = torch.arange(200) % 10
    features = means[labels] + torch.randn(200, 4, generator=generator, dtype=torch.float64)
    for c in range(10):  # the sample means stay on the plane
        features[labels == c, 2:] -= features[labels == c, 2:].mean(dim=0)
    whole = collapse_report(ClassMoments(10, 4).update(features, labels)).nc1_papyan
    plane = collapse_report(ClassMoments(10, 2).update(features[:, :2], labels)).nc1_papyan
    assert whole == pytest.approx(plane, rel=1e-9)
