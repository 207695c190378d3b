"""The mean rise of the loss under random copies of finite size: exactly for m <= 3, by sampling above; E4's bounds.

Nothing here uses the library's bound: the rise is a difference of cross-entropies, and the bounds are written out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from theory.numeric.configurations import Head, generator_of, normal
from theory.numeric.oracle import kappa_by_hessian


class Bounds(NamedTuple):
    """mean log E exp(X), kappa d^2/(2m), and X over samples and classes (n, K) with the outputs (n, K)."""

    exponential: float
    leading: float
    exponents: Tensor
    probabilities: Tensor

    @property
    def largest(self) -> float:
        """X."""
        return float(self.exponents.max())

    @property
    def flatness(self) -> float:
        """(kappa d^2/(2m)) (e^X - 1)/X."""
        return self.leading * growth(self.largest)


def growth(x: float) -> float:
    """(e^x - 1)/x, 1 at 0."""
    return math.expm1(x) / x if x else 1.0


def bounds(
    head: Head, d: float, *, kappa: float | None = None, proxy: float | None = None, temperature: float = 1.0
) -> Bounds:
    """E4's bounds by their definitions, `proxy` the sub-Gaussian variance, 1/m; kappa from the dense Hessian.

    At another temperature, kappa too is that of those outputs.
    """
    m = head.features.shape[1]
    variance = 1 / m if proxy is None else proxy
    p = torch.softmax((head.features @ head.weight.T + head.bias) / temperature, dim=1)
    off = head.weight[None] - (p @ head.weight)[:, None]
    squares = head.features.square().sum(dim=1)[:, None] * off.square().sum(dim=2)
    exponents = d**2 * variance / 2 * squares
    exponential = torch.log1p((p * torch.expm1(exponents)).sum(dim=1)).mean().item()
    if kappa is None:
        kappa = kappa_by_hessian(head) if temperature == 1 else (p * squares).sum(dim=1).mean().item()
    return Bounds(exponential, kappa * d**2 * variance / 2, exponents, p)


def plane_group(count: int) -> Tensor:
    """O(2) by equal angles: `count` rotations and as many reflections, (2 count, 2, 2)."""
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    columns = torch.stack([angle.cos(), angle.sin()], dim=1)
    turned = torch.stack([-columns[:, 1], columns[:, 0]], dim=1)
    return torch.cat([torch.stack([columns, sign * turned], dim=2) for sign in (1, -1)])


def sphere_points(m: int, count: int) -> tuple[Tensor, Tensor]:
    """Quadrature of the uniform law on the unit sphere of R^m, m <= 3: points (N, m) and weights (N,)."""
    if m == 1:
        return torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    if m == 2:
        return circle, torch.full((count,), 1 / count, dtype=torch.float64)
    # Archimedes: the height is uniform on [-1, 1].
    height, weight = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(count // 2))
    ring = (1 - height**2).sqrt()[:, None, None] * circle
    points = torch.cat([ring, height[:, None, None].expand(-1, count, 1)], dim=2).reshape(-1, 3)
    return points, (weight / (2 * count)).repeat_interleave(count)


def rise_on_spheres(head: Head, d: float, count: int = 96) -> float:
    """E L(h + d ||h_i|| u) - L(h), u uniform on the unit sphere: what A h is, sample by sample; m <= 3."""
    points, weights = sphere_points(head.features.shape[1], count)
    moved = head.features + d * head.features.norm(dim=1)[:, None] * points[:, None]
    return float(weights @ losses(head, moved)) - head.loss


def losses(head: Head, moved: Tensor) -> Tensor:
    """The mean loss of each of N copies of the features (N, n, m), (N,)."""
    logits = moved @ head.weight.T + head.bias
    labels = head.labels.expand(len(moved), -1)
    every = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return every.reshape(labels.shape).mean(dim=1)


def rises(head: Head, d: float, matrices: Tensor) -> Tensor:
    """L(h + d A h) - L(h) for each A of (N, m, m), (N,)."""
    return losses(head, head.features + d * torch.einsum("nab,ib->nia", matrices, head.features)) - head.loss


def haar_matrices(seed: int, m: int, count: int) -> Tensor:
    """Independent Haar elements of O(m), (count, m, m)."""
    q, r = torch.linalg.qr(normal(generator_of(seed), count, m, m))
    haar: Tensor = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None]
    return haar


def confident(m: int, *, logit: float = 8.0, length: float = 4.0, idle: int = 0) -> Head:
    """K = 2, opposite rows +-length/2 e_1, h = e_1, sure of class 0 by `logit`; `idle` more samples at h = 0."""
    weight = torch.zeros(2, m, dtype=torch.float64)
    weight[0, 0], weight[1, 0] = length / 2, -length / 2
    features = torch.zeros(1 + idle, m, dtype=torch.float64)
    features[0, 0] = 1.0
    bias = torch.tensor([logit - length, 0.0], dtype=torch.float64)
    return Head(features, weight, bias, torch.zeros(1 + idle, dtype=torch.long))
