"""Explicit heads and features to measure: collapsed, nearly collapsed, and random. Float64 torch tensors."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor


class Head(NamedTuple):
    """A linear head with the features that enter it: (n, m), (K, m), (K,), (n,)."""

    features: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        """softmax(W h + b), (n, K)."""
        return torch.softmax(self.features @ self.weight.T + self.bias, dim=1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return float(torch.nn.functional.cross_entropy(self.features @ self.weight.T + self.bias, self.labels))


def generator_of(seed: int) -> torch.Generator:
    """A fresh CPU generator."""
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal float64 numbers."""
    drawn: Tensor = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return drawn


def rows(*values: list[float]) -> Tensor:
    """The float64 matrix of these rows."""
    return torch.tensor(values, dtype=torch.float64)


def rotation(seed: int, m: int) -> Tensor:
    """A Haar-random orthogonal m x m matrix."""
    q, r = torch.linalg.qr(normal(generator_of(seed), m, m))
    haar: Tensor = q * torch.sign(torch.diagonal(r))
    return haar


def simplex(K: int, m: int, radius: float = 1.0, seed: int = 0) -> Tensor:
    """A simplex ETF: K rows of norm `radius` in R^m, m >= K - 1, mean zero, in a random subspace; (K, m)."""
    if m < K - 1:
        raise ValueError(f"a simplex of {K} classes needs {K - 1} dimensions, got {m}")
    # The eigenvectors of P = I - 11^T/K with eigenvalue 1 are orthonormal coordinates of its range.
    _, vectors = torch.linalg.eigh(torch.eye(K, dtype=torch.float64) - 1 / K)
    rows = vectors[:, 1:] * math.sqrt(K / (K - 1)) * radius
    etf: Tensor = rows @ rotation(seed, m)[: K - 1]
    return etf


def collapsed(
    seed: int = 0,
    *,
    K: int,
    m: int,
    gap: float = 4.0,
    radius: float = 1.3,
    gamma: float = 0.0,
    mean: Tensor | None = None,
    counts: int | list[int] = 1,
) -> Head:
    """An exactly collapsed head (NC1 to NC4).

    Args:
        seed: of the rotation.
        K: classes.
        m: features; at least K - 1, and at least K where gamma > 0: the global mean is orthogonal to the simplex.
        gap: the logit gap Delta (negative for a head that points away from its class).
        radius: M, the norm of the centred class means.
        gamma: ||mu_G|| / M.
        mean: mu_G itself, (m,), in any direction, instead of `gamma`.
        counts: samples in each class.
    """
    if gamma and m < K:
        raise ValueError(f"a global mean orthogonal to a simplex of {K} classes needs {K} dimensions, got {m}")
    centred = simplex(K, m, radius, seed)
    if mean is None:
        mean = gamma * radius * rotation(seed, m)[-1]
    weight = gap * (K - 1) / (K * radius**2) * centred
    per_class = torch.tensor([counts] * K if isinstance(counts, int) else counts)
    labels = torch.arange(K).repeat_interleave(per_class)
    return Head((centred + mean)[labels], weight, -weight @ mean, labels)


def nearly_collapsed(
    seed: int = 0, *, K: int, m: int, noise: float, gap: float = 4.0, gamma: float = 0.0, counts: int = 4
) -> Head:
    """A collapsed head with normal noise of size `noise` on features (per unit of their norm), weight and bias."""
    head = collapsed(seed, K=K, m=m, gap=gap, gamma=gamma, counts=counts)
    generator = generator_of(seed + 1)
    scale = noise / math.sqrt(m)
    return Head(
        head.features + scale * float(head.features.norm(dim=1).mean()) * normal(generator, *head.features.shape),
        head.weight + scale * float(head.weight.norm(dim=1).mean()) * normal(generator, *head.weight.shape),
        head.bias + noise * normal(generator, K),
        head.labels,
    )


def random_head(seed: int = 0, *, K: int, m: int, n: int, scale: float = 1.0) -> Head:
    """Normal features, weight (times `scale`) and bias; every class has a sample where n >= K."""
    generator = generator_of(seed)
    labels = torch.cat([torch.arange(min(K, n)), torch.randint(0, K, (max(n - K, 0),), generator=generator)])
    return Head(normal(generator, n, m), scale * normal(generator, K, m), normal(generator, K), labels)


def random_mlp(seed: int, sizes: list[int], activation: torch.nn.Module) -> torch.nn.Sequential:
    """Linear layers "0", "2", ... of the given sizes with one activation between them; normal weights and biases."""
    generator = generator_of(seed)
    layers: list[torch.nn.Module] = []
    for entering, leaving in itertools.pairwise(sizes):
        linear = torch.nn.Linear(entering, leaving, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(normal(generator, leaving, entering))
            linear.bias.copy_(normal(generator, leaving))
        layers += [linear, activation]
    return torch.nn.Sequential(*layers[:-1])
