"""The flattest linear reparametrisation of a head: the least relative flatness that its logits allow.

An invertible A on the features and its inverse on the head, (W, h) -> (W A^{-1}, A h), leave every output as it
is and move kappa. With W~ = P W the head without its mean row, the logits W~ h alone decide how low kappa can
get: the infimum over A is the minimum over the factorisations of the logit matrix through its own rank r,

    kappa(P) = mean_i (f_i^T P f_i) Tr(B_i P^{-1}),    B_i = G^T (diag p_i - p_i p_i^T) G,    W~ h_i = G f_i,

over symmetric positive definite r x r matrices P. Along every geodesic of those it is a sum of exponentials, so
it is convex there, its minimiser is unique up to scale, and a vanishing gradient is a certificate (theory B6').
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.flatness import relative_flatness, row_variance
from grokcore.geometry import squared_distances

_LONGEST_STEP = 4.0  # of the logarithm of P in one iteration: exp stays harmless
_ROUNDING = 1e-14  # relative error of a mean over samples, with room to spare
_CENTRING = 64 * torch.finfo(torch.float64).eps  # of ||W||_F: what centring the rows leaves of equal ones


@dataclass(frozen=True)
class FlattestReparametrisation:
    """The least kappa over linear reparametrisations, and where it lies. Tensors are float64.

    Attributes:
        kappa: relative flatness of the head as given, per sample mean, nats.
        infimum: the least kappa over all invertible A; `weight` on ``features @ map.T``, with the given bias,
            has it. No head of any width with the same logits W~ h and the same outputs has less.
        attained: whether some invertible A has it: where the features, W~ and W~ H share one rank, or where
            it is 0 because there are no features or no differences between rows.
        map: (r, m), takes a feature h to the r numbers that the logits see.
        weight: (K, r), the head on these; softmax(weight map h + b) is the output of every given sample.
        full_map: (m, m), an invertible A that attains the infimum; None where none does.
        rank: r, the rank of the logits W~ H.
        gradient_norm: what is left of the Riemannian gradient of log kappa. By convexity the infimum is
            too high by a relative gradient_norm times the geodesic distance to the minimiser at most.
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
            (of W~ and H, below this share of their own norm); by default 64 eps of the features' dtype.

    Returns:
        The infimum (mean over samples, nats, unnormalised by m as kappa is), whether it is attained and the maps.
        `map` and `weight` are scaled so that ||weight||_F^2 = mean ||map h||^2. Where W~ has a larger rank than
        the logits, new samples outside the span of the given ones get other outputs from them.

    Raises:
        UsageError: shapes that do not fit, no samples, or a tolerance or a number of iterations below 0.
        NonFiniteError: NaN or infinity in the inputs, or numbers so large that kappa overflows.

    Mode: evaluation; runs in float64 without gradients on the inputs' device. Where float64 cannot tell the
    outputs from one-hot (gaps beyond 700), kappa and the infimum are 0 and no step is taken.

    Cost: n (K^2 + r^2) operations an inner step, a few dozen of them. Source: theory B6' (`python -m theory "B6'"`).
    """
    _check(features, weight, bias, tolerance, max_iterations)
    share = 64 * torch.finfo(features.dtype).eps if rank_tolerance is None else rank_tolerance
    with torch.no_grad():
        features, weight = features.detach().double(), weight.detach().double()
        bias = None if bias is None else bias.detach().double()
        kappa = float(relative_flatness(features, weight, bias))
        rows = weight - weight.mean(dim=0)
        size, least = float(features.norm()), max(share * float(rows.norm()), _CENTRING * float(weight.norm()))
        if not (math.isfinite(kappa) and math.isfinite(size * float(rows.norm()))):
            raise NonFiniteError("the features or the head hold NaN or infinity, or kappa overflows")
        left, values, right = torch.linalg.svd(features @ rows.T, full_matrices=False)
        rank = int((values > least * size).sum())
        if rank == 0:
            attained = float(rows.norm()) <= least or size == 0
            nothing, full = weight[:, :0], torch.eye(features.shape[1]).to(features) if attained else None
            return FlattestReparametrisation(kappa, 0.0, attained, nothing.T @ rows, nothing, full, 0, 0.0, 0, True)
        start = (values[:rank] / values[0]).sqrt()
        probabilities = torch.softmax(torch.nn.functional.linear(features, weight, bias), dim=1)
        frame = _Frame(
            left[:, :rank] * start,
            right[:rank].T * start,
            (right[:rank] @ rows) / (start * values[0])[:, None],
        )
        frame, gradient_norm, iterations = _minimise(frame, probabilities, tolerance, max_iterations)
        spread = (features @ frame.map.T).square().sum(dim=1).mean().sqrt()
        balance = (frame.head.norm() * values[0] / spread).sqrt()
        reduced_map, reduced_weight = frame.map * balance, frame.head * (values[0] / balance)
        infimum = float(relative_flatness(features @ reduced_map.T, reduced_weight, bias))
        full_map = _completed(features, rows, reduced_map, least, share * size)
    return FlattestReparametrisation(
        kappa,
        infimum,
        full_map is not None,
        reduced_map,
        reduced_weight,
        full_map,
        rank,
        gradient_norm,
        iterations,
        gradient_norm <= tolerance,
    )


class _Frame(NamedTuple):
    """Coordinates in which the current P is the identity: features (n, r), head (K, r) and the map there (r, m)."""

    features: Tensor
    head: Tensor
    map: Tensor

    def along(self, logarithms: Tensor, vectors: Tensor) -> _Frame:
        """The frame of P = exp(X), X symmetric with these eigenvalues and eigenvectors."""
        forth = (vectors * (logarithms / 2).exp()) @ vectors.T
        back = (vectors * (-logarithms / 2).exp()) @ vectors.T
        return _Frame(self.features @ forth, self.head @ back, forth @ self.map)


def _minimise(frame: _Frame, p: Tensor, tolerance: float, max_iterations: int) -> tuple[_Frame, float, int]:
    n, norm, iteration = len(p), math.inf, 0
    while True:
        norms = frame.features.square().sum(dim=1)
        variances = row_variance(p, squared_distances(frame.head))
        value = (norms * variances).mean()
        if float(value) < torch.finfo(torch.float64).tiny:
            return frame, 0.0, iteration
        # Both sides of the stationarity condition S_H = S_B, relative to kappa, which is the trace of each.
        scatter = (frame.features.T * (variances / (n * value))) @ frame.features
        between = frame.head.T @ _laplacian(p, norms / (n * value)) @ frame.head
        gradient = scatter - between
        before, norm = norm, float(gradient.norm())
        if norm <= tolerance or iteration == max_iterations:
            return frame, norm, iteration
        step = _newton_step(frame, p, scatter + between, gradient, float(value))
        slope = float((gradient * step).sum())
        if slope >= 0 or (-slope < _ROUNDING and norm > before / 2):
            return frame, norm, iteration
        logarithms, vectors = torch.linalg.eigh(step)
        length = min(1.0, _LONGEST_STEP / float(logarithms.abs().max()))
        while True:
            trial = frame.along(length * logarithms, vectors)
            reached = _kappa(trial, p) / value
            if float(reached) <= 1 + 1e-4 * length * slope + _ROUNDING:
                break
            length /= 2
            if length < 1e-10:
                return frame, norm, iteration
        frame, iteration = trial, iteration + 1


def _kappa(frame: _Frame, p: Tensor) -> Tensor:
    return (frame.features.square().sum(dim=1) * row_variance(p, squared_distances(frame.head))).mean()


def _newton_step(frame: _Frame, p: Tensor, both: Tensor, gradient: Tensor, value: float) -> Tensor:
    """Solve Hess[X] = -gradient by conjugate gradients; every iterate is a descent direction.

    Preconditioned by the Hessian X -> (M X + X M)/2, M = S_H + S_B, of the surrogate Tr(S_H P) + Tr(S_B P^{-1}),
    which has the same gradient and at least half of the true Hessian.
    """
    n = len(p)
    eigenvalues, vectors = torch.linalg.eigh(both)
    eigenvalues = eigenvalues.clamp_min(_ROUNDING * float(eigenvalues.max()))
    denominator = (eigenvalues[:, None] + eigenvalues) / 2

    def precondition(x: Tensor) -> Tensor:
        solved: Tensor = vectors @ ((vectors.T @ x @ vectors) / denominator) @ vectors.T
        return solved

    def hessian(x: Tensor) -> Tensor:
        heads, norms = _quadratic_distances(frame.head, x), ((frame.features @ x) * frame.features).sum(dim=1)
        mixed = (frame.features.T * (row_variance(p, heads) / (n * value))) @ frame.features
        mixed = mixed + frame.head.T @ _laplacian(p, norms / (n * value)) @ frame.head
        return _traceless((both @ x + x @ both) / 2 - mixed)

    residual = _traceless(-gradient)  # scale does not move kappa: all that is not traceless is rounding
    solution, conditioned = torch.zeros_like(residual), precondition(residual)
    direction, weighted = conditioned, float((residual * conditioned).sum())
    enough = weighted * min(0.1, max(float(gradient.norm()), 1e-6)) ** 2
    for _ in range(2 * len(gradient) + 10):
        image = hessian(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:  # rounding: the Hessian is positive semidefinite
            break
        solution = solution + weighted / curvature * direction
        residual = residual - weighted / curvature * image
        conditioned = precondition(residual)
        last, weighted = weighted, float((residual * conditioned).sum())
        if weighted <= enough:
            break
        direction = conditioned + weighted / last * direction
    step = _traceless(solution if bool(solution.any()) else precondition(-gradient))
    return (step + step.T) / 2


def _traceless(x: Tensor) -> Tensor:
    return x - torch.eye(len(x)).to(x) * (x.trace() / len(x))


def _laplacian(p: Tensor, weights: Tensor) -> Tensor:
    """sum_i weights_i (diag p_i - p_i p_i^T), (K, K); the diagonal from the rest, so nothing cancels there."""
    matrix = -(p.T * weights) @ p
    matrix.fill_diagonal_(0.0)
    return matrix - torch.diag(matrix.sum(dim=1))


def _quadratic_distances(rows: Tensor, x: Tensor) -> Tensor:
    """(g_s - g_t)^T X (g_s - g_t) of all pairs of rows, (K, K)."""
    centred = rows - rows.mean(dim=0)
    product = centred @ x @ centred.T
    own = torch.diagonal(product)
    return own[:, None] + own - 2 * product


def _completed(features: Tensor, rows: Tensor, reduced_map: Tensor, *least: float) -> Tensor | None:
    """An invertible m x m map whose first r coordinates are `reduced_map` and whose others vanish on every sample.

    There is one, and the infimum is attained, exactly where features and centred rows have the rank of the logits:
    no more than r singular values of the rows, then of the features, above `least`.
    """
    rank = len(reduced_map)
    if int((torch.linalg.svdvals(rows) > least[0]).sum()) > rank:
        return None
    _, triangle = torch.linalg.qr(features, mode="r")
    _, values, right = torch.linalg.svd(triangle, full_matrices=True)
    if int((values > least[1]).sum()) > rank:
        return None
    return torch.cat([reduced_map, right[rank:] * (reduced_map.norm() / math.sqrt(rank))])


def _check(features: Tensor, weight: Tensor, bias: Tensor | None, tolerance: float, max_iterations: int) -> None:
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise UsageError(
            f"features (n, m) and weight (K, m) must share m, got {tuple(features.shape)} and {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise UsageError(f"the bias must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    if features.shape[0] == 0 or weight.shape[0] == 0:
        raise UsageError("relative flatness of no samples or no classes is undefined")
    if not tolerance >= 0 or max_iterations < 0:
        raise UsageError(f"tolerance and max_iterations must not be negative, got {tolerance} and {max_iterations}")
    if not all(bool(torch.isfinite(given).all()) for given in (features, weight, bias) if given is not None):
        raise NonFiniteError("the features or the head hold NaN or infinity")
