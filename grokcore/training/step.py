"""One optimiser step under an intervention, and the state that a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokcore.data.split import Split
from grokcore.errors import UsageError, flag, require_finite
from grokcore.heads import HeadInput, find_head
from grokcore.interventions import Intervention, constrain_head, objective, penalties
from grokcore.training.schedules import BatchOrder, cosine_factor, torch_seed, warmup_factor


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, length and measurement of a run."""

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
        require_finite(self)
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{flag(name)} must be at least 1, got {getattr(self, name)}")
        if self.steps > 10**9:
            raise UsageError(f"--steps must be at most 1000000000, got {self.steps}")
        if not 2 <= self.measurements <= 190:
            raise UsageError(f"--measurements must lie between 2 and 190, got {self.measurements}")
        if not self.learning_rate > 0:
            raise UsageError(f"--learning-rate must be positive, got {self.learning_rate:g}")
        if self.warmup < 0 or not self.weight_decay >= 0:
            raise UsageError("--warmup and --weight-decay must not be negative")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError("--beta1 and --beta2 must lie in [0, 1)")


class Trainer:
    """A model, its optimiser and its arm; ``step()`` advances by one.

    Args:
        model: in train mode; its output are the logits of `head`. A method ``training_loss(inputs, labels)``, which
            gives (loss, features, logits), replaces the cross-entropy of its output.
        head: the head's name.
        data: the split, on the model's device.
        config: optimiser and length.
        intervention: the arm.
        seed: of the batches (and of the global generators, for models that draw).
    """

    def __init__(
        self,
        model: nn.Module,
        head: str,
        data: Split,
        config: TrainingConfig,
        intervention: Intervention,
        seed: int,
    ) -> None:
        self.model, self.head_name, self.data = model, head, data
        self.config, self.intervention = config, intervention
        self.head = find_head(model, head)
        self.release_step = intervention.release_step(config.steps)
        self.batches = BatchOrder(len(data.train_labels), config.batch_size, seed, data.train_labels.device)
        self.optimizer = self.new_optimizer(model.parameters())
        torch.manual_seed(torch_seed(seed, "dropout"))
        self.steps_done = 0
        self._capture = HeadInput(self.head)
        self._capture.attach()

    def new_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.AdamW:
        """The config's optimiser over some parameters, without state."""
        config = self.config
        betas = (config.beta1, config.beta2)
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
        )

    @property
    def released(self) -> bool:
        """Whether the next step comes after the release."""
        return self.release_step is not None and self.steps_done >= self.release_step

    def step(self) -> tuple[Tensor, dict[str, Tensor]]:
        """One step. Returns the objective and each active penalty's raw value (no device sync)."""
        self.set_rates(self.optimizer)
        loss, raw = self.objective(*self.next_batch())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.constrain(self.head.weight)
        self.steps_done += 1
        return loss.detach(), {name: value.detach() for name, value in raw.items()}

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the next step."""
        index = self.batches.indices(self.steps_done + 1)
        return self.data.train_inputs[index], self.data.train_labels[index]

    def objective(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the next step minimises on a batch, and each active penalty's raw value, with their graph."""
        loss, features, logits = self._forward(inputs, labels)
        if self.released and self.intervention.release_penalty:
            return loss, {}
        terms = penalties(self.intervention, features, logits, labels, self.head.weight, self.head.bias)
        return objective(self.intervention, loss, terms), {name: value for name, (_, value) in terms.items()}

    def constrain(self, weight: Tensor) -> Tensor:
        """The head's weight after the next step's update, put under the arm's cap or hold in place."""
        if not (self.released and self.intervention.release_cap):
            constrain_head(self.intervention, weight)
        return weight

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, the head's input and output for the classes: the model's own training loss, where it has one."""
        own = getattr(self.model, "training_loss", None)
        if own is not None:
            return own(inputs, labels)  # type: ignore[no-any-return]
        logits = self.model(inputs)
        return torch.nn.functional.cross_entropy(logits, labels), self._capture.features, logits

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        rate = self.config.learning_rate * warmup_factor(step, self.config.warmup)
        if self.release_step is not None and step > self.release_step:
            rate *= self.intervention.release_lr
            if self.intervention.release_schedule == "cosine":
                rate *= cosine_factor(step - 1, self.release_step, self.config.steps)
        return rate

    def set_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser the learning rate and weight decay of the next step."""
        decay = self.intervention.release_weight_decay if self.released else None
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(self.steps_done + 1)
            group["weight_decay"] = self.config.weight_decay if decay is None else decay

    def state(self) -> dict[str, Any]:
        """Everything the remaining steps depend on, as it is now: later steps do not change it."""
        rng = {"torch": torch.get_rng_state()}
        if self.data.train_labels.is_cuda:
            rng["cuda"] = torch.cuda.get_rng_state()
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        # Copies, also because a view would be saved with all of the storage it looks into.
        for name, value in model.items():
            model[name] = value.clone()
        kept = {key: {k: v.clone() for k, v in each.items()} for key, each in optimizer["state"].items()}
        return {"step": self.steps_done, "model": model, "optimizer": optimizer | {"state": kept}, "rng": rng}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state`; UsageError where it does not fit."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"]["torch"])
            if "cuda" in state["rng"] and self.data.train_labels.is_cuda:
                torch.cuda.set_rng_state(state["rng"]["cuda"])
            self.steps_done = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the checkpoint does not fit this model ({reason}); --fresh starts anew") from None

    def finite(self) -> bool:
        """Whether every parameter is finite (waits for the device)."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
