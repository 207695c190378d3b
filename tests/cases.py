"""Shared cases: random heads, collapsed configurations, and one table of tolerances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
"""Relative tolerance of a comparison, by the dtype that was computed in."""


def random_head(
    seed: int, *, n: int = 12, m: int = 7, K: int = 5, bias: bool = True, offset: float = 0.0
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Features (n, m), weight (K, m), bias (K,) or None, labels (n,) with every class present; float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.cat([torch.arange(K), torch.randint(0, K, (n - K,), generator=generator)])
    return draw(n, m) + offset, draw(K, m), draw(K) if bias else None, labels


def orthogonal(seed: int, m: int) -> Tensor:
    """A random rotation of R^m."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(m, m, generator=generator, dtype=torch.float64))
    return q


def collapsed(
    seed: int, *, K: int, m: int, radius: float = 1.3, gap: float = 4.0, gamma: float = 0.0, per_class: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An exactly collapsed configuration (NC1 to NC4): features, weight, bias, labels.

    The simplex lies in a random (K-1)-dimensional subspace; with gamma > 0 the global mean is orthogonal
    to it, so m >= K is needed then.
    """
    basis = orthogonal(seed, m)
    simplex = torch.eye(K, dtype=torch.float64) - 1 / K
    # Rows of P in orthonormal coordinates of its range, scaled to norm `radius`.
    eigenvalues, vectors = torch.linalg.eigh(simplex)
    rows = vectors[:, eigenvalues > 0.5] * math.sqrt(K / (K - 1)) * radius
    centred = rows @ basis[: K - 1]
    mean = gamma * radius * basis[-1] if gamma else torch.zeros(m, dtype=torch.float64)
    scale = gap * (K - 1) / (K * radius**2)
    weight = scale * centred
    bias = -weight @ mean
    labels = torch.arange(K).repeat_interleave(per_class)
    return (centred + mean)[labels], weight, bias, labels
