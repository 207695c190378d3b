"""Estimates with their standard error: what a number is when it was drawn and not computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A number, and how sure it is.

    Attributes:
        value: the estimate; ``float(estimate)`` is this.
        stderr: its standard error, 0 where the value is exact.
        probes: independent random probes behind it, 0 where it is exact.
        seed: of the probes, None where it is exact.
    """

    value: float
    stderr: float
    probes: int
    seed: int | None

    def __float__(self) -> float:
        return self.value

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A value that was computed and not drawn."""
        return cls(value, 0.0, 0, None)

    @classmethod
    def of_probes(cls, values: Tensor, seed: int) -> Estimate:
        """The mean of independent unbiased values, one a probe; NaN standard error for a single one."""
        count = len(values)
        stderr = float(values.std(unbiased=True)) / math.sqrt(count) if count > 1 else math.nan
        return cls(float(values.mean()), stderr, count, seed)


def rademacher(shape: tuple[int, ...], seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Independent fair signs, the same on every device: drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(device=device, dtype=dtype)
