"""The normalised Hilbert-Schmidt independence criterion: dependence without an information estimate, with its null."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import sample_distances
from grokcore.errors import NonFiniteError, UsageError


class Dependence(NamedTuple):
    """nHSIC, and what it is where nothing depends on anything.

    Attributes:
        value: nHSIC, from 0 to the number of samples.
        null_mean: its mean over shuffled pairs.
        null_std: their standard deviation.
        p_value: share of shuffles at least as large, this one counted with them.
    """

    value: float
    null_mean: float
    null_std: float
    p_value: float


@torch.no_grad()
def normalised_hsic(
    x: Float[Tensor, "n a"],
    y: Float[Tensor, "n b"],
    *,
    bandwidth: float | None = None,
    epsilon: float = 1e-3,
    shuffles: int = 100,
    seed: int = 0,
) -> Dependence:
    """nHSIC(X, Y) = Tr(R_x R_y), R = K (K + epsilon n I)^-1, K the centred Gaussian kernel matrix.

    Args:
        x, y: paired samples (n, a), (n, b); labels as one-hot rows.
        bandwidth: of ``k = exp(-|u - v|^2 / (2 bandwidth^2))``; None: the median distance between different points,
            for x and y apart.
        epsilon: the ridge; larger, fewer directions of the kernel count.
        shuffles: of the pairs, for the null.
        seed: of the shuffles.

    Raises:
        UsageError: samples that do not pair, fewer than three, all points equal, a bandwidth or ridge that is not
            positive, no shuffles.
        NonFiniteError: NaN or infinity.

    Source: Fukumizu et al. 2007 (the normalised cross-covariance); Ma, Lewis and Kleijn 2020 (the HSIC bottleneck).
    """
    n = len(x)
    if len(y) != n or n < 3:
        raise UsageError(f"samples must pair and be three or more, got {n} and {len(y)}")
    if shuffles < 1 or not epsilon > 0 or (bandwidth is not None and not bandwidth > 0):
        raise UsageError("shuffles, the ridge and the bandwidth must be positive")
    if not all(bool(torch.isfinite(each).all()) for each in (x, y)):
        raise NonFiniteError("the samples hold NaN or infinity")
    ours, theirs = (_normalised_kernel(each, bandwidth, epsilon) for each in (x, y))
    value = float((ours * theirs).sum())
    generator, null = torch.Generator().manual_seed(seed), torch.zeros(shuffles, dtype=torch.float64)
    for index in range(shuffles):
        order = torch.randperm(n, generator=generator).to(theirs.device)
        null[index] = float((ours * theirs[order][:, order]).sum())
    at_least = int((null >= value).sum())
    spread = float(null.std()) if shuffles > 1 else math.nan
    return Dependence(value, float(null.mean()), spread, (1 + at_least) / (1 + shuffles))


def _normalised_kernel(x: Tensor, bandwidth: float | None, epsilon: float) -> Tensor:
    squares = sample_distances(x).square()
    if bandwidth is None:
        apart = squares[squares > 0]
        if not len(apart):
            raise UsageError("all points are equal: their kernel has no width")
        bandwidth = math.sqrt(float(apart.median()))
    kernel = torch.exp(squares / (-2 * bandwidth**2))
    kernel = kernel - kernel.mean(dim=0)
    kernel = kernel - kernel.mean(dim=1, keepdim=True)
    n = len(kernel)
    ridge = kernel + epsilon * n * torch.eye(n, dtype=kernel.dtype, device=kernel.device)
    solved: Tensor = torch.linalg.solve(ridge, kernel)
    return (solved + solved.T) / 2
