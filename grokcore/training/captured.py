"""A trainer's step as a CUDA graph: hundreds of small kernels started by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grokcore.errors import UsageError
from grokcore.training.config import SGDConfig
from grokcore.training.step import Trainer

Update = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
WARM_UP = 3
"""Steps before a capture: libraries choose their kernels and allocate in them."""


class CapturedStep:
    """Stands in for :meth:`Trainer.update`: the same step, replayed on buffers that stay where they are.

    Everything a step decides in Python (which penalties are on, the weight decay) is fixed in a graph, so a release
    captures anew; the learning rate is a tensor that each step fills. The first steps of each graph run eagerly, on a
    stream of their own, and count like any other. Without a GPU there is nothing to capture, and every step runs
    eagerly on the buffers.

    Args:
        trainer: of an :class:`~grokcore.training.config.SGDConfig`; its ``update`` is replaced. Its model must not
            draw random numbers on the CPU in a step.

    Raises:
        UsageError: another optimiser, whose step counts in Python.
    """

    def __init__(self, trainer: Trainer) -> None:
        if not isinstance(trainer.config, SGDConfig):
            raise UsageError("only a step of SGD can be captured")
        self._trainer, self._eager = trainer, trainer.update
        self._device = trainer.data.train_labels.device
        self._phase: tuple[Any, ...] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._steps = 0
        trainer.update = self  # type: ignore[method-assign]

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """A step's loss and raw penalties, which later steps do not change."""
        phase = (inputs.shape, inputs.dtype, self._trainer.released, self._decays())
        if self._rates_to_tensors() or phase != self._phase:
            self._phase, self._graph, self._steps = phase, None, 0
            self._inputs, self._labels = torch.empty_like(inputs), torch.empty_like(labels)
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._steps += 1
        if self._device.type != "cuda":
            return _copies(self._eager(self._inputs, self._labels))
        if self._steps <= WARM_UP:
            return _copies(self._aside())
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._found = self._eager(self._inputs, self._labels)
        self._graph.replay()
        return _copies(self._found)

    def _aside(self) -> tuple[Tensor, dict[str, Tensor]]:
        """A step on a stream of its own, as a capture's warm-up must be; one for all, as each keeps its memory."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = self._eager(self._inputs, self._labels)
        torch.cuda.current_stream().wait_stream(stream)
        return found

    def _rates_to_tensors(self) -> bool:
        """Whether the optimiser had rates as numbers: it is new, or was given another state."""
        groups = [g for g in self._trainer.optimizer.param_groups if not isinstance(g["lr"], Tensor)]
        for group in groups:
            group["lr"] = torch.tensor(group["lr"], device=self._device)
        return bool(groups)

    def _decays(self) -> tuple[float, ...]:
        return tuple(group["weight_decay"] for group in self._trainer.optimizer.param_groups)


def _copies(found: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    loss, raw = found
    return loss.clone(), {name: value.clone() for name, value in raw.items()}
