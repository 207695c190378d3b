"""measure(layers=...): each layer's numbers against its own pass by hand, what is chosen, and what is refused."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

import grokcore.accumulate as accumulate
from grokcore import ClassMoments, NonFiniteError, UsageError, collapse_report, measure
from grokcore.report_text import short_names


class Net(nn.Module):
    """A convolution with activations in place, one ReLU used twice, a module that never runs, and one that counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.norm, self.relu = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True)
        self.hidden, self.act, self.fc = nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
        self.spare, self.index = nn.Linear(6, 6), Index()
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        maps = self.relu(self.norm(self.relu(self.conv(inputs))))
        features = self.act(self.hidden(maps.mean((2, 3))))
        self.index(features)
        return self.fc(features)


class Index(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.argmax(1)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.randn(30, 2, 6, 6, generator=torch.Generator().manual_seed(4)), torch.arange(30) % 3


def by_hand(model: Net, inputs: Tensor, pool: str) -> dict[str, Tensor]:
    def flat(maps: Tensor) -> Tensor:
        return maps.flatten(1) if pool == "flatten" else maps.double().mean((2, 3))

    model.eval()
    with torch.no_grad():
        conv = nn.functional.conv2d(inputs, model.conv.weight, model.conv.bias)
        norm = model.norm(conv.relu())
        hidden = model.hidden(norm.relu().mean((2, 3)))
        act = hidden.relu()
        return {"conv": flat(conv), "norm": flat(norm), "hidden": hidden, "act": act, "fc": model.fc(act)}


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_all_layers_in_one_pass_against_each_by_hand(data: tuple[Tensor, Tensor], pool: str) -> None:
    inputs, labels = data
    model = Net()
    report = measure(model, zip(inputs.split(8), labels.split(8), strict=True), "fc", layers="all", pool=pool)
    assert model.passes == 4
    expected = by_hand(model, inputs, pool)
    assert list(report.layers) == list(expected)  # in the order in which they ran; relu, spare and index left out
    for name, features in expected.items():
        found = asdict(report.layers[name])
        wanted = asdict(collapse_report(ClassMoments(3, features.shape[1]).update(features, labels)))
        reasons = found.pop("reasons")
        assert "no reference" in reasons.pop("nearest_mean_accuracy")
        assert math.isnan(found.pop("nearest_mean_accuracy"))
        assert found.pop("variance_ratio") == found["nc1_trace_ratio"]
        assert reasons == wanted.pop("reasons")
        assert found == pytest.approx(wanted, rel=1e-4, nan_ok=True), name
    assert math.isnan(report.layers["act"].nc3_duality)
    assert report.layers["act"].nc2_etf == pytest.approx(report.collapse.nc2_etf, rel=1e-12)
    assert report.layers["conv"].cdnv != pytest.approx(report.layers["norm"].cdnv, rel=1e-3)


def test_layers_about_the_means_of_a_reference(data: tuple[Tensor, Tensor]) -> None:
    """Paper C's V and the nearest class mean of a layer, train means on test data; against loops."""
    inputs, labels = data
    model, other = Net(), torch.randn(21, 2, 6, 6, generator=torch.Generator().manual_seed(5))
    truth = torch.arange(21) % 3
    train = measure(model, [data], "fc", layers=["conv", "hidden"])
    test = measure(model, zip(other.split(5), truth.split(5), strict=True), "fc", layers="all", reference=train)
    mine, theirs = by_hand(model, inputs, "mean"), by_hand(model, other, "mean")
    for name in ("conv", "hidden"):
        means = torch.stack([mine[name][labels == c].double().mean(dim=0) for c in range(3)])
        spread = sum(float((mu - means.mean(dim=0)).square().sum()) for mu in means) / 3
        apart = [[float((h.double() - mu).square().sum()) for mu in means] for h in theirs[name]]
        about = sum(row[int(y)] for row, y in zip(apart, truth, strict=True)) / 21
        hits = sum(row[int(y)] == min(row) for row, y in zip(apart, truth, strict=True))
        assert test.layers[name].variance_ratio == pytest.approx(about / spread, rel=1e-4)
        assert test.layers[name].nearest_mean_accuracy == pytest.approx(hits / 21)
        assert test.layers[name].variance_ratio > 1.02 * test.layers[name].nc1_trace_ratio
    assert 0.2 < test.layers["conv"].nearest_mean_accuracy < 0.9
    # What the reference did not measure is not replaced by the samples' own means.
    assert math.isnan(test.layers["act"].variance_ratio)
    assert "the reference has no class means" in test.layers["act"].reasons["variance_ratio"]
    assert "nearest_mean_accuracy" in str(test)
    assert "nearest_mean_accuracy" not in str(train)
    again = measure(model, [data], "fc", layers=["conv", "hidden"], reference=train)
    assert again.layers["conv"].variance_ratio == pytest.approx(train.layers["conv"].nc1_trace_ratio, rel=1e-12)
    assert not math.isnan(again.layers["conv"].nearest_mean_accuracy)


def test_a_references_layers_must_fit(data: tuple[Tensor, Tensor]) -> None:
    train = measure(Net(), [data], "fc", layers=["conv"])
    with pytest.raises(UsageError, match=r"3 classes of 5 features in layer 'conv', here there are 3 of 80"):
        measure(Net(), [data], "fc", layers=["conv"], pool="flatten", reference=train)
    alone = measure(Net(), [data], "fc", layers=["conv"], reference=train.moments)
    assert math.isnan(alone.layers["conv"].variance_ratio)
    halves = [data[0][:2], data[1][:2]]
    few = measure(Net(), [halves], "fc", layers=["conv"])  # no sample of class 2
    found = measure(Net(), [data], "fc", layers=["conv"], reference=few).layers["conv"]
    assert "no samples of class 2" in found.reasons["nearest_mean_accuracy"]


@pytest.mark.parametrize("place", ["body.0", "body.1", "head"])
def test_a_nan_is_named_where_it_begins(place: str) -> None:
    class Breaks(nn.Identity):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * math.nan

    body = nn.Sequential(*(Breaks() if place == f"body.{i}" else nn.Identity() for i in range(2)))
    between = Breaks() if place == "head" else nn.Identity()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc, self.out = body, nn.Linear(3, 3), nn.Identity()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.out(self.fc(between(self.body(inputs))))

    wanted = r"the input of head 'fc'" if place == "head" else f"layer '{place}'"
    empty = (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    batches = [empty, (torch.randn(6, 3), torch.arange(6) % 3)]
    with pytest.raises(NonFiniteError, match=rf"\(batch 1, {wanted}\)"):  # the loader's number
        measure(Model(), batches, "fc", layers="all")


def test_no_layers_by_none(data: tuple[Tensor, Tensor]) -> None:
    assert measure(Net(), [data], "fc", layers=None).to_json() == measure(Net(), [data], "fc").to_json()


def test_names_and_wildcards(data: tuple[Tensor, Tensor]) -> None:
    assert list(measure(Net(), [data], "fc", layers=["hidden", "conv"]).layers) == ["conv", "hidden"]
    assert list(measure(Net(), [data], "fc", layers="*n*").layers) == ["conv", "norm", "hidden"]
    assert list(measure(Net(), [data], "fc", layers=["[ca]*"]).layers) == ["conv", "act"]
    assert measure(Net(), [data], "fc").layers == {}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("relu", "'relu' ran 2 times in one forward pass"),
        ("spare", "'spare' ran 0 times"),
        ("index", "'index' gives no floating tensor"),
        ("sp*", r"no layer of 'sp\*' runs exactly once"),
        ("cnov", "no layer 'cnov'.*conv, norm, relu, hidden"),
        (["conv", "x?"], "no layer 'x\\?'"),
    ],
)
def test_layers_that_cannot_be_measured(data: tuple[Tensor, Tensor], layers: str | list[str], message: str) -> None:
    model = Net()
    with pytest.raises(UsageError, match=message):
        measure(model, [data], "fc", layers=layers)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (lambda output: output.reshape(5, -1), "gives 5 rows for 30 samples"),
        (lambda output: output.mean(), "pooled to"),
        ("max", "pool must be"),
    ],
)
def test_pools_that_do_not_give_rows(data: tuple[Tensor, Tensor], pool: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure(Net(), [data], "fc", layers="conv", pool=pool)  # type: ignore[arg-type]


def test_flattened_positions_that_change_in_number(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data
    batches = [(inputs[:20], labels[:20]), (inputs[20:, :, :5], labels[20:])]
    with pytest.raises(UsageError, match="'conv' gives 60 features, 80 before"):
        measure(Net(), batches, "fc", layers="conv", pool="flatten")
    assert measure(Net(), batches, "fc", layers="conv").samples == 30


def test_a_nan_names_batch_and_layer(data: tuple[Tensor, Tensor]) -> None:
    inputs, labels = data

    class Hidden(nn.Module):
        """A NaN that the head does not see."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = nn.Identity(), nn.Linear(3, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.fc(self.body(inputs.flatten(1)[:, :3]).nan_to_num())

    inputs[25] = math.nan
    batches = [(inputs[:20], labels[:20]), (inputs[20:], labels[20:])]
    assert measure(Hidden(), batches, "fc").samples == 30
    with pytest.raises(NonFiniteError, match=r"batch 1, layer 'body'"):
        measure(Hidden(), batches, "fc", layers="body")


def test_too_wide_for_a_scatter(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    full = measure(Net(), [data], "fc", layers="conv").layers["conv"]
    monkeypatch.setattr(accumulate, "WIDEST_SCATTER", 4)
    report = measure(Net(), [data], "fc", layers="conv")
    found = report.layers["conv"]
    assert math.isnan(found.nc1_papyan)
    assert found.reasons["nc1_papyan"]
    assert found.cdnv == pytest.approx(full.cdnv, rel=1e-12)
    assert found.nc1_trace_ratio == pytest.approx(full.nc1_trace_ratio, rel=1e-12)
    assert math.isnan(report.collapse.nc1_papyan)


def test_sequences_and_outputs_of_several_tensors() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.conv, self.lstm = nn.Conv1d(2, 3, 1), nn.LSTM(3, 4, batch_first=True)
            self.swapped, self.fc = nn.Identity(), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden, _ = self.lstm(self.conv(inputs).transpose(1, 2))
            self.swapped(hidden.transpose(0, 1))
            return self.fc(hidden[:, -1])

    model, inputs, labels = Sequence(), torch.randn(10, 2, 7), torch.arange(10) % 2
    report = measure(model, [(inputs, labels)], "fc", layers="all", pool="last")
    assert list(report.layers) == ["conv", "lstm", "fc"]  # what has its samples second is left out
    assert report.layers["lstm"].cdnv == pytest.approx(report.collapse.cdnv, rel=1e-12)
    with torch.no_grad():
        last = model.conv(inputs)[:, :, -1]
    expected = collapse_report(ClassMoments(2, 3).update(last, labels))
    assert report.layers["conv"].cdnv == pytest.approx(expected.cdnv, rel=1e-6)
    with pytest.raises(UsageError, match="its samples must come first"):
        measure(model, [(inputs, labels)], "fc", layers="swapped")


def test_layers_in_dict_text_and_scalars(data: tuple[Tensor, Tensor]) -> None:
    report = measure(Net(), [data], "fc", layers="all")
    assert report.to_dict()["layers"]["conv"]["cdnv"] == report.layers["conv"].cdnv
    assert report.scalars()["layers/conv/cdnv"] == report.layers["conv"].cdnv
    lines = str(report).splitlines()
    rows = [line for line in lines if line.startswith(("conv ", "norm ", "fc "))]
    assert len(rows) == 3
    assert len({line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in rows}) == 1  # aligned
    assert "layers" not in measure(Net(), [data], "fc").to_dict()


@pytest.mark.parametrize("classes", [3, 2])
def test_the_text_stays_within_its_columns(data: tuple[Tensor, Tensor], classes: int) -> None:
    report = measure(Net(), [(data[0], data[1] % classes)], "fc", layers="conv")
    names = [f"encoder.transformer_block_number_{i}_with_attention_output_projection" for i in range(12)]
    lines = str(replace(report, layers=dict.fromkeys(names, report.layers["conv"]))).splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line.split()[0] for line in lines if "_with_" in line and not line.startswith(("nan", " "))]
    assert len(set(rows)) == len(rows) == 12


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a.0", "a.1"], ["a.0", "a.1"]),
        (["model.layers.0", "model.layers.11"], ["…0", "…11"]),
        (["model.0.projection", "fc"], ["….projection", "fc"]),
        (["block1_projection", "block11_projection", "fc"], ["…1_projecti…", "…11_project…", "fc"]),
        (["one_very_long_name"], ["…y_long_name"]),
        ([], []),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert short_names(names, 12) == short
