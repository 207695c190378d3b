"""The curvature of a loss at a model's outputs z, (n, K), split into directions: d2 l_i/dz2 = sum_r w_ri c_ri c_ri^T.

A Gauss-Newton term J^T (d2 l/dz2) J then takes one Jacobian product a direction and no memory for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

_MOST = 128  # outputs; above, the eigenvectors of (n, K, K) cost more than products with the loss itself


class OutputCurvature:
    """First and second derivatives of per-sample losses at the outputs of a batch.

    Attributes:
        gradient: (n, K), d l_i/dz_i of each sample's own loss.
        directions: how many directions there are, K.
    """

    def __init__(self, gradient: Tensor, chunk: Callable[[slice], tuple[Tensor, Tensor]]) -> None:
        self.gradient, self.directions = gradient, gradient.shape[1]
        self._chunk = chunk

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """At most `size` directions at a time: vectors c_ri (size, n, K) and their weights w_ri (size, n)."""
        for start in range(0, self.directions, size):
            yield self._chunk(slice(start, min(start + size, self.directions)))


def output_curvature(loss_fn: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, target: Tensor) -> OutputCurvature:
    """The derivatives of n times the mean loss at outputs (n, K), in their dtype.

    Softmax cross-entropy of class indices is taken in closed form, sum_k p_k (e_k - p)(e_k - p)^T, which stays accurate
    however confident a sample is; autograd's 1 - p does not. Any other loss takes K products and an eigendecomposition
    a sample. Losses that mix samples are not told apart here.
    """
    if _is_cross_entropy(loss_fn, target):
        return _of_cross_entropy(outputs, target)
    return _of_any(loss_fn, outputs, target)


def affordable(loss_fn: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, target: Tensor) -> bool:
    """Whether :func:`output_curvature` takes these outputs: (n, K), and few where the loss is not known."""
    return outputs.ndim == 2 and (_is_cross_entropy(loss_fn, target) or outputs.shape[1] <= _MOST)


def _is_cross_entropy(loss_fn: object, target: Tensor) -> bool:
    if type(loss_fn) is nn.CrossEntropyLoss:
        plain = loss_fn.weight is None and loss_fn.label_smoothing == 0 and loss_fn.reduction == "mean"
        ignored = loss_fn.ignore_index
    else:
        plain, ignored = loss_fn is nn.functional.cross_entropy, -100
    return plain and target.ndim == 1 and not target.is_floating_point() and not bool((target == ignored).any())


def _of_cross_entropy(outputs: Tensor, target: Tensor) -> OutputCurvature:
    probabilities = outputs.softmax(dim=1)
    # -p off the diagonal and 1 - p on it, the latter as the mass of the other classes: nothing cancels.
    top = probabilities.argmax(dim=1, keepdim=True)
    rest = probabilities.scatter(1, top, 0.0).sum(dim=1, keepdim=True)
    missing = (1 - probabilities).scatter(1, top, rest)
    target = target.long()[:, None]
    gradient = probabilities.scatter(1, target, -missing.gather(1, target))

    def chunk(part: slice) -> tuple[Tensor, Tensor]:
        own = probabilities[:, part].T
        vectors = (-probabilities).repeat(len(own), 1, 1)
        each = torch.arange(len(own), device=own.device)
        vectors[each, :, part.start + each] = missing[:, part].T
        return vectors, own

    return OutputCurvature(gradient, chunk)


def _of_any(loss_fn: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, target: Tensor) -> OutputCurvature:
    z = outputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(len(z) * loss_fn(z, target), z, create_graph=True)
    curvature = torch.stack([_column(gradient, z, k) for k in range(z.shape[1])], dim=2)
    values, vectors = torch.linalg.eigh(curvature)
    return OutputCurvature(gradient.detach(), lambda part: (vectors[:, :, part].permute(2, 0, 1), values[:, part].T))


def _column(gradient: Tensor, z: Tensor, k: int) -> Tensor:
    """d2 l_i/(dz dz_k) of every sample, (n, K)."""
    if not gradient.requires_grad:
        return torch.zeros_like(z)
    (column,) = torch.autograd.grad(gradient[:, k].sum(), z, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if column is None else column
