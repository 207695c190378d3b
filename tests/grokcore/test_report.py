"""measure(): against the pieces, modes and hooks restored, references, bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from grokcore import (
    ClassMoments,
    NonFiniteError,
    UsageError,
    collapse_report,
    frobenius_surrogate,
    measure,
    nearest_mean_agreement,
    relative_flatness,
)


class Classifier(nn.Module):
    """Batch norm and dropout, so that modes matter; float32."""

    def __init__(self, K: int = 4, m: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, m), nn.BatchNorm1d(m), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(m, K)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.body(inputs))


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(50, 5, generator=generator), torch.arange(50) % 4


def test_every_number_is_its_function_on_the_whole_set(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    model = Classifier()
    report = measure(model, zip(inputs.split(7), labels.split(7), strict=True), "fc")
    model.eval()
    with torch.no_grad():
        h, w, b = model.body(inputs).double(), model.fc.weight.double(), model.fc.bias.double()
    logits = h @ w.T + b
    moments = ClassMoments(4, 6).update(h, labels)
    own = logits[torch.arange(50), labels]
    others = torch.stack([logits[i, [c for c in range(4) if c != labels[i]]].mean() for i in range(50)])
    between = moments.centred_means().square().sum(1).mean()
    expected = {
        "loss": torch.nn.functional.cross_entropy(logits, labels),
        "accuracy": (logits.argmax(1) == labels).double().mean(),
        "kappa": relative_flatness(h, w, b),
        "frobenius_surrogate": frobenius_surrogate(h, w, b),
        "nc4": nearest_mean_agreement(h, w, b, moments.means),
        "logit_gap": (own - others).mean(),
        "variance_ratio": (h - moments.means[labels]).square().sum(1).mean() / between,
        "head_norm": w.norm(),
    }
    for name, value in expected.items():
        assert getattr(report, name) == pytest.approx(float(value), rel=1e-6), name
    assert report.samples == 50
    assert report.collapse.cdnv == pytest.approx(collapse_report(moments, w).cdnv, rel=1e-6)


def test_reports_are_told_apart_by_identity(data: tuple[Tensor, Tensor]) -> None:
    """Tensors and NaN within do not compare as one would like."""
    report = measure(Classifier(), [data], "fc")
    assert len({report, report, replace(report)}) == 2


def test_batch_size_does_not_matter(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    model = Classifier()
    reports = [measure(model, zip(inputs.split(s), labels.split(s), strict=True), "fc") for s in (1, 13, 50)]
    for other in reports[1:]:
        assert other.kappa == pytest.approx(reports[0].kappa, rel=1e-5)
        assert other.collapse.nc1_papyan == pytest.approx(reports[0].collapse.nc1_papyan, rel=1e-5)


def test_modes_and_hooks_come_back_on_errors_too(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    model = Classifier().train()
    model.body[3].eval()
    modes = [module.training for module in model.modules()]
    running = model.body[1].running_mean.clone()
    measure(model, [(inputs, labels)], "fc")
    with pytest.raises(ValueError, match="outside"):
        measure(model, [(inputs, labels + 1)], "fc")
    assert [module.training for module in model.modules()] == modes
    assert not model.fc._forward_pre_hooks
    assert torch.equal(model.body[1].running_mean, running)


def test_reference_means_on_other_data(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    model = Classifier()
    train = measure(model, [(inputs[:30], labels[:30])], "fc")
    test = measure(model, [(inputs[30:], labels[30:])], "fc", reference=train)
    model.eval()
    with torch.no_grad():
        h = model.body(inputs[30:]).double()
    means = train.moments.means
    spread = (h - means[labels[30:]]).square().sum(1).mean()
    between = (means - means.mean(0)).square().sum(1).mean()
    assert test.variance_ratio == pytest.approx(float(spread / between), rel=1e-6)
    expected = nearest_mean_agreement(h, model.fc.weight.detach().double(), model.fc.bias.detach().double(), means)
    assert test.nc4 == expected
    own = measure(model, [(inputs[30:], labels[30:])], "fc")
    assert own.variance_ratio < test.variance_ratio
    assert own.collapse == test.collapse


def test_an_absent_class_gives_nan_with_a_reason_and_keeps_the_rest(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    few = labels.clamp(max=2)
    report = measure(Classifier(), [(inputs, few)], "fc")
    assert math.isfinite(report.kappa)
    assert math.isnan(report.nc4)
    assert "class 3" in report.reasons["nc4"]
    assert "class 3" in report.collapse.reasons["cdnv"]
    content = json.loads(report.to_json())
    assert content["nc4"] is None
    assert content["collapse"]["cdnv"] is None
    assert "no samples of class 3" in str(report)


def test_bad_input(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    model = Classifier()
    with pytest.raises(UsageError, match=r"did you mean 'fc'.*body.0, fc"):
        measure(model, [(inputs, labels)], "fcc")
    with pytest.raises(UsageError, match="Sequential, not a linear layer"):
        measure(model, [(inputs, labels)], "body")
    with pytest.raises(ValueError, match="no sample"):
        measure(model, [], "fc")
    broken = inputs.clone()
    broken[20] = float("nan")
    with pytest.raises(NonFiniteError, match="batch 2"):
        measure(model, zip(broken.split(10), labels.split(10), strict=True), "fc")


def test_a_nan_in_the_head_is_no_number(data: tuple[Tensor, Tensor]) -> None:
    model = Classifier()
    with torch.no_grad():
        model.fc.weight[1, 2] = float("nan")
    with pytest.raises(NonFiniteError, match="head 'fc'"):
        measure(model, [data], "fc")
