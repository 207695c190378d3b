"""Distances between the rows of a small matrix (class means, head weights) to the last digits."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_FEW, _CLOSE = 64, 1e-2  # rows whose differences are all taken directly; else those with a smaller relative distance
_AT_ONCE = 2**20  # numbers


def squared_distances(rows: Float[Tensor, "K m"]) -> Float[Tensor, "K K"]:
    """||r_s - r_t||^2 of all pairs of rows, in float64, with an exact zero diagonal.

    Without gradients no digit is lost however close two rows are: differences are taken directly, or for many rows
    by the Gram matrix of the centred rows and directly only where that loses more than two digits. With gradients
    the Gram form is used throughout, several times faster to differentiate; its absolute error is of the order 1e-16
    times the largest squared norm of a centred row.
    """
    wide, differentiable = rows.double(), torch.is_grad_enabled() and rows.requires_grad
    if not differentiable and len(rows) <= _FEW:
        return _directly(wide)
    centred = wide - wide.detach().mean(dim=0)
    norms = centred.square().sum(dim=1)
    both = norms[:, None] + norms[None, :]
    distances = (both - 2 * centred @ centred.T).clamp_min(0)
    # Rounding on the diagonal would swamp a confident sample's variance, where p_max^2 multiplies it.
    distances = distances * (1 - torch.eye(len(rows), dtype=torch.float64, device=rows.device))
    if differentiable:
        return distances
    close = torch.nonzero((distances < _CLOSE * both).triu(1))
    if len(close) > len(rows) ** 2 // 8:
        return _directly(wide)
    for pairs in torch.split(close, max(1, _AT_ONCE // rows.shape[1])):
        s, t = pairs.unbind(dim=1)
        distances[s, t] = distances[t, s] = (wide[s] - wide[t]).square().sum(dim=1)
    return distances


def sample_distances(x: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """Euclidean distances of all pairs of samples, in float64, from their differences: the products of samples with an
    offset would cancel."""
    return torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _directly(rows: Tensor) -> Tensor:
    above = torch.ones(len(rows), len(rows), dtype=torch.bool, device=rows.device).triu_(1)
    upper = torch.zeros(above.shape, dtype=rows.dtype, device=rows.device)
    upper = upper.masked_scatter(above, torch.pdist(rows).square())
    return upper + upper.T


def coincide(means: Float[Tensor, "K m"], scale: float) -> bool:
    """Whether the rows are equal up to the float64 rounding of features whose norms are about `scale`."""
    centred = means - means.mean(dim=0)
    floor = 8 * torch.finfo(torch.float64).eps * max(float(means.norm()), scale * math.sqrt(len(means)))
    return float(centred.norm()) <= floor
