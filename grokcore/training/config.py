"""Optimiser, length and measured steps of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from grokcore.errors import UsageError, flag, require_finite
from grokcore.flatness import Loss
from grokcore.training.schedules import log_spaced_steps

MOST_STEPS = 10**9


Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]


@dataclass(frozen=True)
class TrainingConfig:
    """AdamW for so many steps, measured at log-spaced ones."""

    loss: ClassVar[Loss] = "cross_entropy"
    """Of the logits, mean over samples (:func:`grokcore.training.losses.mean_loss`); a subclass may make it a field."""

    steps: int = 8_000
    """Optimiser steps."""
    batch_size: int = 512
    """Samples a step; an epoch's last short batch is dropped."""
    learning_rate: float = 1e-3
    """AdamW's learning rate."""
    warmup: int = 10
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """AdamW's beta1."""
    beta2: float = 0.98
    """AdamW's beta2."""
    weight_decay: float = 1.0
    """AdamW's decoupled weight decay, on every parameter."""
    measurements: int = 60
    """Number of log-spaced steps at which everything is measured, besides step 0."""

    def __post_init__(self) -> None:
        _require_usual(self, "steps")
        if not 2 <= self.measurements <= 190:
            raise UsageError(f"--measurements must lie between 2 and 190, got {self.measurements}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError("--beta1 and --beta2 must lie in [0, 1)")

    def length(self, samples: int) -> int:
        """Optimiser steps of a run on so many train samples."""
        return self.steps

    def measured_steps(self, samples: int) -> list[int]:
        """The steps after which everything is measured, rising; the last is the run's end."""
        return log_spaced_steps(self.steps, self.measurements)

    def new_optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimiser over some parameters, or groups of them, without state."""
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(
            parameters, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay, fused=True
        )


@dataclass(frozen=True)
class SGDConfig:
    """SGD with momentum for whole epochs, measured at the ends of some of them."""

    loss: ClassVar[Loss] = "cross_entropy"

    epochs: int = 80
    """Passes over the train set."""
    batch_size: int = 64
    """Samples a step; an epoch's last short batch is dropped."""
    learning_rate: float = 0.01
    """SGD's learning rate."""
    warmup: int = 0
    """Steps of linear warm-up."""
    momentum: float = 0.9
    """SGD's momentum, without dampening or Nesterov."""
    weight_decay: float = 0.0
    """SGD's coupled weight decay, on every parameter."""
    measure_every: int = 5
    """Epochs between measurements; before the first of them epochs 1, 2, 4, ... are measured."""

    def __post_init__(self) -> None:
        _require_usual(self, "epochs", "measure_every")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"--momentum must lie in [0, 1), got {self.momentum:g}")
        if self.epochs // self.measure_every > 170:
            raise UsageError(f"--measure-every {self.measure_every} of {self.epochs} epochs: at most 170 measurements")

    def length(self, samples: int) -> int:
        """Optimiser steps of a run on so many train samples."""
        return self.epochs * epoch_steps(samples, self.batch_size)

    def measured_steps(self, samples: int) -> list[int]:
        """The steps after which everything is measured, rising; the last is the run's end."""
        early = {2**k for k in range(self.measure_every.bit_length()) if 2**k < min(self.measure_every, self.epochs)}
        epochs = early | set(range(self.measure_every, self.epochs, self.measure_every)) | {self.epochs}
        return [epoch * epoch_steps(samples, self.batch_size) for epoch in sorted(epochs)]

    def new_optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimiser over some parameters, or groups of them, without state."""
        return torch.optim.SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )


AnyConfig = TrainingConfig | SGDConfig


def epoch_steps(samples: int, batch_size: int) -> int:
    """Steps of an epoch: whole batches, or one of everything where a batch is larger than the data."""
    return max(1, samples // batch_size)


def _require_usual(config: Any, *counts: str) -> None:
    """Raise UsageError for what no optimiser takes."""
    require_finite(config)
    for name in ("batch_size", *counts):
        if getattr(config, name) < 1:
            raise UsageError(f"{flag(name)} must be at least 1, got {getattr(config, name)}")
        if getattr(config, name) > MOST_STEPS:
            raise UsageError(f"{flag(name)} must be at most {MOST_STEPS}, got {getattr(config, name)}")
    if not config.learning_rate > 0:
        raise UsageError(f"--learning-rate must be positive, got {config.learning_rate:g}")
    if config.warmup < 0 or not config.weight_decay >= 0:
        raise UsageError("--warmup and --weight-decay must not be negative")
