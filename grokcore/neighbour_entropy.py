"""Differential entropy by nearest neighbours, and the mutual information that three of them give; in nats.

This is what paper B's public code estimates information by. It stands here so that its faults can be shown on cases
with known answers: between deterministic features and their inputs there is no density, and what the three entropies
measure is how the samples cluster. Use :func:`grokcore.noisy_information`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import sample_distances
from grokcore.errors import NonFiniteError, UsageError

_FLOOR = 1e-20  # of the greatest eigenvalue of a covariance: below it a direction holds rounding alone


def neighbour_weights(neighbours: int, dimensions: int) -> Float[Tensor, " k"]:
    """The weights w of the first k neighbours that cancel the leading bias terms: the shortest with sum w = 1,
    sum_j w_j Gamma(j + 2l/d) / Gamma(j) = 0 for l = 1 .. floor(d/4), and w_j = 0 but for j = floor(i k / d).

    Up to four dimensions the first neighbour alone. In more they alternate in sign and grow.

    Raises:
        UsageError: no neighbour or no dimension.

    Source: Berrett, Samworth and Yuan 2019, Equation 2.
    """
    k, d = neighbours, dimensions
    if k < 1 or d < 1:
        raise UsageError(f"weights need a neighbour and a dimension, got {k} and {d}")
    if d <= 4:
        return torch.eye(k, dtype=torch.float64)[0]
    j = torch.arange(1, k + 1, dtype=torch.float64)
    rows = [torch.full((k,), 1 / k, dtype=torch.float64)]
    for power in range(1, d // 4 + 1):
        row = torch.exp(torch.lgamma(j + 2 * power / d) - torch.lgamma(j))
        rows.append(row / row.norm())
    kept = {i * k // d for i in range(1, d + 1)}
    rows += [unit for index, unit in enumerate(torch.eye(k, dtype=torch.float64), start=1) if index not in kept]
    wanted = torch.zeros(len(rows), dtype=torch.float64)
    wanted[0] = 1 / k
    weights: Tensor = torch.linalg.pinv(torch.stack(rows), rtol=1e-6) @ wanted
    return weights


@torch.no_grad()
def neighbour_entropy(x: Float[Tensor, "n d"], *, neighbours: int = 5, weighted: bool = True) -> float:
    """h(X) in nats: minus the mean over samples of the log density that the distances to neighbours give, the samples
    whitened first.

    Args:
        x: samples (n, d) of a density; two equal ones have none.
        neighbours: k >= 1.
        weighted: whether the k estimates are joined by :func:`neighbour_weights`, as the public code does, or the k-th
            stands alone (Kozachenko and Leonenko 1987).

    Returns:
        The entropy, NaN where it is not defined: equal samples, or a covariance without full rank.

    Raises:
        UsageError: no more samples than neighbours or dimensions.
        NonFiniteError: NaN or infinity.
    """
    n, d = x.shape
    if neighbours < 1 or n <= max(neighbours, d):
        raise UsageError(f"{n} samples in {d} dimensions are too few for {neighbours} neighbours")
    if not bool(torch.isfinite(x).all()):
        raise NonFiniteError("the samples hold NaN or infinity")
    wide = x.double() - x.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(wide.T @ wide / (n - 1))
    if float(values[0]) <= _FLOOR * float(values[-1]):
        return math.nan
    white = wide @ vectors / values.sqrt()
    distances = sample_distances(white).fill_diagonal_(math.inf)
    nearest = distances.topk(neighbours, dim=1, largest=False).values
    if not bool((nearest > 0).all()):
        return math.nan
    log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    psi = torch.digamma(torch.arange(1, neighbours + 1, dtype=torch.float64))
    entropies = log_ball + math.log(n - 1) + d * nearest.log().mean(dim=0).cpu() - psi
    weights = neighbour_weights(neighbours, d) if weighted else torch.eye(neighbours, dtype=torch.float64)[-1]
    return float(weights @ entropies) + float(values.log().sum()) / 2


def entropies_information(
    x: Float[Tensor, "n a"], y: Float[Tensor, "n b"], *, neighbours: int = 5, weighted: bool = True
) -> float:
    """h(X) + h(Y) - h(X,Y) by :func:`neighbour_entropy`: the public code's estimate of I(X;Y), nats.

    Args:
        x, y: paired samples (n, a), (n, b), a + b < n. That code reads them in two passes over a loader that shuffles,
            so that they do not pair, and takes 8 dimensions of each.
        neighbours, weighted: of the entropies.

    Raises:
        UsageError: samples that do not pair or are too few.
        NonFiniteError: NaN or infinity.
    """
    if len(x) != len(y):
        raise UsageError(f"samples must pair, got {len(x)} and {len(y)}")
    parts: Sequence[Tensor] = (x, y, torch.cat([x.double(), y.double()], dim=1))
    one, other, both = (neighbour_entropy(part, neighbours=neighbours, weighted=weighted) for part in parts)
    return one + other - both
