"""Shared cases: random heads, collapsed configurations, and one table of tolerances."""

from __future__ import annotations

import torch
from torch import Tensor

from theory.numeric import configurations
from theory.numeric.configurations import rotation

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
"""Relative tolerance of a comparison, by the dtype that was computed in."""


def random_head(
    seed: int, *, n: int = 12, m: int = 7, K: int = 5, bias: bool = True, offset: float = 0.0
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Features (n, m), weight (K, m), bias (K,) or None, labels (n,) with every class present; float64."""
    head = configurations.random_head(seed, K=K, m=m, n=n)
    return head.features + offset, head.weight, head.bias if bias else None, head.labels


def orthogonal(seed: int, m: int) -> Tensor:
    """A random rotation of R^m."""
    return rotation(seed, m)


def collapsed(
    seed: int, *, K: int, m: int, radius: float = 1.3, gap: float = 4.0, gamma: float = 0.0, per_class: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An exactly collapsed configuration (NC1 to NC4): features, weight, bias, labels."""
    return tuple(configurations.collapsed(seed, K=K, m=m, radius=radius, gap=gap, gamma=gamma, counts=per_class))
