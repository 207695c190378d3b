"""When things happen: measured steps, learning rate, batches. All pure functions of step and seed, so a
resumed run needs no state of theirs."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def log_spaced_steps(steps: int, count: int) -> list[int]:
    """`count` distinct steps (all of them where count > steps), from 1 to `steps`, log-spaced where
    whole numbers allow it."""
    if steps < 1 or count < 2:
        raise ValueError(f"need at least 1 step and 2 measurements, got {steps} and {count}")
    if count >= steps:
        return list(range(1, steps + 1))
    chosen = [1]
    for remaining in range(count - 1, 0, -1):
        ratio = (steps / chosen[-1]) ** (1 / remaining)
        chosen.append(max(chosen[-1] + 1, round(chosen[-1] * ratio)))
    return chosen


def warmup_factor(step: int, warmup: int) -> float:
    """Linear warm-up: step / warmup up to 1; step counts from 1."""
    return min(1.0, step / warmup) if warmup > 0 else 1.0


def cosine_factor(step: int, start: int, end: int) -> float:
    """1 at step `start`, falling as a half cosine to 0 at step `end`."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (step - start) / (end - start)))))


def stream(seed: int, name: str, *more: int) -> np.random.SeedSequence:
    """An independent seed stream of a run, by name: the same on every machine."""
    return np.random.SeedSequence([seed, *name.encode(), *more])


def torch_seed(seed: int, name: str, *more: int) -> int:
    """A 63-bit seed for torch from a named stream."""
    return int(stream(seed, name, *more).generate_state(1, np.uint64)[0] >> np.uint64(1))


class BatchOrder:
    """Which samples each step trains on: a fresh permutation an epoch, the last short batch dropped.

    Dropping keeps every batch the same size (the minibatch CDNV depends on it); as each epoch permutes
    anew, no sample is favoured. A batch larger than the data is the whole set.

    Args:
        samples: size of the train set.
        batch_size: wanted samples a batch.
        seed: the run's seed.
        device: where the indices are used.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.batch_size = min(batch_size, samples)
        self.batches = samples // self.batch_size
        self._samples, self._seed, self._device = samples, seed, device
        self._epoch = -1

    def indices(self, step: int) -> Int[Tensor, " batch"]:
        """Indices of step `step`, counted from 1."""
        epoch, position = divmod(step - 1, self.batches)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(torch_seed(self._seed, "batches", epoch))
            order = torch.randperm(self._samples, generator=generator)
            self._order, self._epoch = order.to(self._device), epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]
