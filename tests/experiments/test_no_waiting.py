"""A training step never reads a number off its device, so that a GPU is never waited for; tried on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cdnv import looped_cdnv
from benchmarks.cifar10 import random_images
from experiments.arms import ARMS, CELLS
from experiments.cifar10_config import PRESETS, ImageModelConfig, build_model
from grokcore.training.captured import CapturedStep
from grokcore.training.step import Trainer

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "_unique2", "equal")
"""Operators whose result decides something on the host."""


class Watch(TorchDispatchMode):
    """Notes every operator that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def trainer(arm: str, *, augment: bool = False, precision: str = "float32") -> Trainer:
    own = (ARMS | CELLS)[arm].cpu
    command = replace(PRESETS["cpu"], intervention=own, model=ImageModelConfig(width=0.05, precision=precision))  # type: ignore[arg-type]
    split = replace(random_images(60), augmented=augment)
    config = replace(command.training, epochs=2, batch_size=20)
    return Trainer(build_model(command, split, 0), "head", split, config, own, 0)


@pytest.mark.parametrize("arm", [*ARMS, "ncc_prevent+flatness_prevent"])
@pytest.mark.usefixtures("no_shape_checks")
def test_no_arm_waits(arm: str) -> None:
    """Through two epochs and, for the released arms, the release between them."""
    run = trainer(arm, augment=True)
    with Watch() as watch:
        for _ in range(run.steps):
            run.step()
    assert watch.seen == []


@pytest.mark.usefixtures("no_shape_checks")
def test_a_captured_step_does_not_either() -> None:
    run = trainer("ncc_prevent", precision="bfloat16")
    CapturedStep(run)
    with Watch() as watch:
        for _ in range(run.steps):
            run.step()
    assert watch.seen == []


def test_the_published_penalty_does() -> None:
    """The negative sibling: the watch sees a loop over samples in Python."""
    with Watch() as watch:
        looped_cdnv(torch.randn(64, 8), torch.arange(64) % 10)
    assert watch.seen.count("_local_scalar_dense") >= 64
