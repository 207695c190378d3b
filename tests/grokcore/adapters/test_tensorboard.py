"""Scalars written through TensorBoard's own writer and read back with its own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import grokcore
from tests.grokcore.adapters.digits import digits

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own


def test_scalars_are_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    train, test = digits()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    reports = []
    with SummaryWriter(str(tmp_path)) as writer, grokcore.Monitor(model, "2", writer=writer) as monitor:
        for epoch in range(3):
            for start in range(0, 400, 50):
                loss = nn.functional.cross_entropy(
                    model(train[0][start : start + 50] / 16), train[1][start : start + 50]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            reports.append(monitor.measure([(train[0] / 16, train[1])], step=epoch))
            monitor.measure([(test[0] / 16, test[1])], step=epoch, split="test", reference=reports[-1])
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    names = reader.Tags()["scalars"]
    assert {f"grokcore/{split}/{name}" for split in ("train", "test") for name in ("kappa", "cdnv", "nc4")} <= set(
        names
    )
    read = reader.Scalars("grokcore/train/kappa")
    assert [event.step for event in read] == [0, 1, 2]
    assert [event.value for event in read] == pytest.approx([report.kappa for report in reports], rel=1e-6)
