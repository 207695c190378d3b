"""Information between features and inputs: bounds from class moments alone. Estimators of it are not here yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.geometry import ClassMoments

NAN = float("nan")
_ROUNDING = 8 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class InformationBounds:
    """Upper bounds of I(Z;X|Y) in nats, each at most the next; Z = h + noise * scale * N(0, I).

    A bound whose moments were not kept is NaN, and ``reasons`` says why under its name.

    Fields:
        log_det: mean over samples of (1/2) log det(Cov_y / (noise * scale)^2 + I), each class with its own covariance.
        pooled_log_det: (1/2) log det(Sigma_W / (noise * scale)^2 + I), Sigma_W their mean over samples.
        trace: Tr Sigma_W / (2 (noise * scale)^2).
        scale: B, as given or as measured.
    """

    log_det: float
    pooled_log_det: float
    trace: float
    scale: float
    reasons: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def information_bounds(
    moments: ClassMoments,
    *,
    noise: float,
    scale: float | None = None,
    superclasses: Sequence[int] | None = None,
) -> InformationBounds:
    """Upper bounds of the information on the input that noisy features keep beyond the label, I(Z;X|Y), in nats.

    Z = h + noise * scale * N(0, I), the noise independent of input, features and label together. The bounds hold for
    every distribution with these moments, so for a draw among the samples that the moments were taken of; such a draw
    also has I(Z;X|Y) <= mean over samples of log n_y (log n_s given S), which is less where the noise is small.

    Args:
        moments: of the raw features h, from a model in eval mode. ``scatter="per_class"`` gives all three bounds,
            ``"pooled"`` the last two, ``"trace"`` the trace alone.
        noise: s > 0, the noise's standard deviation in each coordinate, in units of `scale`.
        scale: B > 0, any constant; by default the root mean square of the uncentred ||h||.
        superclasses: the super-class of each class, K integers. Then the bounds are of I(Z;X|S), and so of what Z
            tells of the class beyond its super-class, I(Z;Y|S).

    Returns:
        InformationBounds, in float64; infinity where a bound exceeds it. An eigenvalue of a covariance is known to
        about 1e-15 of the trace, which both log det count in, so that they stay bounds: where `noise` is below 1e-6 or
        so of the features' size, they are no longer close to their definitions.

    Raises:
        UsageError: an absent class, noise or scale not positive, all features zero without a `scale`, or `superclasses`
            that are not K integers.
        NonFiniteError: NaN or infinity for noise or scale.

    Source: paper B (its trace bound); theory E2, and F4 for `superclasses`.
    """
    for name, value in (("noise", noise), ("scale", scale)):
        if value is not None and not math.isfinite(value):
            raise NonFiniteError(f"{name} must be a finite number, got {value}")
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be positive, got {value}")
    K = moments.num_classes
    groups = _integers(range(K) if superclasses is None else superclasses)
    if len(groups) != K:
        raise UsageError(f"superclasses must be {K} integers, one for each class")
    if moments.absent:
        raise UsageError(f"no samples of class {moments.absent[0]}: its information cannot be bounded")
    means, centred, counts = moments.means, moments.centred_means(), moments.counts
    total = counts.sum()
    if scale is None:
        scale = math.sqrt(float((moments.within.sum() + counts @ means.square().sum(dim=1)) / total))
        if scale == 0:
            raise UsageError("all features are zero: give a scale")
    members = [torch.tensor([c for c in range(K) if groups[c] == group]) for group in dict.fromkeys(groups)]
    apart = torch.cat([_apart(centred[own], counts[own]) for own in members])
    order = torch.cat(members)
    spread = moments.within.sum() + (counts[order] @ apart.square().sum(dim=1))
    # Roots divide one by one, so that the square of a small scale does not vanish.
    root = math.sqrt(float(spread / total)) / scale / noise
    trace = root * root / 2
    values, reasons = {"log_det": NAN, "pooled_log_det": NAN}, {}
    if moments.scatter == "trace":
        reasons = dict.fromkeys(values, "moments with scatter='trace' keep no scatter matrix")
    else:
        between = (counts[order, None] * apart).T @ apart
        pooled = _half_log_det(moments.within_covariance() + between / total, scale, noise)
        values["pooled_log_det"] = min(pooled, trace)  # each is at most the next, after rounding too
        if moments.scatter == "pooled":
            reasons["log_det"] = "moments with scatter='pooled' keep no scatter of each class"
        else:
            values["log_det"] = min(_mean_log_det(moments, members, scale, noise), values["pooled_log_det"])
    return InformationBounds(**values, trace=trace, scale=scale, reasons=reasons)


def _integers(values: Sequence[int]) -> list[int]:
    """The values as integers, whatever the type that holds them; none where one is not an integer."""
    try:
        return [index(value) for value in values]
    except TypeError:
        return []


def _apart(means: Float[Tensor, "k m"], counts: Float[Tensor, " k"]) -> Float[Tensor, "k m"]:
    """Class means minus their mean over the samples of their super-class."""
    off = means - means[0]
    return off - (counts @ off) / counts.sum()


def _mean_log_det(moments: ClassMoments, members: list[Tensor], scale: float, noise: float) -> float:
    scatter, centred, counts = moments.scatter_sum, moments.centred_means(), moments.counts
    found = 0.0
    for own in members:
        apart, size = _apart(centred[own], counts[own]), counts[own].sum()
        covariance = (scatter[own].sum(dim=0) + (counts[own, None] * apart).T @ apart) / size
        found += float(size / counts.sum()) * _half_log_det(covariance, scale, noise)
    return found


def _half_log_det(covariance: Tensor, scale: float, noise: float) -> float:
    """(1/2) log det(Cov / (scale noise)^2 + I): log(1 + x) of each eigenvalue from log x, which never overflows."""
    lost = _ROUNDING * covariance.diagonal().clamp_min(0).sum()
    roots = (torch.linalg.eigvalsh(covariance).clamp_min(0) + lost).sqrt()
    logs = 2 * (roots.log() - math.log(scale) - math.log(noise))
    return float(torch.logaddexp(logs, torch.zeros_like(logs)).sum()) / 2
