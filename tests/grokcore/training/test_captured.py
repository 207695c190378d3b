"""A step on buffers that stay where they are is the trainer's own; the graph itself needs a GPU."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn

from grokcore import Intervention, UsageError
from grokcore.data.split import Split
from grokcore.training.captured import CapturedStep
from grokcore.training.config import AnyConfig, SGDConfig, TrainingConfig
from grokcore.training.step import Trainer

CONFIG = SGDConfig(epochs=6, batch_size=16, learning_rate=0.1)
RELEASE = Intervention(
    gini_weight=-0.1,
    head_norm_cap=0.8,
    release_at=0.5,
    release_lr=2.0,
    release_weight_decay=0.1,
    release_schedule="cosine",
)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="a graph needs a CUDA GPU"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def trainer(device: str = "cpu", intervention: Intervention = RELEASE, config: AnyConfig = CONFIG) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 6, generator=generator), torch.randint(0, 4, (64,), generator=generator)
    torch.manual_seed(1)
    model = Small().to(device)
    return Trainer(model, "head", Split(x, y, x, y, 4).to(device), config, intervention, 0)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_captured_steps_are_the_trainers(device: str) -> None:
    """Through a release, which changes penalties, cap, rate and decay."""
    plain, captured = trainer(device), trainer(device)
    CapturedStep(captured)
    losses = []
    for _ in range(plain.steps):
        (loss, raw), (mine, mine_raw) = plain.step(), captured.step()
        losses.append((loss, mine))
        assert raw.keys() == mine_raw.keys()
    for loss, mine in losses:  # looked at afterwards: later steps must not have changed them
        torch.testing.assert_close(loss, mine, rtol=1e-5, atol=1e-6)
    for a, b in zip(plain.model.state_dict().values(), captured.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_state_goes_from_one_to_the_other(device: str) -> None:
    whole, first, second = trainer(device), trainer(device), trainer(device)
    CapturedStep(first)
    CapturedStep(second)
    for _ in range(whole.steps):
        whole.step()
    for _ in range(7):
        first.step()
    state = first.state()
    assert all(isinstance(group["lr"], float) for group in state["optimizer"]["param_groups"])
    second.step()  # it has a graph of other tensors before it is given the state
    second.load_state(state)
    while second.steps_done < second.steps:
        second.step()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_release_is_seen() -> None:
    """The negative sibling: without the release the weights end elsewhere."""
    released, kept = trainer(), trainer(intervention=replace(RELEASE, release_at=None))
    for each in (released, kept):
        CapturedStep(each)
        for _ in range(each.steps):
            each.step()
    assert not torch.allclose(released.head.weight, kept.head.weight)


@pytest.mark.parametrize("captured", [False, True])
def test_no_graph_outlives_its_step(captured: bool) -> None:
    """A capture must make every node of its graph on its own stream, and not meet one of a step before."""
    run, features = trainer(), list[weakref.ref[torch.Tensor]]()
    run.head.register_forward_pre_hook(lambda module, entering: features.append(weakref.ref(entering[0])))
    if captured:
        CapturedStep(run)
    loss, _ = run.step()
    assert len(features) == 1
    assert features[0]() is None
    assert not loss.requires_grad


def test_another_optimiser_is_refused() -> None:
    with pytest.raises(UsageError, match="SGD"):
        CapturedStep(trainer(config=TrainingConfig(steps=5, batch_size=16, measurements=2)))
