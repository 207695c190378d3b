"""The flattest linear reparametrisation of a head: the least relative flatness that its logits allow.

An invertible A on the features and its inverse on the head, (W, h) -> (W A^{-1}, A h), leave every output as it
is and move kappa. With W~ = P W the head without its mean row, the logits W~ h alone decide how low kappa can
get: the infimum over A is the minimum over the factorisations of the logit matrix through its own rank r,

    kappa(P) = mean_i (f_i^T P f_i) Tr(B_i P^{-1}),    B_i = G^T (diag p_i - p_i p_i^T) G,    W~ h_i = G f_i,

over symmetric positive definite r x r matrices P. Along every geodesic of those it is a sum of exponentials, so
it is convex there, its minimiser is unique up to scale, and a small gradient bounds what is left (theory B6').
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.geodesic_newton import Frame, kappa_in, minimise, slopes_at

_CENTRING = 64 * torch.finfo(torch.float64).eps  # of ||W||_F: what centring the rows leaves of equal ones
_COARSEST = 64 * torch.finfo(torch.float32).eps  # half precision at its own rounding would keep no direction at all
_LOST = 1e-2  # nats of a logit, or this share of the largest / 1e4: more than that is no rounding


@dataclass(frozen=True)
class FlattestReparametrisation:
    """The least kappa over linear reparametrisations, and where it lies. Tensors are float64.

    Attributes:
        kappa: relative flatness of the head as given, per sample mean, nats.
        infimum: the least kappa over all invertible A; `weight` on ``features @ map.T``, with the given bias,
            has it. No head of any width with the same logits W~ h and the same outputs has less.
        attained: whether some invertible A has it: where the features, W~ and W~ H share one rank, or where
            it is 0 because there are no features or no differences between rows. Ranks are counted as
            `rank_tolerance` says, so features with noise in more than r directions do not attain it.
        map: (r, m), takes a feature h to the r numbers that the logits see.
        weight: (K, r), the head on these; softmax(weight map h + b) is the output of every given sample.
        full_map: (m, m), an invertible A that attains the infimum; None where none does.
        rank: r, the rank of the logits W~ H.
        dropped: the most, in nats, that a centred logit of a given sample loses where singular values count as 0.
        gradient_norm: of the Riemannian gradient of log kappa at `map`. By convexity the infimum is too high by
            a relative gradient_norm times the geodesic distance to the minimiser at most. Eigenvalues within
            float64 keep that distance below 3000 sqrt(r); it is a few units unless probabilities differ by many
            orders.
        iterations: Newton steps taken.
        converged: whether gradient_norm reached the tolerance.
    """

    kappa: float
    infimum: float
    attained: bool
    map: Float[Tensor, "r m"]
    weight: Float[Tensor, "K r"]
    full_map: Float[Tensor, "m m"] | None
    rank: int
    dropped: float
    gradient_norm: float
    iterations: int
    converged: bool


def flattest_reparametrisation(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 100,
    rank_tolerance: float | None = None,
) -> FlattestReparametrisation:
    """The least relative flatness over (W A^{-1}, A h), A invertible, for a softmax cross-entropy head.

    Args:
        features: inputs of the head, one row a sample, raw.
        weight: the head's weight, one row a class.
        bias: the head's bias, kept as it is.
        tolerance: stop where the Riemannian gradient of log kappa is at most this.
        max_iterations: Newton steps at most; far fewer are needed unless probabilities differ by many orders.
        rank_tolerance: a singular value of the logits W~ H below this share of ||W~||_F ||H||_F counts as zero
            (of W~ and H, below this share of their own norm), unless W~ and H have one rank and one span, which
            is that of the logits; by default 64 eps of the coarser dtype, of float32 at most.

    Returns:
        The infimum (mean over samples, nats, unnormalised by m as kappa is), whether it is attained and the maps.
        `map` and `weight` are scaled so that ||weight||_F^2 = mean ||map h||^2. Where W~ has a larger rank than
        the logits, new samples outside the span of the given ones get other outputs from them.

    Raises:
        UsageError: shapes that do not fit, no samples, a tolerance or a number of steps below 0, or logits
            so small beside W~ and H that rounding may hide more than 0.01 nats of one (not where it is
            `rank_tolerance` that drops them).
        NonFiniteError: NaN or infinity in the inputs, or numbers so large that logits or kappa overflow.

    Mode: evaluation; runs in float64 without gradients on the inputs' device. Where float64 cannot tell the
    outputs from one-hot (gaps beyond 745), kappa and the infimum are 0; where what is left of them has lost digits
    (beyond 708), no step is taken and `converged` says so.

    Cost: n (K^2 + r^2) operations an inner step, a few dozen of them. Source: theory B6' (`python -m theory "B6'"`).
    """
    _check(features, weight, bias)
    if not tolerance >= 0 or max_iterations < 0 or not (rank_tolerance is None or rank_tolerance >= 0):
        raise UsageError(
            "tolerance, max_iterations and rank_tolerance must not be negative, "
            f"got {tolerance}, {max_iterations} and {rank_tolerance}"
        )
    rounding = max(torch.finfo(given.dtype).eps for given in (features, weight))
    share = min(64 * rounding, _COARSEST) if rank_tolerance is None else rank_tolerance
    with torch.no_grad():
        # Entries near 1 neither over- nor underflow on the way, and powers of two cost no digit.
        unit, head_unit = _unit(features), _unit(weight)
        scale = unit * head_unit
        features, weight = features.detach().double() / unit, weight.detach().double() / head_unit
        logits = scale * (features @ weight.T) + (0.0 if bias is None else bias.detach().double())
        p, rows = torch.softmax(logits, dim=1), weight - weight.mean(dim=0)
        kappa = float(kappa_in(Frame(features, rows, rows), p)) * scale * scale
        if not math.isfinite(kappa):
            raise NonFiniteError("the features and the head are so large that the logits or kappa overflow")
        least, size = max(share * float(rows.norm()), _CENTRING * float(weight.norm())), float(features.norm())
        used, seen = _Span.of(features, share * size), _Span.of(rows, least)
        frame, largest, dropped = _start(features, rows, least * size, used, seen)
        dropped *= scale
        # What a person's tolerance drops is theirs to drop; what rounding may hide is not.
        by_rounding = rank_tolerance is None or least > share * float(rows.norm())
        if by_rounding and dropped > _LOST * max(1.0, 1e-4 * float(logits.abs().max())):
            raise UsageError(
                f"rounding may hide {dropped:.2g} nats of a logit: the features and the head are too large beside "
                "their product; scale every direction of both alike, use float64, or give a rank_tolerance"
            )
        gradient_norm, iterations = 0.0, 0
        rank = len(frame.map)
        if rank:
            frame, iterations = minimise(frame, p, tolerance, max_iterations)
            # The map as it is returned, not as rounding left the frame's own features.
            frame = frame._replace(features=features @ frame.map.T)
            gradient_norm = float(slopes_at(frame, p).gradient.nan_to_num(math.inf).norm())
        infimum = float(kappa_in(frame, p)) * (largest * scale) * (largest * scale)
        if infimum == 0:
            gradient_norm = 0.0  # nothing is lower
        root = math.sqrt(unit) * math.sqrt(head_unit) * math.sqrt(largest)
        spread = frame.features.square().sum(dim=1).mean().sqrt()
        balance = float((frame.head.norm() / spread).sqrt()) if rank else 1.0
        reduced_map = frame.map * (root * balance / unit)
        full_map = _completed(reduced_map, used, seen)
    return FlattestReparametrisation(
        kappa=kappa,
        infimum=infimum,
        attained=full_map is not None,
        map=reduced_map,
        weight=frame.head * (root / balance),
        full_map=full_map,
        rank=rank,
        dropped=dropped,
        gradient_norm=gradient_norm,
        iterations=iterations,
        converged=gradient_norm <= tolerance,
    )


def _unit(given: Tensor) -> float:
    """A power of two near the largest entry; 1 where there is none but 0."""
    largest = float(given.abs().max()) if given.numel() else 0.0
    return 2.0 ** max(-1000, min(1000, math.frexp(largest)[1]))


class _Span(NamedTuple):
    """Singular values and right singular vectors (all of R^m), and how many of the values are above `least`."""

    rank: int
    values: Tensor
    directions: Tensor
    least: float

    @classmethod
    def of(cls, rows: Tensor, least: float) -> _Span:
        if len(rows) > rows.shape[1]:
            _, rows = torch.linalg.qr(rows, mode="r")
        _, values, directions = torch.linalg.svd(rows, full_matrices=True)
        return cls(int((values > least).sum()), values, directions, least)

    def equals(self, other: _Span) -> bool:
        """Whether both have one rank, which is then that of the product, whatever rounding does to the weakest."""
        rank = self.rank
        if rank != other.rank or rank == 0:
            return False
        cosines = torch.linalg.svdvals(self.directions[:rank] @ other.directions[:rank].T)
        # Wedin: errors of `least` turn the weakest direction so far; no direction of one is orthogonal to the other.
        turned = self.least / self.values[rank - 1] + other.least / other.values[rank - 1]
        return bool(cosines[-1] > turned)


def _start(features: Tensor, rows: Tensor, least: float, used: _Span, seen: _Span) -> tuple[Frame, float, float]:
    """A frame of the logits through their rank, their largest singular value, and the most it drops of a logit.

    The head of the frame is in units of that value.
    """
    left, values, right = torch.linalg.svd(features @ rows.T, full_matrices=False)
    rank = int((values > least).sum())
    largest = float(values[0]) if rank else 1.0
    if used.rank > rank and used.equals(seen):
        # The product of two weak directions drowns in the logits' rounding, but they are there: frame the span itself.
        basis = used.directions[: used.rank]
        inner, outer = features @ basis.T, rows @ basis.T
        even, unit = (outer.norm(dim=0) / inner.norm(dim=0)).sqrt(), math.sqrt(largest)
        return Frame(inner * even / unit, outer / even / unit, basis * even[:, None] / unit), largest, 0.0
    lost = (left[:, rank:] * values[rank:]) @ right[rank:]
    start = (values[:rank] / largest).sqrt()
    maps = (right[:rank] @ rows) / (start * largest)[:, None]
    dropped = float(lost.abs().max()) if lost.numel() else 0.0
    return Frame(left[:, :rank] * start, right[:rank].T * start, maps), largest, dropped


def _completed(reduced_map: Tensor, used: _Span, seen: _Span) -> Tensor | None:
    """An invertible m x m map whose first r coordinates are `reduced_map` and whose others vanish on every sample.

    There is one, and the infimum is attained, exactly where features and centred rows have the rank of the logits.
    """
    rank, m = reduced_map.shape
    if min(used.rank, seen.rank) == 0:
        return torch.eye(m).to(reduced_map)
    if max(used.rank, seen.rank) > rank:
        return None
    return torch.cat([reduced_map, used.directions[rank:] * (reduced_map.norm() / math.sqrt(rank))])


def _check(features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise UsageError(
            f"features (n, m) and weight (K, m) must share m, got {tuple(features.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UsageError(f"the bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    if features.shape[0] == 0 or weight.shape[0] == 0:
        raise UsageError("relative flatness of no samples or no classes is undefined")
    if not all(bool(torch.isfinite(given).all()) for given in (features, weight, bias) if given is not None):
        raise NonFiniteError("the features or the head hold NaN or infinity")
