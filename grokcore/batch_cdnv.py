"""The CDNV of a batch as a penalty: differentiable any number of times, its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from grokcore.distances import squared_distances

_CLOSEST = 1e-6


def cdnv(
    features: Float[Tensor, "n m"], labels: Integer[Tensor, " n"], num_classes: int | None = None
) -> Float[Tensor, ""]:
    """Class-distance normalised variance of a batch, differentiable (Galanti, Gyorgy, Hutter 2022).

    Mean over the ordered pairs (c, c') of classes present in the batch of
    (V_c + V_c') / (2 ||mu_c - mu_c'||^2), V_c the mean squared distance to the batch's own mean mu_c. With
    n samples a class it saturates near (n - 1)/2 as the true means merge.

    Args:
        features: (n, m); half precision is computed in float32.
        labels: (n,) integers in [0, num_classes); a range check would wait for the device, so there is none.
        num_classes: K; if not given it is read off the labels, which waits for the device.

    Raises:
        ValueError: shapes that do not fit, or labels that are no integers.

    Returns:
        A scalar, 0 with zero gradient where fewer than two classes are present. Two means closer than 1e-6
        of the root mean square distance of the means count as that far apart and get no gradient from
        their distance, so that a batch in which two means coincide gives a large, finite number.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or labels.is_floating_point():
        shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"cdnv takes features (n, m) and integer labels (n,), got {shapes} of {labels.dtype}")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if labels.numel() else 2
    if torch.is_grad_enabled() and features.requires_grad and not torch.compiler.is_compiling():
        try:
            value: Tensor = _WithGradient.apply(features, labels, num_classes)  # type: ignore[no-untyped-call]
            return value
        except RuntimeError:  # function transforms and forward mode want operations that they know
            pass
    return _Batch(features, labels, num_classes).value()


class _Batch:
    """The steps of the formula; on features with a graph each can be differentiated."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        self.dtype, self.labels = wide.dtype, labels.long()
        # Masks and averages as numbers: boolean broadcasts cost more than everything else here.
        own = wide.new_zeros(num_classes, len(labels)).scatter(0, self.labels[None], 1.0)
        counts = own.sum(dim=1)
        self.share = counts.clamp_min(1)
        average = own / self.share[:, None]
        # A common shift changes nothing and keeps float32 accurate.
        wide = wide - wide.detach().mean(dim=0)
        self.means = average @ wide
        self.residuals = wide - self.means.index_select(0, self.labels)
        self.variances = (average @ torch.linalg.vecdot(self.residuals, self.residuals)).double()
        present = (counts > 0).double()
        self.pairs = torch.outer(present, present).fill_diagonal_(0)
        self.number = self.pairs.sum().clamp_min(1)
        self.distances = squared_distances(self.means)
        # The floor keeps the value and its gradient finite where two means of the batch coincide, or all of them do.
        spread = (self.distances.detach() * self.pairs).sum() / self.number
        floor = _CLOSEST**2 * torch.where(spread > 0, spread, self.variances.detach().mean())
        self.floor = torch.where(floor > 0, floor, 1.0)
        self.inverse = self.pairs / torch.maximum(self.distances, self.floor)

    def value(self) -> Tensor:
        # Over ordered pairs the sum of (V_c + V_c') / (2 d^2) is the sum of V_c / d^2.
        return (torch.dot(self.variances, self.inverse.sum(dim=1)) / self.number).to(self.dtype)

    def gradient(self) -> Tensor:
        """dCDNV/dh, (n, m): 2 a_c (h - mu_c)/n_c with a_c = sum_k 1/d_ck^2, and a force between the means."""
        apart = (self.distances > self.floor).double() * self.inverse.square() / self.number
        force = apart * (self.variances[:, None] + self.variances[None, :])
        pull = (2 * (force - torch.diag(force.sum(dim=1)))).to(self.dtype) @ self.means / self.share[:, None]
        slope = (2 * self.inverse.sum(dim=1) / self.number).to(self.dtype) / self.share
        rows = self.residuals * slope.index_select(0, self.labels)[:, None]
        return rows.add_(pull.index_select(0, self.labels))


class _WithGradient(torch.autograd.Function):
    """Value and gradient in one pass without a graph; a second derivative goes back to the formula's own graph."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        batch = _Batch(features, labels, num_classes)
        ctx.save_for_backward(features, labels, batch.gradient().to(features.dtype))
        ctx.num_classes = num_classes
        return batch.value()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        features, labels, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            value = _Batch(features, labels, ctx.num_classes).value()
            (gradient,) = torch.autograd.grad(value, features, create_graph=True)
        return grads[0].to(gradient.dtype) * gradient, None, None
