"""How far the relative flatness of any head can be from the collapse curve: bounds by the logits' deviation from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.distances import squared_distances
from grokcore.errors import NonFiniteError, UsageError
from grokcore.flatness import gini_impurity, row_variance


class Sides(NamedTuple):
    """A lower and an upper bound of kappa."""

    lower: float
    upper: float


class FlatnessSandwich(NamedTuple):
    """What :func:`flatness_sandwich` returns: four pairs of bounds, each from more of the outputs than the one before.

    `extremal` is never looser than `exponential`, nor the upper side of `losses` or either of `outputs` than that of
    `extremal`. Which of `losses` and `outputs` is tighter depends on the head.

    Attributes:
        kappa: the exact relative flatness.
        gap: Delta, nats.
        oscillation: mean over samples of omega_i = max - min over classes of z_i - Delta e_{y_i}, nats.
        nearest, farthest: D- and D+, the least and the largest distance of two rows of the weight.
        exponential: (D^2/2) U(Delta) mean(||h||^2 e^{-omega}) with D-, and with D+ and e^{omega}.
        extremal: (D^2/2) mean(||h||^2 U), U its least and largest value where the oscillation is at most omega_i.
        losses: from each sample's p_y, and the distances of its class's row to the others.
        outputs: (D^2/2) mean(||h||^2 U_i), U_i = 1 - ||p_i||^2 itself: what D- and D+ alone leave open.
    """

    kappa: float
    gap: float
    oscillation: float
    nearest: float
    farthest: float
    exponential: Sides
    extremal: Sides
    losses: Sides
    outputs: Sides


@torch.no_grad()
def flatness_sandwich(
    features: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    gap: float | None = None,
) -> FlatnessSandwich:
    """Bounds of a linear head's relative flatness kappa about the collapsed outputs of logit gap Delta.

        (D-^2/2) U(Delta) mean(||h||^2 e^{-omega}) <= kappa <= (D+^2/2) U(Delta) mean(||h||^2 e^{omega}),

    U(Delta) = 1 - ||p||^2 where one logit stands Delta above the K - 1 others, and three pairs that need to know more:
    see :class:`FlatnessSandwich`. All of them meet kappa at neural collapse of that gap, except the lower side of
    `losses`, which for K > 2 only nears it as the loss falls.

    Args:
        features: inputs of the head (n, m), raw, from a model in eval mode.
        labels: (n,), classes from 0 to K - 1; a class may be absent.
        weight: the head's weight (K, m), K >= 2.
        bias: the head's bias (K,), part of the logits.
        gap: Delta, any finite number of nats; by default the mean over samples of z_y minus the mean of the other
            logits, the `logit_gap` of :func:`grokcore.measure`.

    Returns:
        Everything in float64, means over samples; an `exponential` upper side beyond the largest float64 number is
        infinity.

    Raises:
        UsageError: no samples, fewer than two classes, shapes that do not fit, a label outside [0, K).
        NonFiniteError: NaN or infinity in the arguments, or an oscillation, a squared norm of a feature or a squared
            distance of rows beyond float64 (kappa is the same for a W and h/a).

    Memory: some (n, K) and (K, K) float64 arrays. Source: theory B8 (`exponential`), B8s (`extremal`), B8l (`losses`)
    and A5 (`outputs`); `python -m theory B8`.
    """
    _check(features, labels, weight, bias, gap)
    K = weight.shape[0]
    rows, inputs = weight.double(), features.double()
    logits = torch.nn.functional.linear(inputs, rows, None if bias is None else bias.double())
    norms, own = inputs.square().sum(dim=1), labels.long()[:, None]
    true = logits.gather(1, own).squeeze(1)
    delta = float((true - (logits.sum(dim=1) - true) / (K - 1)).mean()) if gap is None else float(gap)
    deviation = logits.scatter_add(1, own, torch.full_like(own, 1, dtype=logits.dtype) * -delta)
    omega = deviation.amax(dim=1) - deviation.amin(dim=1)

    distances = squared_distances(rows)
    if not all(bool(t.isfinite().all()) for t in (omega, norms, distances)):
        raise NonFiniteError(
            "the logits' oscillation, or squared norms of features or of rows' differences, exceed float64"
        )
    others = torch.eye(K, dtype=torch.bool, device=rows.device).logical_not()
    least = distances.where(others, torch.inf).amin(dim=1)
    most = distances.amax(dim=1)
    low, high = float(least.min()), float(most.max())

    p = logits.softmax(dim=1)
    correct = p.gather(1, own).squeeze(1)
    # Never 1 - p_y, which cancels where the loss is small.
    wrong = p.scatter(1, own, 0.0).sum(dim=1)
    both = correct * wrong
    rest = high / 2 * (K - 2) / (K - 1) * wrong.square()

    def mean(values: Tensor) -> float:
        return float((norms * values).mean())

    impurity, at_gap = gini_impurity(p), log_impurity(omega.new_tensor(delta), K)
    nearest_uniform = delta - omega.new_tensor(delta).clamp(-omega, omega)
    return FlatnessSandwich(
        kappa=mean(row_variance(p, distances)),
        gap=delta,
        oscillation=float(omega.mean()),
        nearest=math.sqrt(low),
        farthest=math.sqrt(high),
        exponential=Sides(_mean_of(low / 2, norms, at_gap - omega), _mean_of(high / 2, norms, at_gap + omega)),
        extremal=Sides(
            low / 2 * mean(least_impurity(delta, omega, K)), high / 2 * mean(log_impurity(nearest_uniform, K).exp())
        ),
        losses=Sides(mean(least[labels.long()] * both), mean(most[labels.long()] * both + rest)),
        outputs=Sides(low / 2 * mean(impurity), high / 2 * mean(impurity)),
    )


def log_impurity(gap: Float[Tensor, "*batch"], num_classes: int) -> Float[Tensor, "*batch"]:
    """log U(Delta), nats, elementwise; U = (K-1) q (2+(K-2)q)/(1+(K-1)q)^2 with q = e^-Delta, no sign overflows."""
    k = num_classes
    size = gap.abs()
    q = (-size).exp()
    above = math.log(k - 1) - size + torch.log(2 + (k - 2) * q) - 2 * torch.log1p((k - 1) * q)
    if k == 2:  # U is even
        return above
    below = math.log(k - 1) + torch.log(2 * q + (k - 2)) - 2 * torch.log(q + (k - 1))
    return torch.where(gap >= 0, above, below)


def least_impurity(gap: float, oscillation: Float[Tensor, " n"], num_classes: int) -> Float[Tensor, " n"]:
    """The least 1 - ||p||^2 of logits z for which z - Delta e_y has the given oscillation, or less.

    Args:
        gap: Delta, any finite number of nats.
        oscillation: omega >= 0 (n,).
        num_classes: K >= 2.

    Returns:
        (n,). ||p||^2 is quasi-convex in e^z, so it is largest where each logit is raised by 0 or by omega. With the
        true class raised or not and j others raised, it rises in j up to a point and falls after it.
    """
    n = num_classes - 1
    candidates = []
    for raised in (True, False):
        # All of e^z times one factor, so that nothing overflows.
        true = gap + oscillation if raised else torch.full_like(oscillation, gap)
        top = torch.maximum(true, oscillation)
        x, high, unit = (true - top).exp(), (oscillation - top).exp(), (-top).exp()
        peak = ((x + n * unit) * (high + unit) - 2 * (x * x + n * unit * unit)) / ((high - unit) * (high + unit))
        peak = peak.nan_to_num(0.0, n, 0.0).clamp(0, n).floor()
        for j in (peak, (peak + 1).clamp_max(n)):
            total = x + j * high + (n - j) * unit
            a, b = j * high / total, (n - j) * unit / total
            pairs = x / total * (a + b) + a * b
            candidates.append(2 * pairs + (j - 1) * high / total * a + (n - j - 1) * unit / total * b)
    # 0/0 only where another logit is raised by so much that it leaves nothing; raising it is surer.
    return torch.stack(candidates).nan_to_num(1.0).amin(dim=0)


def _mean_of(factor: float, norms: Tensor, exponents: Tensor) -> float:
    """mean(factor norms e^exponents), finite wherever that is: e^exponent may not be, and 0 times it is 0."""
    return float((norms.new_tensor(factor).log() + norms.log() + exponents).exp().mean())


def _check(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, gap: float | None) -> None:
    fits = features.ndim == weight.ndim == 2 and features.shape[1] == weight.shape[1]
    if not fits or labels.shape != features.shape[:1] or (bias is not None and bias.shape != weight.shape[:1]):
        raise UsageError(
            f"features (n, m), labels (n,), weight (K, m) and bias (K,) must fit, got {tuple(features.shape)}, "
            f"{tuple(labels.shape)}, {tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}"
        )
    if features.shape[0] == 0:
        raise UsageError("no samples: the flatness of nothing cannot be bounded")
    if weight.shape[0] < 2:
        raise UsageError("a head with fewer than two classes has no distance between rows")
    if labels.is_floating_point() or int(labels.min()) < 0 or int(labels.max()) >= weight.shape[0]:
        raise UsageError(f"labels must be whole numbers in [0, {weight.shape[0]})")
    numbers = [t for t in (features, weight, bias) if t is not None]
    if not all(bool(t.isfinite().all()) for t in numbers) or (gap is not None and not math.isfinite(gap)):
        raise NonFiniteError("the features, the head or the gap hold NaN or infinity")
