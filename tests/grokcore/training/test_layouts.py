"""A state from another order in memory: fused optimisers read memory as it lies, so momenta must lie as weights do."""

from __future__ import annotations

import pytest
import torch

from benchmarks.cifar10 import random_images
from grokcore import Intervention
from grokcore.models.resnet import resnet18
from grokcore.training.config import AnyConfig, SGDConfig, TrainingConfig
from grokcore.training.step import Trainer


def trainer(config: AnyConfig, *, channels_last: bool = False) -> Trainer:
    torch.manual_seed(0)
    model = resnet18(width=0.05)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return Trainer(model, "head", random_images(60), config, Intervention(), 0)


@pytest.mark.parametrize(
    "config", [SGDConfig(epochs=2, batch_size=20), TrainingConfig(steps=6, batch_size=20, measurements=2)]
)
def test_steps_after_a_state_with_channels_last(config: AnyConfig) -> None:
    """As of a run begun on a GPU and gone on with on a CPU."""
    plain, last = trainer(config), trainer(config, channels_last=True)
    for _ in range(3):
        last.step()
    plain.load_state(last.state())
    for _ in range(2):
        plain.step()
        last.step()
    for (name, mine), theirs in zip(plain.model.named_parameters(), last.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_the_hazard_is_real() -> None:
    """The negative sibling: what the optimiser's own loading would have done."""
    config = SGDConfig(epochs=2, batch_size=20)
    plain, last = trainer(config), trainer(config, channels_last=True)
    for _ in range(3):
        last.step()
    plain._lay_out_state = lambda: None  # type: ignore[method-assign]
    plain.load_state(last.state())
    plain.step()
    last.step()
    apart = [
        float((mine - theirs).abs().max().detach())
        for mine, theirs in zip(plain.model.parameters(), last.model.parameters(), strict=True)
    ]
    assert max(apart) > 1e-2
