"""measure() on anybody's model and loader: how batches come, how the model is called, what is refused."""

from __future__ import annotations

import math
from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grokcore import NonFiniteError, UsageError, frobenius_surrogate, measure, relative_flatness
from tests.grokcore.test_report import Classifier


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(2)), torch.arange(40) % 4


class TwoInputs(Classifier):
    """Takes two tensors, and answers with a structure in which no logits can be guessed."""

    def forward(self, first: Tensor, second: Tensor, note: str = "") -> dict[str, list[Tensor]]:
        return {"answers": [self.fc(self.body(first + second)).softmax(1)]}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_labels_of_any_integer_dtype(data: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    inputs, labels = data
    # Both by a loader: a view of a tensor may lie elsewhere in memory, and its products then round otherwise.
    found, wanted = (
        measure(Classifier(), DataLoader(TensorDataset(inputs, each), batch_size=7), "fc").to_json()
        for each in (labels.to(dtype), labels)
    )
    assert found == wanted


def _batches(data: tuple[Tensor, Tensor], size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(part.split(size) for part in data), strict=True))


@pytest.mark.parametrize(
    "batch",
    [
        lambda x, y: ((x, 0 * x), y),
        lambda x, y: [[x, 0 * x], y.tolist()],
        lambda x, y: ({"first": x, "second": 0 * x}, y),
        lambda x, y: {"first": x, "second": 0 * x, "labels": y},
        lambda x, y: UserDict({"first": x, "label": y, "second": 0 * x, "note": "not a tensor"}),
    ],
)
def test_inputs_of_any_form(data: tuple[Tensor, Tensor], batch: Any) -> None:
    report = measure(TwoInputs(), [batch(*data)], "fc")
    assert report.to_json() == measure(Classifier(), [data], "fc").to_json()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda x, y: x, "batch 0 must be a pair .*got a Tensor"),
        (lambda x, y: (x, y, y), "got a tuple of 3"),
        (lambda x, y: {"first": x}, "batch 0 has no 'labels' or 'label' or 'target' or 'targets', only first"),
        (lambda x, y: (x, y.double()), "class indices .*float64"),
        (lambda x, y: (x, nn.functional.one_hot(y)), r"class indices .*\(40, 4\)"),
        (lambda x, y: (x[0], y[0]), r"one sample.*DataLoader"),
        (lambda x, y: (x[0], int(y[0])), r"one sample.*DataLoader"),
        (lambda x, y: {"first": x[0], "label": y[0]}, r"one sample.*DataLoader"),
        (lambda x, y: (x, y[:-1]), "saw 40 samples, but there are 39 labels"),
        (lambda x, y: (x, y - 1), r"lie in \[-1, 2\], outside \[0, 4\) .*batch 0"),
    ],
)
def test_batches_that_cannot_be_used(data: tuple[Tensor, Tensor], batch: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure(Classifier(), [batch(*data)], "fc")


@pytest.mark.usefixtures("no_shape_checks")
def test_a_dataset_is_no_loader(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"batch 0 is one sample.*measure DataLoader\(dataset"):
        measure(Classifier(), TensorDataset(*data), "fc")  # type: ignore[arg-type]


def test_a_label_outside_names_its_batch(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    labels[25] = 4
    batches = _batches((inputs, labels), 10)
    with pytest.raises(UsageError, match=r"\[0, 4\], outside \[0, 4\) .*batch 2"):
        measure(Classifier(), batches, "fc")
    with pytest.raises(UsageError, match=r"outside \[0, 4\) .*batch 3"):
        measure(Classifier(), [(inputs[:0], labels[:0]), *batches], "fc")


def test_empty_batches_are_passed_over_but_not_an_empty_loader(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    batches = [(inputs[:0], labels[:0]), (inputs, labels)]
    assert measure(Classifier(), batches, "fc").to_json() == measure(Classifier(), [data], "fc").to_json()
    used = iter(batches)
    measure(Classifier(), used, "fc")
    with pytest.raises(UsageError, match="no sample: an iterator that was read before is empty"):
        measure(Classifier(), used, "fc")
    with pytest.raises(UsageError, match=r"no sample$"):
        measure(Classifier(), batches[:1], "fc")


class Odd(nn.Module):
    """Heads that are not what they seem, by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind, self.fc, self.other = kind, nn.Linear(5, 4), nn.Linear(5, 4)
        if kind == "cosine":
            self.fc = Cosine(5, 4)
        elif kind == "one output":
            self.fc = nn.Linear(5, 1)
        elif kind == "complex":
            self.fc = nn.Linear(5, 4, dtype=torch.complex64)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.kind == "twice":
            return self.fc(inputs) + self.fc(-inputs)
        if self.kind == "tokens":
            return self.fc(inputs[:, None].expand(-1, 3, -1)).mean(1)
        if self.kind == "flat tokens":
            return self.fc(inputs.repeat(3, 1))
        if self.kind == "by hand":
            return nn.functional.linear(inputs, self.fc.weight, self.fc.bias)
        return self.fc(inputs)


class Cosine(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return 10 * nn.functional.linear(nn.functional.normalize(inputs), nn.functional.normalize(self.weight))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("twice", "'fc' ran 2 times"),
        ("tokens", r"\(n, m\), got \(40, 3, 5\)"),
        ("flat tokens", "saw 120 samples, but there are 40 labels"),
        ("by hand", "'fc' did not run"),
        ("cosine", r"\(Cosine\) does not compute W h \+ b"),
        ("one output", "2 or more real outputs"),
        ("complex", "2 or more real outputs"),
    ],
)
def test_heads_that_cannot_be_measured(data: tuple[Tensor, Tensor], kind: str, message: str) -> None:
    model = Odd(kind).train()
    with pytest.raises(UsageError, match=message):
        measure(model, [data], "fc")
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_is_its_own_head(data: tuple[Tensor, Tensor]) -> None:
    expected = measure(Odd("plain"), [data], "fc").to_json()
    assert measure(Odd("plain").fc, _batches(data, 40), "").to_json() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounded_features_and_weights_in_float64(data: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    inputs, labels = data
    head = Odd("plain").fc.to(dtype)
    report = measure(nn.Sequential(head), [(inputs.to(dtype), labels)], "0")
    h, w, b = inputs.to(dtype).double(), head.weight.detach().double(), head.bias.detach().double()
    assert report.kappa == pytest.approx(float(relative_flatness(h, w, b)), rel=1e-12)
    assert report.frobenius_surrogate == pytest.approx(float(frobenius_surrogate(h, w, b)), rel=1e-12)
    assert report.loss == pytest.approx(float(nn.functional.cross_entropy(h @ w.T + b, labels)), rel=1e-12)


def test_measuring_does_not_turn_spectral_norm(data: tuple[Tensor, Tensor]) -> None:
    """In train mode, reading the weight moves its power iteration."""
    head = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)).train()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    report = measure(nn.Sequential(head), [data], "0")
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert report.head_norm == pytest.approx(float(head.eval().weight.detach().double().norm()), rel=1e-6)


class Counting:
    """A loader that counts its readings, and may give other samples on the second."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], later: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.batches, self.later, self.readings = batches, later, 0

    def __iter__(self) -> Any:
        self.readings += 1
        return iter(self.batches if self.readings == 1 or self.later is None else self.later)


def test_nc4_about_own_means_in_bounded_memory(data: tuple[Tensor, Tensor]) -> None:
    model, batches = Classifier(), _batches(data, 9)
    wanted = measure(model, batches, "fc")
    assert 0 < wanted.nc4 < 1
    within, beyond = Counting(batches), Counting(batches)
    assert measure(model, within, "fc").to_json() == wanted.to_json()
    assert measure(model, beyond, "fc", keep_bytes=100).to_json() == wanted.to_json()
    assert (within.readings, beyond.readings) == (1, 2)
    once = measure(model, iter(batches), "fc", keep_bytes=100)
    assert math.isnan(once.nc4)
    assert "read only once" in once.reasons["nc4"]
    assert once.kappa == wanted.kappa
    other = measure(model, Counting(batches, batches[1:]), "fc", keep_bytes=100)
    assert math.isnan(other.nc4)
    assert "other samples" in other.reasons["nc4"]


def test_a_reference_always_takes_one_reading(data: tuple[Tensor, Tensor]) -> None:
    model, batches = Classifier(), _batches(data, 9)
    train = measure(model, batches, "fc")
    loader = Counting(batches)
    assert measure(model, loader, "fc", reference=train, keep_bytes=0).to_json() == train.to_json()
    assert loader.readings == 1


def test_references_that_do_not_fit(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    train = measure(Classifier(), [data], "fc")
    with pytest.raises(UsageError, match="4 classes of 6 features, the head 4 of 5"):
        measure(Odd("plain"), [data], "fc", reference=train)
    partial = measure(Classifier(), [(inputs[:3], labels[:3])], "fc")
    report = measure(Classifier(), [data], "fc", reference=partial)
    assert math.isnan(report.nc4)
    assert math.isnan(report.variance_ratio)
    assert "class 3 behind the class means" in report.reasons["nc4"]
    assert math.isfinite(report.collapse.cdnv)


def test_a_compiled_model_is_measured_by_its_own_names(data: tuple[Tensor, Tensor]) -> None:
    model = Classifier().eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(data[0])  # from here on it notices no new hooks by itself
    assert measure(compiled, [data], "fc").to_json() == measure(model, [data], "fc").to_json()
    torch.compiler.reset()


def test_a_nan_in_the_features_names_batch_and_head(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    inputs[25, 1] = math.inf
    with pytest.raises(NonFiniteError, match="batch 2, the input of head 'fc'"):
        measure(Odd("plain"), _batches((inputs, labels), 10), "fc")
