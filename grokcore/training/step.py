"""One optimiser step under an intervention, and the state that a checkpoint must hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grokcore.data.split import Split
from grokcore.errors import UsageError
from grokcore.heads import HeadInput, find_head
from grokcore.interventions import Intervention, constrain_head, objective, penalties
from grokcore.training.augmentation import CropFlip
from grokcore.training.config import AnyConfig
from grokcore.training.losses import mean_loss
from grokcore.training.schedules import BatchOrder, cosine_factor, torch_seed, warmup_factor


class Trainer:
    """A model, its optimiser and its arm; ``step()`` advances by one.

    Args:
        model: in train mode; its output are the logits of `head`. A method ``training_loss(inputs, labels)``, which
            gives (loss, features, logits), replaces the config's loss of its output.
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
        config: AnyConfig,
        intervention: Intervention,
        seed: int,
    ) -> None:
        self.model, self.head_name, self.data = model, head, data
        self.config, self.intervention = config, intervention
        self.head = find_head(model, head)
        samples, device = len(data.train_labels), data.train_labels.device
        self.steps, self.measured_steps = config.length(samples), config.measured_steps(samples)
        self.release_step = intervention.release_step(self.steps)
        self.batches = BatchOrder(samples, config.batch_size, seed, device)
        self.augmentation = CropFlip(samples, seed, device) if data.augmented else None
        self.optimizer = config.new_optimizer(model.parameters())
        torch.manual_seed(torch_seed(seed, "dropout"))
        self.steps_done = 0
        self.head_input = HeadInput(self.head)
        self.head_input.attach()

    @property
    def released(self) -> bool:
        """Whether the next step comes after the release."""
        return self.release_step is not None and self.steps_done >= self.release_step

    def step(self) -> tuple[Tensor, dict[str, Tensor]]:
        """One step. Returns the objective and each active penalty's raw value (no device sync)."""
        self.set_rates(self.optimizer)
        found = self.update(*self.next_batch())
        self.steps_done += 1
        return found

    def update(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step does to the weights with its batch; returns what :meth:`step` does."""
        loss, raw = self.objective(inputs, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.constrain(self.head.weight)
        return loss.detach(), {name: value.detach() for name, value in raw.items()}

    def next_batch(self, most: int | None = None, *, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the next step, or its first `most`; the inputs before augmentation in `out` if given."""
        step = self.steps_done + 1
        index = self.batches.indices(step)[:most]
        inputs = torch.index_select(self.data.train_inputs, 0, index, out=out)
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, index, (step - 1) // self.batches.batches)
        return inputs, self.data.train_labels[index]

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
        """Mean loss, the head's input and output for the classes: the model's own training loss, where it has one, else
        the config's."""
        own = getattr(self.model, "training_loss", None)
        if own is not None:
            return own(inputs, labels)  # type: ignore[no-any-return]
        logits = self.model(inputs)
        return mean_loss(self.config.loss, logits, labels), self.head_input.take(), logits

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 1."""
        rate = self.config.learning_rate * warmup_factor(step, self.config.warmup)
        if self.release_step is not None and step > self.release_step:
            rate *= self.intervention.release_lr
            if self.intervention.release_schedule == "cosine":
                rate *= cosine_factor(step - 1, self.release_step, self.steps)
        return rate

    def set_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser the learning rate and weight decay of the next step."""
        decay = self.intervention.release_weight_decay if self.released else None
        for group in optimizer.param_groups:
            rate = self.learning_rate(self.steps_done + 1)
            if isinstance(group["lr"], Tensor):  # a captured step reads it where it is
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
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
        kept = {
            key: {k: v.clone() for k, v in each.items() if v is not None}  # SGD without momentum has a buffer of None
            for key, each in optimizer["state"].items()
        }
        groups = [group | {"lr": float(group["lr"])} for group in optimizer["param_groups"]]
        optimizer |= {"state": kept, "param_groups": groups}
        return {"step": self.steps_done, "model": model, "optimizer": optimizer, "rng": rng}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state`; UsageError where it does not fit."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self._lay_out_state()
            torch.set_rng_state(state["rng"]["torch"])
            if "cuda" in state["rng"] and self.data.train_labels.is_cuda:
                torch.cuda.set_rng_state(state["rng"]["cuda"])
            self.steps_done = int(state["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the checkpoint does not fit this model ({reason}); --fresh starts anew") from None

    def _lay_out_state(self) -> None:
        """Give momenta their parameters' order in memory: fused optimisers never look at strides."""
        for parameter, kept in self.optimizer.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter).copy_(value)

    def finite(self) -> bool:
        """Whether every parameter is finite (waits for the device)."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
