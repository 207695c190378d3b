"""How much a random perturbation of finite size raises the loss of a softmax head at most, by relative flatness."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import squared_distances
from grokcore.errors import NonFiniteError, UsageError

_LARGEST = math.log(torch.finfo(torch.float64).max)


class RobustnessBound(NamedTuple):
    """Two upper bounds of the expected rise of the mean cross-entropy, nats.

    Attributes:
        exponential: mean_i log E_{s ~ p_i} exp(X_is).
        flatness: (kappa d^2 / (2m)) (e^X - 1)/X, X the largest X_is; never below `exponential` but for rounding. Of
            `noise`, its own leading term takes the first factor's place.
    """

    exponential: float
    flatness: float


@torch.no_grad()
def finite_robustness_bound(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    size: float | None = None,
    noise: float | None = None,
) -> RobustnessBound:
    """Upper bounds of E_A L(h + d A h) - L(h), A a Haar-random orthogonal matrix, at any relative size d.

        E_A L(h + d A h) - L(h) <= mean_i log E_{s ~ p_i} exp(X_is) <= (kappa d^2 / (2m)) (e^X - 1)/X,
        X_is = d^2 ||h_i||^2 ||w_s - E_{p_i} w||^2 / (2m),    X = max X_is,    p_i = softmax(W h_i + b).

    The rise is never negative. One A for all samples or one for each is the same. Both bounds are also those of
    h + d Z h / sqrt(m) with independent signs or standard normal numbers Z. Noise of one size for all samples, h + s xi
    with xi standard normal, has X_is = s^2 ||w_s - E_{p_i} w||^2 / 2 and the leading term
    (s^2/2) mean_i Var_{s ~ p_i}(w_s), by the same proof.

    Args:
        features: inputs of the head (n, m), raw, from a model in eval mode.
        weight: the head's weight (K, m).
        bias: the head's bias (K,); it moves the softmax alone.
        size: d >= 0, the norm of the perturbation of h over that of h.
        noise: s >= 0, in the features' units, instead of `size`.

    Returns:
        Both bounds in nats, mean over samples, computed in float64; infinity where one exceeds the largest float.
        As d -> 0 both are kappa d^2/(2m), the rise itself. No labels enter.

    Raises:
        UsageError: no samples, shapes that do not fit, not one of size and noise, or a negative or infinite one.
        NonFiniteError: NaN, infinity or logits that are not finite.

    Source: theory E4; for its leading term A4.
    """
    return bounds(perturbation(features, weight, bias, size=size, noise=noise))


class Perturbation(NamedTuple):
    """What a softmax head makes of a perturbation of its input, float64.

    Attributes:
        log_p: log-probabilities (n, K) where nothing is perturbed.
        rows: the head's rows (K, m) in a unit that makes them of order 1.
        scales: (n,), so that the logits of sample i move by scales_i <z, rows> for a perturbation's direction z whose
            entries have mean square 1.
        exponents: X_is (n, K).
    """

    log_p: Tensor
    rows: Tensor
    scales: Tensor
    exponents: Tensor


def perturbation(
    features: Tensor, weight: Tensor, bias: Tensor | None, *, size: float | None, noise: float | None
) -> Perturbation:
    """Checked, as :func:`finite_robustness_bound` says."""
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1] or not features.numel():
        raise UsageError(
            f"features (n, m) and weight (K, m) must share m >= 1 and n >= 1, got {tuple(features.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UsageError(f"a weight of {len(weight)} rows needs a bias ({len(weight)},), got {tuple(bias.shape)}")
    name, scale = ("size", size) if noise is None else ("noise", noise)
    if scale is None or (size is not None and noise is not None):
        raise UsageError("give one of size and noise")
    if not (math.isfinite(scale) and scale >= 0):
        raise UsageError(f"{name} must be a finite number >= 0, got {scale}")
    n, m = features.shape
    wide, rows = features.double(), weight.double()
    log_p = torch.log_softmax(torch.nn.functional.linear(wide, rows, None if bias is None else bias.double()), dim=1)
    if not bool(torch.isfinite(log_p).all()):
        raise NonFiniteError("the features, the head or its logits hold NaN or infinity")
    # Squares of what is of order 1 neither overflow nor vanish.
    tall, heavy = 1.0 if size is None else _magnitude(wide), _magnitude(rows)
    p, rows = log_p.exp(), rows / heavy
    to_rows = p @ squared_distances(rows)
    # ||w_s - wbar||^2 = E_t ||w_s - w_t||^2 - Var(w), which loses no digit that the sum over s would show.
    apart = (to_rows - torch.linalg.vecdot(to_rows, p)[:, None] / 2).clamp_min(0)
    norms = wide.new_full((n,), math.sqrt(m)) if size is None else torch.linalg.vector_norm(wide / tall, dim=1)
    low, middle, high = sorted((scale, tall, heavy))  # low * high leaves float64 only where all three do
    scales = low * high * middle / math.sqrt(m) * norms
    exponents = (scales[:, None] / math.sqrt(2) * apart.sqrt()).square()
    exponents = exponents.nan_to_num(nan=0.0, posinf=math.inf)  # 0 times infinity: a sample or a row at 0
    return Perturbation(log_p, rows, scales, exponents)


def bounds(found: Perturbation) -> RobustnessBound:
    """What :func:`finite_robustness_bound` returns."""
    log_p, exponents = found.log_p, found.exponents
    # p (e^X - 1) in logarithms: neither overflows, and small values keep their digits.
    grown = log_p + exponents + torch.log(-torch.expm1(-exponents))
    over = torch.logsumexp(grown, dim=1)
    exponential = float(torch.logaddexp(over, torch.zeros_like(over)).mean())
    largest = float(exponents.max())
    if largest in (0.0, math.inf):
        return RobustnessBound(exponential, largest)
    leading = float(torch.logsumexp(log_p + torch.log(exponents), dim=(0, 1))) - math.log(len(log_p))
    logarithm = leading + largest + math.log(-math.expm1(-largest)) - math.log(largest)
    return RobustnessBound(exponential, math.inf if logarithm > _LARGEST else math.exp(logarithm))


def _magnitude(matrix: Tensor) -> float:
    # A power of two: rows that differ by little keep what differs.
    largest = float(matrix.abs().max())
    return 2.0 ** (math.frexp(largest)[1] - 1) if largest else 1.0
