"""Unusual input that must not matter: label dtypes, memory layouts, gradients, empty batches, merges, extreme sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from grokcore import ClassMoments, CollapseReport, NonFiniteError, cdnv, collapse_report, measure
from tests.contracts.clouds import Cloud, random_cloud
from tests.contracts.instruments import measured, model_of
from tests.contracts.metrics import COLLAPSE, same

K, M = 4, 6
CLOUD = random_cloud(0, K=K, m=M)
H, Y = CLOUD.features, CLOUD.labels


def moments(features: Tensor = H, labels: Tensor = Y) -> ClassMoments:
    return ClassMoments(K, M).update(features, labels)


def report(found: ClassMoments) -> CollapseReport:
    return collapse_report(found, CLOUD.weight)


def check(found: CollapseReport, expected: CollapseReport, rel: float = 1e-11) -> None:
    for name in COLLAPSE:
        assert same(getattr(found, name), getattr(expected, name), rel, tiny=1e-15), name


def state(found: ClassMoments) -> list[Tensor]:
    return [x.clone() for x in (found.counts, found.means, found.within, found.scatter_sum, found.norm_max)]


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    labels = Y.to(dtype)
    check(report(moments(labels=labels)), report(moments()))
    assert torch.equal(cdnv(H, labels, K), cdnv(H, Y, K))
    assert torch.equal(cdnv(H, labels), cdnv(H, Y, K))
    found = measure(model_of(CLOUD), [(H, labels)], "1")
    assert found.to_dict() == measure(model_of(CLOUD), [(H, Y)], "1").to_dict()


@pytest.mark.usefixtures("no_shape_checks")
def test_boolean_labels_are_two_classes() -> None:
    binary = Y % 2
    found, expected = (ClassMoments(2, M).update(H, labels) for labels in (binary.bool(), binary))
    check(collapse_report(found), collapse_report(expected))
    assert torch.equal(cdnv(H, binary.bool(), 2), cdnv(H, binary, 2))


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("labels", [Y[:, None], Y[:-1], torch.eye(K)[Y], Y - 1, Y + 1])
def test_labels_that_are_no_classes_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="labels"):
        moments(labels=labels)


def test_memory_layout_and_gradients_do_not_matter() -> None:
    wide = torch.randn(len(H), 2 * M, dtype=torch.float64)
    wide[:, ::2] = H
    leaf = H.clone().requires_grad_()
    for features in (H.T.contiguous().T, wide[:, ::2], leaf, 1 * leaf):
        found = moments(features)
        check(report(found), report(moments()))
        assert not found.means.requires_grad
        assert float(cdnv(features, Y, K).detach()) == pytest.approx(float(cdnv(H, Y, K)), rel=1e-12)
    one_row = H[:1].expand(10, M)
    assert "coincide" in collapse_report(ClassMoments(2, M).update(one_row, torch.arange(10) % 2)).reasons["cdnv"]


def test_the_moments_do_not_look_at_the_features_again() -> None:
    features, labels = H.clone(), Y.clone()
    found = moments(features, labels)
    features.zero_()
    labels.zero_()
    check(report(found), report(moments()))


def test_empty_batches_and_empty_moments_are_nothing() -> None:
    nothing = (H[:0], Y[:0])
    check(report(ClassMoments(K, M).update(*nothing).update(H, Y).update(*nothing)), report(moments()))
    check(report(ClassMoments(K, M).merge(ClassMoments(K, M)).merge(moments())), report(moments()))
    check(report(moments().merge(ClassMoments(K, M))), report(moments()))
    batches = [nothing, (H, Y), nothing]
    assert measure(model_of(CLOUD), batches, "1").kappa == measured(CLOUD)["kappa"]


def test_merge_with_itself_is_the_data_twice() -> None:
    found = moments()
    found.merge(found)
    assert found.total == 2 * len(Y)
    check(report(found), report(moments()))


@pytest.mark.parametrize("start", [0, 5])
def test_after_a_merge_each_goes_its_own_way(start: int) -> None:
    """Neither side of a merge sees the other's later batches, whether it was empty before or not."""
    left, right = moments(H[:start], Y[:start]), moments(H[start:15], Y[start:15])
    left.merge(right)
    before = state(right)
    left.update(H[15:], Y[15:])
    assert all(torch.equal(a, b) for a, b in zip(state(right), before, strict=True))
    before = state(left)
    right.update(3 * H, Y)
    assert all(torch.equal(a, b) for a, b in zip(state(left), before, strict=True))
    check(report(left), report(moments()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("seen", [0, 8])
def test_a_refused_batch_leaves_no_trace(seen: int, bad: float) -> None:
    found = moments(H[:seen], Y[:seen])
    broken = H[seen:].clone()
    broken[-1, -1] = bad
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        found.update(broken, Y[seen:])
    check(report(found.update(H[seen:], Y[seen:])), report(moments()))


def test_moments_take_batches_of_different_dtypes() -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    parts = [part.to(dtype) for part, dtype in zip(H.tensor_split(3), dtypes, strict=True)]
    found = ClassMoments(K, M)
    for part, labels in zip(parts, Y.tensor_split(3), strict=True):
        found.update(part, labels)
    check(report(found), report(moments(torch.cat([part.double() for part in parts]))))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float16, 2e4),
        (torch.float16, 1e-6),
        (torch.bfloat16, 1e37),
        (torch.float32, 1e37),
        (torch.float32, 1e-41),
    ],
)
def test_the_ends_of_a_dtypes_range(dtype: torch.dtype, scale: float) -> None:
    """Squares of narrow features overflow their dtype, subnormal ones vanish in it: neither may happen inside."""
    narrow = (scale * H).to(dtype)
    found, expected = report(moments(narrow)), report(moments(narrow.double() / scale))
    scaled = replace(
        expected,
        within_class_variance=expected.within_class_variance * scale**2,
        squared_mean_distance=expected.squared_mean_distance * scale**2,
    )
    for name in COLLAPSE:
        assert getattr(found, name) == pytest.approx(getattr(scaled, name), rel=1e-9), name


def test_a_hundred_thousand_samples_of_one_class() -> None:
    """Near collapse, in batches, the first sample an outlier, the other class a single sample."""
    generator = torch.Generator().manual_seed(0)
    features = 5 + 1e-3 * torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    features[0] += 1
    found = ClassMoments(2, 3)
    for part in features.split(4096):
        found.update(part, torch.zeros(len(part), dtype=torch.long))
    found.update(features[:1] + 2, torch.tensor([1]))
    # About a point near the mean the two-pass formula loses nothing.
    apart = features - 5
    expected = float((apart - apart.mean(dim=0)).square().sum())
    assert float(found.within[0]) == pytest.approx(expected, rel=1e-8)
    assert float(found.within[1]) == 0
    assert found.counts.tolist() == [100_000, 1]


def test_a_class_that_is_absent_from_data_and_known_to_the_head() -> None:
    """A head wider than the labels seen: what needs every class is NaN with the class's name, the rest is right."""
    wider = Cloud(H, Y, torch.cat([CLOUD.weight, CLOUD.weight[:1]]), torch.cat([CLOUD.bias, CLOUD.bias[:1] - 1]))
    found = measure(model_of(wider), wider.batches, "1")
    assert "class 4" in found.reasons["nc4"]
    assert set(found.collapse.reasons) == set(COLLAPSE)
    assert cdnv(H, Y, K + 1) == cdnv(H, Y, K)
    assert found.samples == len(Y)
    assert found.kappa > 0
