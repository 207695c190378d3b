"""The Hessian and the Gauss-Newton matrix of a mean loss as matrices that are never formed: their products.

A product goes reverse over reverse: the gradient's graph is built once a batch and pulled back along many columns at
once. Against forward over reverse (PyTorch 2.13, one thread, float64, 1 to 128 columns) that takes 0.6 to 0.9 of the
time on MLPs and 0.95 to 1.25 on a small CNN; and forward over reverse, batched, drops the mixed derivatives of a layer
norm's weight and what enters it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grokcore.curvature import LossFunction, parameter_name, refuse_bad_values, refuse_no_mean
from grokcore.errors import NonFiniteError, UsageError
from grokcore.frozen import Batches, frozen, tensor_pairs
from grokcore.loaders import is_one_shot

State = dict[str, Tensor]

_MEMORY = 2**29  # bytes of activations that the columns of one chunk may take
_PASSES = 4  # how often a column of a second derivative holds what the forward pass saves


class CurvatureOperator(ABC):
    """A symmetric matrix over the flat vector of some parameters, of the mean loss over all samples.

    ``operator @ v`` takes (dim,) or (dim, k) and gives the same shape, in the operator's dtype and on the model's
    device; parameters are flattened and concatenated in the order of ``model.named_parameters()``, tied ones once.

    The model is read anew at each product, and left as it is: parameters, buffers, modes, gradients, on errors too.
    Everything is evaluated on detached copies, without a compiler and with the MATH attention kernel, as by
    :func:`grokcore.exact_hessian`.

    Args:
        model: any module that takes one tensor, in eval mode where it has dropout or batch norm.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch.
        batches: (input, target) pairs of tensors that can be iterated again and again, in any order and grouping; the
            matrix is that of the mean over all samples, whatever the batch sizes. Each product takes one pass and the
            construction another.
        layer: a module's name, whose ``weight`` is meant, or a parameter's; None takes every parameter that requires
            a gradient.
        dtype: floating inputs, targets, parameters and buffers are converted to it.
        chunk_size: columns at once; by default as many as keep the activations of one chunk below about 512 MiB.

    Attributes:
        dim, shape, dtype, device: of the matrix.
        names: the parameters, in their order in the flat vector.
        samples: their number.
        chunk_size: columns at once.

    Raises:
        UsageError: what :func:`grokcore.exact_hessian` refuses; an iterator, which is exhausted after one pass;
            no parameter that requires a gradient; a vector of another size; samples or mean loss that differ from
            those of the first pass (an exhausted or random loader, or a model that was trained in between).
        NonFiniteError: a loss, a vector or a product that is NaN or infinite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        batches: Batches,
        layer: str | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        chunk_size: int | None = None,
    ) -> None:
        if is_one_shot(batches):
            raise UsageError(
                f"{type(self).__name__} reads the batches more than once; pass a list or a DataLoader, "
                f"not a {type(batches).__name__}"
            )
        if chunk_size is not None and chunk_size < 1:
            raise UsageError(f"chunk_size must be at least 1, got {chunk_size}")
        self._model, self._loss_fn, self._batches, self.dtype = model, loss_fn, batches, dtype
        with frozen(model, dtype) as (plain, state):
            self.names = _chosen(plain, layer)
            values = [state[name] for name in self.names]
            if any(value.is_complex() for value in values):
                raise UsageError("some parameters are complex: curvature is taken in real ones")
            self._shapes = [value.shape for value in values]
            self.dim, self.device = sum(value.numel() for value in values), values[0].device
            saved = self._first_pass(plain, state)
        limit = max(1, _MEMORY // (_PASSES * saved + self.dim * values[0].element_size()))
        self.chunk_size = chunk_size or min(limit, self.dim)

    @property
    def shape(self) -> tuple[int, int]:
        """(dim, dim)."""
        return self.dim, self.dim

    @torch.inference_mode(mode=False)
    def __matmul__(self, vectors: Float[Tensor, "dim ..."]) -> Float[Tensor, "dim ..."]:
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.dim:
            raise UsageError(
                f"a product takes shape ({self.dim},) or ({self.dim}, k), not {tuple(vectors.shape)}: one number for "
                f"each of the parameters"
            )
        columns = vectors.detach().to(self.device, self.dtype).clone()  # of inference mode no more
        if not bool(columns.isfinite().all()):
            raise NonFiniteError("the vector of a product is not finite")
        result = self._product(columns if vectors.ndim == 2 else columns[:, None])
        if not bool(result.isfinite().all()):
            raise NonFiniteError("a product is not finite though the loss is: it has no second derivative there")
        return result if vectors.ndim == 2 else result[:, 0]

    def dense(self) -> Float[Tensor, "dim dim"]:
        """The matrix itself, for small ones: dim passes through the data divided by `chunk_size`, dim^2 numbers."""
        columns = [self @ self.basis(start) for start in range(0, self.dim, self.chunk_size)]
        return torch.cat(columns, dim=1)

    def basis(self, start: int) -> Float[Tensor, "dim k"]:
        """The basis vectors from one on, as many as are taken at once."""
        stop = min(start + self.chunk_size, self.dim)
        block = torch.zeros(self.dim, stop - start, dtype=self.dtype, device=self.device)
        block[start:stop].fill_diagonal_(1)
        return block

    @abstractmethod
    def _linearised(
        self, net: Callable[[State], Any], loss_of: Callable[[Any], Tensor], state: State
    ) -> tuple[Tensor, Callable[[State], State]]:
        """One batch's mean loss, and the product of its matrix with one vector, the parameters' names its keys."""

    def _product(self, columns: Tensor) -> Tensor:
        total, samples, mean = torch.zeros_like(columns), 0, 0.0
        # One row a vector: the batched dimension comes first.
        split = torch.split(columns.T, [shape.numel() for shape in self._shapes], dim=1)
        rows = {
            name: part.reshape(-1, *shape) for name, part, shape in zip(self.names, split, self._shapes, strict=True)
        }
        with frozen(self._model, self.dtype) as (plain, state), torch.enable_grad():
            weights = {name: state.pop(name) for name in self.names}
            for x, y in tensor_pairs(self._batches, self.device, self.dtype):
                net, loss_of = _functions(plain, self._loss_fn, state, x, y)
                loss, product = self._linearised(net, loss_of, weights)
                found = torch.vmap(product, chunk_size=self.chunk_size)(rows)
                parts = [found[name].detach().reshape(columns.shape[1], -1) for name in self.names]
                total += torch.cat(parts, dim=1).T * y.shape[0]
                samples, mean = samples + y.shape[0], mean + float(loss) * y.shape[0]
        self._require_same(samples, mean)
        return total / samples

    def _first_pass(self, plain: nn.Module, state: State) -> int:
        """Checks every batch's loss and keeps samples and mean; the most bytes that a forward pass saves."""
        weights = {name: state[name] for name in self.names}
        self.samples, self._sum, self._scale, most = 0, 0.0, 0.0, 0
        for index, (x, y) in enumerate(tensor_pairs(self._batches, self.device, self.dtype)):
            net, loss_of = _functions(plain, self._loss_fn, state, x, y)
            loss, outputs, saved = _saved(net, loss_of, weights)
            with torch.no_grad():
                refuse_bad_values([loss, loss_of(net(weights))] if index == 0 else [loss])
            refuse_no_mean(self._loss_fn, outputs, y)
            self._sum += float(loss) * y.shape[0]
            self._scale += abs(float(loss)) * y.shape[0]
            self.samples, most = self.samples + y.shape[0], max(most, saved)
        if self.samples == 0:
            raise UsageError("the curvature of no samples is undefined")
        return most

    def _require_same(self, samples: int, mean: float) -> None:
        if samples != self.samples:
            raise UsageError(
                f"the batches held {self.samples} samples at first and {samples} now; pass a list or a DataLoader "
                "that gives the same ones every time"
            )
        if not abs(mean - self._sum) <= math.sqrt(torch.finfo(self.dtype).eps) * self._scale:
            raise UsageError(
                f"the mean loss was {self._sum / samples:.9g} at first and is {mean / samples:.9g} now: the batches "
                "are not the same ones every time, or the model has changed"
            )


class HessianOperator(CurvatureOperator):
    """The Hessian of the mean loss, (1/n) sum_i d2 l_i/dtheta2: see :class:`CurvatureOperator`.

    Source: Pearlmutter 1994, for the product.
    """

    def _linearised(
        self, net: Callable[[State], Any], loss_of: Callable[[Any], Tensor], state: State
    ) -> tuple[Tensor, Callable[[State], State]]:
        def gradient(weights: State) -> tuple[State, Tensor]:
            found: tuple[State, Tensor] = torch.func.grad_and_value(lambda w: loss_of(net(w)))(weights)
            return found

        # torch's annotations know vjp without has_aux only.
        made: Any = torch.func.vjp(gradient, state, has_aux=True)
        _, pull, loss = made
        return loss, lambda row: pull(row)[0]


class GaussNewtonOperator(CurvatureOperator):
    """The generalised Gauss-Newton matrix (1/n) sum_i J_i^T (d2 l_i/dz_i2) J_i: see :class:`CurvatureOperator`.

    z is the model's output, of any shape with the samples first, and J its derivative in the parameters. It is the
    Hessian of the network's linearisation, positive semidefinite where the loss is convex in z (which is not
    required), and the Hessian itself where z is piecewise linear in the parameters.

    Raises:
        UsageError: besides what every operator refuses, a model whose output is not one tensor.

    Source: Schraudolph 2002; Martens 2020, section 8.1.
    """

    def _linearised(
        self, net: Callable[[State], Any], loss_of: Callable[[Any], Tensor], state: State
    ) -> tuple[Tensor, Callable[[State], State]]:
        def tensor(weights: State) -> Tensor:
            outputs = net(weights)
            if not isinstance(outputs, Tensor):
                raise UsageError(f"Gauss-Newton needs a model whose output is one tensor, not {type(outputs).__name__}")
            return outputs

        made: Any = torch.func.vjp(tensor, state)
        outputs, pull = made
        made = torch.func.vjp(torch.func.grad_and_value(loss_of), outputs, has_aux=True)
        _, curve, loss = made

        def product(row: State) -> State:
            moved = torch.func.jvp(tensor, (state,), (row,))[1]
            found: State = pull(curve(moved)[0])[0]
            return found

        return loss, product


def _chosen(model: nn.Module, layer: str | None) -> list[str]:
    if layer is not None:
        return [parameter_name(model, layer)]
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    if not names:
        raise UsageError("no parameter of the model requires a gradient; name a layer")
    return names


def _functions(
    model: nn.Module, loss_fn: LossFunction, state: State, x: Tensor, y: Tensor
) -> tuple[Callable[[State], Any], Callable[[Any], Tensor]]:
    """The outputs of one batch as a function of some parameters, and its mean loss as one of the outputs."""

    def net(weights: State) -> Any:
        return torch.func.functional_call(model, {**state, **weights}, (x,))

    return net, lambda outputs: loss_fn(outputs, y)


def _saved(net: Callable[[State], Any], loss_of: Callable[[Any], Tensor], weights: State) -> tuple[Tensor, Any, int]:
    """The loss, the outputs, and the bytes that the backward pass keeps."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.data_ptr()] = value.numel() * value.element_size()
        return value

    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        outputs = net(leaves)
        loss = loss_of(outputs)
    return loss.detach() if isinstance(loss, Tensor) else loss, outputs, sum(kept.values())
