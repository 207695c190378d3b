"""Minimising relative flatness over coordinates: Newton's method along geodesics of positive definite matrices.

The solver of :mod:`grokcore.factorisation`. P = A^T A is never formed: a frame holds features and head in the
coordinates in which it is the identity, so nothing is inverted and the gradient is that at the identity.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from grokcore.distances import squared_distances
from grokcore.flatness import row_variance

_LONGEST_STEP = 4.0  # of the logarithm of P in one iteration: exp stays harmless
_ROUNDING = 1e-14  # relative error of a mean over samples, with room to spare


class Frame(NamedTuple):
    """Coordinates in which the current P is the identity: features (n, r), head (K, r) and the map there (r, m)."""

    features: Tensor
    head: Tensor
    map: Tensor

    def along(self, logarithms: Tensor, vectors: Tensor) -> Frame:
        """The frame of P = exp(X), X symmetric with these eigenvalues and eigenvectors."""
        forth = (vectors * (logarithms / 2).exp()) @ vectors.T
        back = (vectors * (-logarithms / 2).exp()) @ vectors.T
        return Frame(self.features @ forth, self.head @ back, forth @ self.map)


class Slopes(NamedTuple):
    """kappa and both sides of the stationarity condition S_H = S_B, relative to kappa, which is the trace of each."""

    value: Tensor
    scatter: Tensor
    between: Tensor

    @property
    def gradient(self) -> Tensor:
        """The Riemannian gradient of log kappa at this frame, symmetric (r, r)."""
        return self.scatter - self.between


def slopes_at(frame: Frame, p: Tensor) -> Slopes:
    """The slopes of a frame under the softmax outputs p (n, K)."""
    norms = frame.features.square().sum(dim=1)
    variances = row_variance(p, squared_distances(frame.head))
    value = (norms * variances).mean()
    shares = len(p) * value
    scatter = (frame.features.T * (variances / shares)) @ frame.features
    return Slopes(value, scatter, frame.head.T @ _laplacian(p, norms / shares) @ frame.head)


def minimise(frame: Frame, p: Tensor, tolerance: float, max_iterations: int) -> tuple[Frame, int]:
    """The frame where the gradient's norm is at most `tolerance`, or the last one reached, and the steps taken."""
    norm, iteration = math.inf, 0
    while True:
        slopes = slopes_at(frame, p)
        value, gradient = slopes.value, slopes.gradient
        if float(value) < torch.finfo(torch.float64).tiny:
            return frame, iteration
        before, norm = norm, float(gradient.norm())
        if norm <= tolerance or iteration == max_iterations:
            return frame, iteration
        step = _newton_step(frame, p, slopes.scatter + slopes.between, gradient, float(value))
        slope = float((gradient * step).sum())
        if slope >= 0 or (-slope < _ROUNDING and norm > before / 2):
            return frame, iteration
        logarithms, vectors = torch.linalg.eigh(step)
        length = min(1.0, _LONGEST_STEP / float(logarithms.abs().max()))
        while True:
            trial = frame.along(length * logarithms, vectors)
            reached = kappa_in(trial, p) / value
            if float(reached) <= 1 + 1e-4 * length * slope + _ROUNDING:
                break
            length /= 2
            if length < 1e-10:
                return frame, iteration
        frame, iteration = trial, iteration + 1


def kappa_in(frame: Frame, p: Tensor) -> Tensor:
    """Relative flatness of a frame's head on its features, where the outputs are p (n, K); a scalar."""
    return (frame.features.square().sum(dim=1) * row_variance(p, squared_distances(frame.head))).mean()


def _newton_step(frame: Frame, p: Tensor, both: Tensor, gradient: Tensor, value: float) -> Tensor:
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
