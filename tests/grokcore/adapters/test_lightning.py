"""The Lightning callback in a real training run on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import grokcore
from grokcore import UsageError
from tests.grokcore.adapters.digits import digits

lightning = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own


class Classifier(lightning.LightningModule):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / 16)  # type: ignore[no-any-return]

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def fit(folder: Path, *callbacks: Any, epochs: int = 4, **more: Any) -> tuple[Classifier, Any]:
    train, test = digits()
    lightning.seed_everything(3, verbose=False)
    module = Classifier()
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), default_root_dir=folder, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **more,
    )  # fmt: skip
    trainer.fit(
        module,
        DataLoader(TensorDataset(*train), batch_size=50, shuffle=True),
        DataLoader(TensorDataset(*test), batch_size=100),
    )
    return module, trainer


def test_a_run_is_measured_and_not_changed(tmp_path: Path) -> None:
    from grokcore.adapters.lightning import GrokcoreCallback

    callback = GrokcoreCallback("net.3", layers=("net.1",))
    module, trainer = fit(tmp_path, callback)
    plain, _ = fit(tmp_path)
    for mine, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert callback.monitor is not None
    history = callback.monitor.history
    assert [(entry.step, entry.split) for entry in history] == [(e, s) for e in (1, 2, 3, 4) for s in ("train", "val")]
    train, test = digits()
    report = grokcore.measure(module, [train], "net.3", layers=("net.1",))
    again = grokcore.measure(module, [test], "net.3", reference=report)
    assert history[-2].report.kappa == pytest.approx(report.kappa, rel=1e-9)
    assert history[-1].report.nc4 == again.nc4
    assert history[-1].report.variance_ratio == pytest.approx(again.variance_ratio, rel=1e-9)
    assert history[-2].report.layers["net.1"].cdnv == pytest.approx(report.layers["net.1"].cdnv, rel=1e-9)
    logged = trainer.callback_metrics
    assert float(logged["grokcore/train/kappa"]) == pytest.approx(report.kappa, rel=1e-6)
    assert report.accuracy > 0.9
    assert callback.seconds > 0


def test_what_it_measures_when(tmp_path: Path) -> None:
    from grokcore.adapters.lightning import GrokcoreCallback

    train, test = digits()
    callback = GrokcoreCallback("net.3", every=3, loaders={"val": None, "plain": [test], "train": [train]})
    fit(tmp_path, callback, epochs=4)
    assert callback.monitor is not None
    found = [(entry.step, entry.split) for entry in callback.monitor.history]
    assert found == [(3, "train"), (3, "plain"), (4, "train"), (4, "plain")]
    with pytest.raises(UsageError, match="from 1 on, not 0"):
        GrokcoreCallback("net.3", every=0)
    with pytest.raises(UsageError, match=r"net\.9"):
        fit(tmp_path, GrokcoreCallback("net.9"), epochs=1)
    with pytest.raises(UsageError, match="no set to measure"):
        fit(tmp_path, GrokcoreCallback("net.3", loaders={"train": None, "val": None}), epochs=1)


def test_early_stopping_may_watch_it(tmp_path: Path) -> None:
    from grokcore.adapters.lightning import GrokcoreCallback

    stop = lightning.callbacks.EarlyStopping("grokcore/val/accuracy", mode="max", stopping_threshold=0.5)
    _, trainer = fit(tmp_path, GrokcoreCallback("net.3"), stop, epochs=30)
    assert trainer.current_epoch < 30
