"""Bounds of the error of a linear head on features of which only the class moments are known."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.geometry import ClassMoments

_ROUNDING = 8 * torch.finfo(torch.float64).eps
_CANCELLED = 8 * _ROUNDING  # an outlier that came first costs the scatter three bits
_LEAST = 1e-150  # margins whose squares, and features' variances of that size, underflow


@torch.no_grad()
def margin_error_bound(
    moments: ClassMoments,
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    directional: bool = False,
) -> float:
    """Upper bound of the share of errors of argmax(W h + b), by Cantelli's inequality on each pair of classes.

        Pr[error] <= sum_c P(c) sum_{k != c} 1 / (1 + max(m_ck, 0)^2 / V_c),
        m_ck = (<w_c - w_k, mu_c> + b_c - b_k) / ||w_c - w_k||,    V_c = mean over class c of ||h - mu_c||^2.

    It holds for every distribution with these moments, so for the samples that the moments were taken of.

    Args:
        moments: of the features h that enter the head, raw, from a model in eval mode. P(c) is the share of the
            samples in class c, mu_c its mean.
        weight: the head's weight (K, m).
        bias: the head's bias (K,).
        directional: take V_c along w_c - w_k alone, which is never looser.

    Returns:
        A share of samples in [0, 1], computed in float64; 1 says nothing. A tie counts as an error, so a pair of
        classes with equal rows and biases adds P(c), and a class without variance adds 0 only where its mean's
        margin is positive: larger than the rounding of the logits, and than 1e-150.

    Raises:
        UsageError: an absent class, shapes that do not fit, or `directional` on moments that keep no scatter of
            each class (``ClassMoments(..., scatter="per_class")`` does).
        NonFiniteError: NaN or infinity in the weight or the bias.

    Source: paper B (its bound by the within-class variance); theory E1, and E1' for `directional`.
    """
    K, m = moments.num_classes, moments.num_features
    if tuple(weight.shape) != (K, m) or (bias is not None and tuple(bias.shape) != (K,)):
        raise UsageError(
            f"moments of {K} classes and {m} features need a weight ({K}, {m}) and a bias ({K},), got "
            f"{tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}"
        )
    if not all(bool(p.isfinite().all()) for p in (weight, bias) if p is not None):
        raise NonFiniteError("the head holds NaN or infinity")
    if moments.absent:
        raise UsageError(f"no samples of class {moments.absent[0]}: its errors cannot be bounded")
    if directional and moments.scatter != "per_class":
        raise UsageError(
            f'a directional bound needs moments with scatter="per_class", these have scatter="{moments.scatter}"'
        )
    # Each is computed anew where it is read.
    means, within = moments.means, moments.within
    scatter = moments.scatter_sum if directional else None
    weight = weight.to(means)
    offset = torch.zeros_like(moments.counts) if bias is None else bias.to(means)
    # A power of two is exact, and no difference of two entries overflows below one half.
    largest = float(torch.maximum(weight.abs().max(), offset.abs().max()))
    power = -math.frexp(largest)[1] - 1
    for factor in (2.0 ** (power // 2), 2.0 ** (power - power // 2)):  # 2^power itself may overflow
        weight, offset = weight * factor, offset * factor
    shares = moments.counts / moments.counts.sum()
    total = 0.0
    for c in range(K):
        # Differences first: of logits they would cancel where the features have a large common offset.
        rows, mean = weight[c] - weight, means[c]
        size = rows.abs().amax(dim=1)
        unit = torch.where(size > 0, size, 1.0)
        rows = rows / unit[:, None]
        length = torch.where(size > 0, torch.linalg.vector_norm(rows, dim=1), 1.0)
        margins = (rows @ mean + (offset[c] - offset) / unit) / length
        rounding = _ROUNDING * (rows.abs() @ mean.abs() + (offset[c].abs() + offset.abs()) / unit) / length
        variance = (within[c] / moments.counts[c]).expand(K)
        if scatter is not None:
            along = ((rows @ scatter[c]) * rows).sum(dim=1)
            # What cancels in `along` is of this size: a direction that looks still may not be.
            lost = _CANCELLED * (rows.abs() @ scatter[c].diagonal().clamp_min(0).sqrt()).square()
            variance = torch.minimum(variance, (along.clamp_min(0) + lost) / length.square() / moments.counts[c])
        # Equal rows give logits that differ by a constant; no variance an infinite ratio.
        variance = torch.where(size > 0, variance, 0.0)
        terms = 1 / (1 + (margins / variance.sqrt()).square())
        terms = torch.where(margins > rounding.clamp_min(_LEAST), terms, 1.0)
        terms[c] = 0.0
        total += float(shares[c] * terms.sum())
    return min(1.0, total)
