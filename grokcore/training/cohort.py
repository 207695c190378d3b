"""Several runs of one arm as one batched model: a step of all of them is one forward and one backward pass.

Parameters and the optimisers' state of the members are stacked to (S, ...), S the number of members, and the members'
own become views of their slices. So a member is still a trainer of its own: it is measured, saved and gone on with as
if it had been trained alone, and nothing of a step is written a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from grokcore.errors import UsageError
from grokcore.training.step import Trainer

MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    torch.optim.SGD: (),  # without momentum
}
"""The optimisers whose runs can be batched: what each keeps of a parameter's own shape."""


class Cohort:
    """Trainers that step together: ``step()`` advances each by one.

    Each member draws the data and batches of its own run and computes what it would alone, in another order of
    summation. In float64 the two agree to rounding for as long as training is stable. In float32 training is chaotic:
    after some hundreds of steps the records of the two differ, as they do between two numbers of threads. The same
    members from the same states repeat bit for bit.

    Args:
        trainers: of one architecture, config and arm, at one step, on one device; of different seeds, weight decays or
            both. A member that was stepped on its own or was given another state since needs a new cohort.

    Raises:
        UsageError: members that cannot be batched: they differ in what must be equal, draw random numbers in a step
            (dropout), or keep running statistics (batch norm).
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = tuple(trainers)
        require_alike(self.trainers, at_one_step=True)
        self._first = self.trainers[0]
        self._wrapped = _Objective(self._first)
        own = [dict(trainer.model.named_parameters()) for trainer in self.trainers]
        # Stacked copies: what the members had before the cohort is not written to.
        self._stacks = {name: nn.Parameter(torch.stack([each[name].detach() for each in own])) for name in own[0]}
        self._head = next(name for name, parameter in own[0].items() if parameter is self._first.head.weight)
        self.optimizer = self._first.config.new_optimizer(self._stacks.values())
        kinds = MOMENTS[type(self.optimizer)]
        done, device = float(self.steps_done), self._first.head.weight.device
        # A count for each member and parameter, as each optimiser must go on alone, and one for each stack.
        self._counts = torch.full((len(self.trainers) + 1, len(own[0])), done, dtype=torch.float32, device=device)
        for column, (name, stack) in enumerate(self._stacks.items()):
            for index, each in enumerate(own):
                each[name].data = stack.data[index]
                each[name].grad = None
            if not kinds:
                continue
            states: list[dict[str, Any]] = [
                trainer.optimizer.state[each[name]] for trainer, each in zip(self.trainers, own, strict=True)
            ]
            moments = {
                key: torch.stack([s.get(key, torch.zeros_like(p[name])) for s, p in zip(states, own, strict=True)])
                for key in kinds
            }
            self.optimizer.state[stack] = {"step": self._counts[-1, column]} | moments
            for index, state in enumerate(states):
                state |= {"step": self._counts[index, column]} | {key: moments[key][index] for key in kinds}
        self._gradients = vmap(grad_and_value(self._objective, has_aux=True))
        data = self._first.data.train_inputs
        self._inputs = data.new_empty(len(self.trainers), self._first.batches.batch_size, *data.shape[1:])

    @property
    def steps_done(self) -> int:
        """Steps each member has taken."""
        return self._first.steps_done

    def step(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """One step of every member. Returns for each what :meth:`Trainer.step` does (no device sync)."""
        if len({trainer.steps_done for trainer in self.trainers}) > 1:
            raise UsageError("members of a cohort were stepped on their own: make a new one of them")
        for trainer in self.trainers:
            trainer.set_rates(trainer.optimizer)
        self._first.set_rates(self.optimizer)
        inputs, labels = self._next_batches()
        stacks = {name: stack.detach() for name, stack in self._stacks.items()}
        try:
            gradients, (losses, raw) = self._gradients(stacks, inputs, labels)
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
            raise UsageError("seeds whose models draw random numbers in a step cannot be batched") from error
        for name, stack in self._stacks.items():
            stack.grad = gradients[name].contiguous()
        self._decay(stacks)
        self.optimizer.step()
        vmap(self._first.constrain)(stacks[self._head])
        self._counts[:-1] += 1
        for trainer in self.trainers:
            trainer.steps_done += 1
        return [(losses[i], {name: value[i] for name, value in raw.items()}) for i in range(len(self.trainers))]

    def _next_batches(self) -> tuple[Tensor, Tensor]:
        """Every member's next batch, stacked: gathered in place where nothing is done to the inputs afterwards."""
        found = [trainer.next_batch(out=own) for trainer, own in zip(self.trainers, self._inputs, strict=True)]
        inputs = self._inputs if self._first.augmentation is None else torch.stack([each for each, _ in found])
        return inputs, torch.stack([labels for _, labels in found])

    def _decay(self, stacks: dict[str, Tensor]) -> None:
        """The decay of members that differ in theirs, which the one optimiser of all cannot take: a factor of the
        weights before the step, which is what both AdamW's and plain gradient descent's are."""
        groups = [group for trainer in self.trainers for group in trainer.optimizer.param_groups]
        decays = [group["weight_decay"] for group in groups]
        if len(set(decays)) == 1:
            return
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0
        for stack in stacks.values():
            kept = [1 - group["lr"] * decay for group, decay in zip(groups, decays, strict=True)]
            stack.mul_(stack.new_tensor(kept).view(-1, *[1] * (stack.ndim - 1)))

    def _objective(self, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Any:
        """The first trainer's own objective, at a member's weights and batch."""
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return functional_call(self._wrapped, named, (inputs, labels))


class _Objective(nn.Module):
    """A trainer's objective as a module, so that its parameters can be replaced while it runs."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model, self._trainer = trainer.model, trainer

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self._trainer.objective(inputs, labels)


def require_alike(trainers: Sequence[Trainer], *, at_one_step: bool = False) -> None:
    """Raise UsageError, naming what is in the way, unless these trainers can be batched.

    Args:
        trainers: one or more.
        at_one_step: whether they must also have taken the same number of steps.
    """
    if not trainers or len({id(trainer.model) for trainer in trainers}) < len(trainers):
        raise UsageError("a cohort takes one or more trainers, each with a model of its own")
    first = trainers[0]
    momenta = [group.get("momentum", 0.0) for group in first.optimizer.param_groups]
    if type(first.optimizer) not in MOMENTS or any(momenta):
        raise UsageError("only seeds trained by AdamW, or by gradient descent without momentum, can be batched")
    for module in first.model.modules():
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise UsageError("seeds of a model with dropout cannot be batched: each would need a generator of its own")
        if isinstance(module, _NormBase) and module.track_running_stats:
            raise UsageError("seeds of a model with batch norm cannot be batched: its running statistics change")
    wanted = _traits(first, at_one_step)
    for trainer in trainers[1:]:
        found = _traits(trainer, at_one_step)
        differs = [name for name, value in wanted.items() if found[name] != value]
        if differs:
            raise UsageError(f"seeds that differ in their {', '.join(differs)} cannot be batched")
        pairs = zip(first.model.buffers(), trainer.model.buffers(), strict=True)
        if not all(torch.equal(mine, theirs) for mine, theirs in pairs):
            raise UsageError("seeds whose models have different buffers cannot be batched")


def _traits(trainer: Trainer, at_one_step: bool) -> dict[str, Any]:
    """What members must have in common, by the name that an error gives it."""
    parameters, data = list(trainer.model.named_parameters()), trainer.data
    return {
        "model": (type(trainer.model), trainer.head_name),
        "parameters": [(name, p.shape, p.dtype, p.device, p.requires_grad) for name, p in parameters],
        "buffers": [(name, b.shape, b.dtype, b.device) for name, b in trainer.model.named_buffers()],
        "mode": [module.training for module in trainer.model.modules()],
        "config": replace(trainer.config, weight_decay=0.0),
        "arm": trainer.intervention,
        "step": trainer.steps_done if at_one_step else None,
        "batches": (data.train_inputs.shape[1:], data.train_inputs.dtype, trainer.batches.batch_size, data.augmented),
        "classes": data.num_classes,
    }
