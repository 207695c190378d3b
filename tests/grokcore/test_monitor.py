"""Monitor: its two ways agree with measure, history and scalars, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from grokcore import NonFiniteError, UsageError, measure
from grokcore.monitor import Monitor
from tests.grokcore.test_report import Classifier

Batches = list[tuple[Tensor, Tensor]]


class FakeWriter:
    def __init__(self) -> None:
        self.scalars: dict[tuple[str, int], float] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        assert (tag, step) not in self.scalars
        self.scalars[tag, step] = value


@pytest.fixture
def batches() -> Batches:
    inputs, labels = torch.randn(40, 5, generator=torch.Generator().manual_seed(2)), torch.arange(40) % 4
    return list(zip(inputs.split(9), labels.split(9), strict=True))


def watch(monitor: Monitor, batches: Batches) -> None:
    with torch.no_grad():
        for inputs, labels in batches:
            monitor.model(inputs)
            monitor.observe(labels)


@pytest.mark.parametrize("layers", [(), "all", ["body.*"]])
def test_observing_a_users_own_pass_is_measuring(batches: Batches, layers: str | list[str]) -> None:
    model = Classifier().eval()
    wanted = measure(model, batches, "fc", layers=layers).to_json()
    with Monitor(model, "fc", layers=layers) as monitor:
        for step in range(2):
            watch(monitor, batches)
            assert monitor.log(step).to_json() == wanted
        assert monitor.measure(batches, step=2).to_json() == wanted
    assert [(entry.step, entry.split) for entry in monitor.history] == [(0, "test"), (1, "test"), (2, "train")]
    assert all(entry.report.to_json() == wanted for entry in monitor.history)


def test_the_reference_of_a_window(batches: Batches) -> None:
    model = Classifier().eval()
    train, test = batches[:3], batches[2:]
    with Monitor(model, "fc") as monitor:
        reference = monitor.measure(train, step=1)
        watch(monitor, test)
        report = monitor.log(1, reference=reference)
    assert report.to_json() == measure(model, test, "fc", reference=reference).to_json()
    assert report.variance_ratio != measure(model, test, "fc").variance_ratio


def test_a_training_loop_around_it(batches: Batches) -> None:
    """Training steps between the windows leave no trace in them; measure in between neither."""
    model, writer = Classifier(), FakeWriter()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Monitor(model, head="fc", writer=writer, tag="run", layers="body.0") as monitor:
        for epoch in range(2):
            model.train()
            for inputs, labels in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            monitor.measure(batches, step=epoch)
            assert model.training
            model.eval()
            watch(monitor, batches)
            wanted = measure(model, batches, "fc", layers="body.0")
            assert monitor.log(epoch).to_json() == wanted.to_json()
    assert writer.scalars["run/test/kappa", 1] == wanted.kappa
    assert writer.scalars["run/test/layers/body.0/cdnv", 1] == wanted.layers["body.0"].cdnv
    assert writer.scalars["run/train/loss", 0] != writer.scalars["run/train/loss", 1]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(entry.report.moments is None for entry in monitor.history)


def test_nan_is_not_written(batches: Batches) -> None:
    writer = FakeWriter()
    few = [(inputs, labels.clamp(max=2)) for inputs, labels in batches]
    with Monitor(Classifier(), "fc", writer=writer) as monitor:
        report = monitor.measure(few, step=5, split="few")
    assert math.isnan(report.nc4)
    assert ("grokcore/few/nc4", 5) not in writer.scalars
    assert writer.scalars["grokcore/few/kappa", 5] == report.kappa
    assert all(math.isfinite(value) for value in writer.scalars.values())
    (row,) = monitor.to_records()
    assert (row["step"], row["split"], row["kappa"]) == (5, "few", report.kappa)
    assert math.isnan(row["cdnv"])


def test_a_history_report_is_no_reference(batches: Batches) -> None:
    with Monitor(Classifier(), "fc") as monitor:
        monitor.measure(batches, step=0)
        with pytest.raises(UsageError, match="keeps no class means"):
            monitor.measure(batches, step=1, reference=monitor.history[0].report)


def test_a_window_beyond_its_memory(batches: Batches) -> None:
    model = Classifier().eval()
    with Monitor(model, "fc", keep_bytes=100) as monitor:
        watch(monitor, batches)
        report = monitor.log(0)
        assert monitor.measure(batches, step=0).nc4 == measure(model, batches, "fc").nc4
    assert math.isnan(report.nc4)
    assert "keep_bytes" in report.reasons["nc4"]
    assert report.kappa == measure(model, batches, "fc").kappa


def test_what_observe_refuses(batches: Batches) -> None:
    (inputs, labels), model = batches[0], Classifier().eval()
    monitor = Monitor(model, "fc")
    with pytest.raises(UsageError, match="inside `with"):
        monitor.observe(labels)
    with monitor, torch.no_grad():
        with pytest.raises(UsageError, match="'fc' did not run since"):
            monitor.observe(labels)
        with pytest.raises(UsageError, match="nothing was observed"):
            monitor.log(0)
        model(inputs)
        with pytest.raises(UsageError, match="saw 9 samples, but there are 8 labels"):
            monitor.observe(labels[:8])
        model(inputs)
        monitor.observe(labels)
        with pytest.raises(UsageError, match="'fc' did not run since"):
            monitor.observe(labels)
        with pytest.raises(UsageError, match="nothing was observed"):
            monitor.log(0)  # the window went with the error
        model(inputs)
        with pytest.raises(UsageError, match=r"outside \[0, 4\)"):
            monitor.observe(labels + 1)
        model(inputs + math.nan)
        with pytest.raises(NonFiniteError, match="the input of head 'fc'"):
            monitor.observe(labels)
        with pytest.raises(UsageError, match="enter the context once"):
            monitor.__enter__()
    with pytest.raises(UsageError, match="inside `with"):
        monitor.observe(labels)


def test_train_mode_is_refused_where_it_matters(batches: Batches) -> None:
    (inputs, labels), model = batches[0], Classifier().train()
    with Monitor(model, "fc") as monitor:
        with torch.no_grad():
            model(inputs)
        model.eval()
        with pytest.raises(UsageError, match="ran in train mode"):
            monitor.observe(labels)
        model.body[1].train()
        model(inputs)
        with pytest.raises(UsageError, match=r"body\.1 \(BatchNorm1d\) is in train mode"):
            monitor.observe(labels)
    plain = nn.Sequential(nn.Linear(5, 4)).train()
    with Monitor(plain, "0") as monitor:
        with torch.no_grad():
            plain(inputs)
        with pytest.raises(UsageError, match=r"the observed pass ran in train mode; call model\.eval\(\) before it"):
            monitor.observe(labels)
        plain(inputs)  # with gradients: a training step's own pass
        with pytest.raises(UsageError, match="did not run since"):
            monitor.observe(labels)


def test_a_forgotten_observe_is_noticed(batches: Batches) -> None:
    (inputs, labels), model = batches[0], Classifier().eval()
    with Monitor(model, "fc") as monitor, torch.no_grad():
        watch(monitor, batches[:1])
        model(batches[1][0])
        model(inputs[:4])
        with pytest.raises(UsageError, match="made 2 passes since the last labels"):
            monitor.observe(labels[:4])
        watch(monitor, batches)  # the error has told
        model(inputs)
        monitor.measure(batches, step=0)
        model(inputs)
        with pytest.raises(UsageError, match="made 2 passes"):
            monitor.observe(labels)


def test_passes_that_are_not_counted(batches: Batches) -> None:
    """Of training steps, of measure, one that failed, and one before a training step that nobody asked about."""
    (inputs, labels), model = batches[0], Classifier().eval()
    with Monitor(model, "fc") as monitor:
        model(inputs)
        model.train()
        model(inputs)
        model(inputs)
        model.eval()
        with pytest.raises(RuntimeError):
            model(inputs[:, :2])
        model(inputs)
        monitor.measure(batches, step=0)
        monitor.observe(labels)
        monitor.observe(labels[:0])
        model(inputs[:0])
        monitor.observe(labels[:0])
        watch(monitor, batches[1:])
        assert monitor.log(0).to_json() == measure(model, batches, "fc").to_json()


@pytest.mark.usefixtures("no_shape_checks")
def test_a_writer_that_cannot_write_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"needs add_scalar.*object has not"):
        Monitor(Classifier(), "fc", writer=object())  # type: ignore[arg-type]
    assert Monitor(Classifier(), "fc", writer=FakeWriter(), layers=None).history == []


@pytest.mark.parametrize("change", ["body", "head", "fused", "data"])
def test_weights_that_change_within_a_window(batches: Batches, change: str) -> None:
    (inputs, labels), model = batches[0], Classifier().eval()
    with Monitor(model, "fc") as monitor:
        watch(monitor, batches[:1])
        if change == "fused":  # counts no version
            model.train()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            torch.optim.AdamW(model.parameters(), fused=True).step()
            model.eval()
        elif change == "data":  # likewise
            model.fc.weight.data[0, 0] += 1
        else:
            with torch.no_grad():
                (model.fc if change == "head" else model.body[0]).weight.mul_(2)
        model(inputs)
        with pytest.raises(UsageError, match=r"changed (since|between)"):
            monitor.observe(labels)
        watch(monitor, batches)
        assert monitor.log(0).samples == 40


def test_measure_within_an_open_window_leaves_it(batches: Batches) -> None:
    model = Classifier().eval()
    with Monitor(model, "fc") as monitor:
        watch(monitor, batches[:2])
        monitor.measure(batches, step=0)
        watch(monitor, batches[2:])
        assert monitor.log(0).to_json() == measure(model, batches, "fc").to_json()


def test_hooks_go_on_errors_too(batches: Batches) -> None:
    model = Classifier().eval()
    with pytest.raises(UsageError, match="outside"), Monitor(model, "fc", layers="all") as monitor:
        watch(monitor, [(inputs, labels + 1) for inputs, labels in batches])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_model(batches: Batches, warm: bool) -> None:
    """One that ran before the monitor does not notice it: an error, not a silent nothing."""
    model = Classifier().eval()
    wanted = measure(model, batches, "fc", layers="body.0").scalars()
    compiled = torch.compile(model, backend="eager")
    if warm:
        with torch.no_grad():
            compiled(batches[0][0])
    with Monitor(compiled, "fc", layers="body.0") as monitor:  # type: ignore[arg-type]
        if warm:
            with pytest.raises(UsageError, match="a compiled model that ran before"):
                watch(monitor, batches)
        else:
            watch(monitor, batches)
            assert monitor.log(0).scalars() == pytest.approx(wanted, nan_ok=True)
        assert monitor.measure(batches, step=0).scalars() == pytest.approx(wanted, nan_ok=True)
        if not warm:
            watch(monitor, batches)
            assert monitor.log(1).scalars() == pytest.approx(wanted, nan_ok=True)
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_numbers_back(batches: Batches, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer, Monitor(Classifier(), "fc", writer=writer) as monitor:
        report = monitor.measure(batches, step=7)
    events = EventAccumulator(str(tmp_path)).Reload()
    (scalar,) = events.Scalars("grokcore/train/kappa")
    assert (scalar.step, scalar.value) == (7, pytest.approx(report.kappa, rel=1e-6))
