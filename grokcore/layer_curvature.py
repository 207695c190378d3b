"""The curvature of the loss at the pre-activations of one layer, contracted without ever forming it.

A layer that is applied at positions u of sample i with inputs h_u and pre-activations a_u = W h_u + b has

    sum_{u,v} <h_u, h_v> Tr(F^T d2 l_i/(da_u da_v) F),

which is its relative flatness for F = W and the trace of its Hessian for F = I (theory A6 where there is one
position). With z the outputs and J = dz/da, curvature is

    d2 l/da2 = J^T (d2 l/dz2) J + sum_k (dl/dz_k) d2 z_k/da2.

The first term takes one Jacobian product an output. The second vanishes where what follows the layer is piecewise
linear; otherwise it takes one Hessian product for each column of F and each of the vectors g_q whose g_q g_q^T add up
to the Gram matrix of the positions' inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from grokcore.curvature import LossFunction
from grokcore.errors import NonFiniteError, UnsuitedLayerError
from grokcore.output_curvature import affordable, output_curvature

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_MEMORY, _MOST = 2**28, 64  # bytes for backward passes that are taken together, and how many at most


class LayerRun:
    """One forward pass of a batch with a leaf added to the layer's output, so that it can be differentiated there.

    Raises:
        UnsuitedLayerError: the layer is not applied exactly once.

    Attributes:
        given: what entered the layer.
        weight: the layer's, a leaf.
        added: zeros of its output's shape; the graph of ``outputs`` begins here.
        outputs: of the model.
        at_once: how many backward passes fit into the memory set aside, by what the graph keeps for one.
    """

    def __init__(self, model: nn.Module, name: str, state: dict[str, Tensor], inputs: Tensor) -> None:
        self.module, self._kept = model.get_submodule(name.rpartition(".")[0]), 0
        self.weight = state[name].detach().requires_grad_()
        seen: list[tuple[Tensor, Tensor]] = []

        def add(_: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], out: Tensor) -> Tensor:
            added = torch.zeros_like(out).requires_grad_()
            seen.append(((given[0] if given else named["input"]).detach().clone(), added))
            return out + added

        handle = self.module.register_forward_hook(add, with_kwargs=True)
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._keep, _unchanged):
                self.outputs = torch.func.functional_call(model, {**state, name: self.weight}, (inputs,))
        finally:
            handle.remove()
        if len(seen) != 1:
            raise UnsuitedLayerError(
                f"an exact value needs a layer that is applied once, this one is applied {len(seen)} times"
            )
        self.given, self.added = seen[0]
        self.at_once = max(1, min(_MOST, _MEMORY // max(1, self._kept)))

    def _keep(self, saved: Tensor) -> tuple[Tensor, int]:
        self._kept += saved.numel() * saved.element_size()
        return saved, saved._version

    def refuse_other_structure(self, hidden: Tensor) -> None:
        """Raise where the formula would silently be of another model; two backward passes tell.

        A random combination of the outputs has the weight's gradient sum_u g_u h_u^T only if the weight acts as W h_u
        and nowhere else; with each sample's part scaled, its gradients g_u scale alike only if no sample acts on
        another's.

        Raises:
            UnsuitedLayerError: the weight is used elsewhere too, the layer's output is not W h + b, or samples mix.
            NonFiniteError: gradients that are NaN or infinite.
        """
        n, generator = len(hidden), torch.Generator().manual_seed(0)
        tensors = [leaf for leaf in tree_leaves(self.outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
        tensors = [leaf for leaf in tensors if leaf.ndim and leaf.shape[0] % n == 0]
        if not tensors:
            raise UnsuitedLayerError("an exact value needs outputs with the samples first; take 'hutchinson'")
        scales = torch.randn(n, generator=generator, device="cpu").to(hidden)
        plain = scaled = torch.zeros((), dtype=hidden.dtype, device=hidden.device)
        for leaf in tensors:
            weights = torch.randn(leaf.shape, generator=generator, device="cpu").to(leaf)
            parts = (leaf * weights).reshape(n, -1).sum(dim=1)
            plain, scaled = plain + parts.sum(), scaled + (parts * scales).sum()
        try:
            own, of_weight = torch.autograd.grad(plain, (self.added, self.weight), retain_graph=True)
            (moved,) = torch.autograd.grad(scaled, self.added, retain_graph=True)
        except RuntimeError as error:
            raise UnsuitedLayerError(
                f"an exact value needs gradients in the layer's weight and output: {error}"
            ) from None
        if not bool(of_weight.isfinite().all()):
            raise NonFiniteError("the gradient at the layer is not finite though the loss is")
        tolerance = torch.finfo(hidden.dtype).eps ** 0.6
        predicted = torch.einsum("nuo,nui->oi", self.by_position(own), hidden).reshape(of_weight.shape)
        if not bool((of_weight - predicted).norm() <= tolerance * of_weight.norm()):
            raise UnsuitedLayerError(
                "an exact value needs a weight that acts once, as W h + b: this one is used elsewhere too, or the "
                "layer's output, or later its input, is changed; take 'hutchinson'"
            )
        own = own * scales.reshape(-1, *[1] * (own.ndim - 1))
        if not bool((moved - own).norm() <= tolerance * own.norm()):
            raise UnsuitedLayerError(
                "an exact value needs the samples first in what enters the layer, each on its own: here some act on "
                "others' outputs; take 'hutchinson'"
            )

    def inputs_of_positions(self) -> Tensor:
        """The inputs h_u of the layer, (n, positions, in): patches for a convolution."""
        given, module = self.given, self.module
        if isinstance(module, CONVOLUTIONS):
            # The padding as it is applied, left, right, top and bottom: "same" may be uneven.
            given = nn.functional.pad(given, module._reversed_padding_repeated_twice)
            size, dilation, stride = module.kernel_size, module.dilation, module.stride
            if isinstance(module, nn.Conv1d):
                given, size, dilation, stride = given[..., None], (*size, 1), (*dilation, 1), (*stride, 1)
            return nn.functional.unfold(given, size, dilation, 0, stride).transpose(1, 2)
        return given.reshape(given.shape[0], -1, given.shape[-1])

    def by_position(self, value: Tensor) -> Tensor:
        """What has the shape of the layer's output as (n, positions, out)."""
        if isinstance(self.module, CONVOLUTIONS):
            return value.flatten(2).transpose(1, 2)
        return value.reshape(value.shape[0], -1, value.shape[-1])

    def as_output(self, value: Tensor) -> Tensor:
        """(n, positions, out) in the shape of the layer's output."""
        if isinstance(self.module, CONVOLUTIONS):
            value = value.transpose(1, 2)
        return value.reshape(self.added.shape)


def _unchanged(kept: tuple[Tensor, int]) -> Tensor:
    """With hooks autograd does not look by itself whether what it saved was changed in place."""
    saved, version = kept
    if saved._version != version:
        raise RuntimeError("a tensor that its gradient needs was changed in place")
    return saved


def contraction(run: LayerRun, loss_fn: LossFunction, target: Tensor, factor: Tensor, hidden: Tensor) -> Tensor:
    """The sum above, sample by sample.

    Args:
        run: the batch.
        loss_fn: mean over the batch of per-sample losses.
        target: of the batch.
        factor: F, (out, any).
        hidden: (n, positions, any) with the positions' Gram matrix hidden hidden^T.

    Returns:
        (n,) contributions, whose mean is the quantity.
    """
    outputs, smooth = run.outputs, True
    sampled = isinstance(outputs, Tensor) and len(outputs) == len(hidden)
    if sampled and affordable(loss_fn, outputs.detach(), target):
        smooth = not _piecewise_linear(run)
        curvature = output_curvature(loss_fn, outputs.detach(), target)
        if not smooth or curvature.directions <= factor.shape[1] * hidden.shape[2]:
            values = torch.zeros(len(hidden)).to(hidden)
            for vectors, weights in curvature.chunks(run.at_once):
                pulled = _batched(outputs, run.added, vectors)
                values += (weights * _seen(run, pulled, hidden, factor)).sum(dim=0)
            if not smooth:
                return values
            return values + _products(run, (outputs * curvature.gradient).sum(), factor, hidden)
    return _products(run, len(hidden) * loss_fn(outputs, target), factor, hidden)


def _seen(run: LayerRun, pulled: Tensor, hidden: Tensor, factor: Tensor) -> Tensor:
    """|| sum_u h_u (F^T g_u)^T ||_F^2 of each sample for each of several gradients g in the layer's output, (c, n)."""
    if hidden.shape[1] == 1:
        moved = pulled.reshape(len(pulled), len(hidden), -1) @ factor
        return moved.square().sum(dim=2) * hidden.square().sum(dim=(1, 2))
    # One by one: with many positions each of them is large.
    maps = (hidden.transpose(1, 2) @ (run.by_position(one) @ factor) for one in pulled)
    return torch.stack([one.square().sum(dim=(1, 2)) for one in maps])


def _products(run: LayerRun, scalar: Tensor, factor: Tensor, hidden: Tensor) -> Tensor:
    """<d, H d> of each sample summed over the directions d, H the Hessian of `scalar` at the pre-activations."""
    values = torch.zeros(len(hidden)).to(hidden)
    gradient, probe = _twice(scalar, run.added, torch.ones_like(run.added))
    if probe is None:
        return values
    columns = _least_columns(factor[None])[0].T
    for vector in _least_columns(hidden).permute(2, 0, 1):
        for part in torch.split(columns, run.at_once):
            directions = torch.stack([run.as_output(vector[:, :, None] * column) for column in part])
            moved = _batched(gradient, run.added, directions)
            values += (directions * moved).flatten(2).sum(dim=(0, 2))
    return values


def _batched(values: Tensor, at: Tensor, cotangents: Tensor) -> Tensor:
    """Vector-Jacobian products of several cotangents (c, *values.shape): (c, *at.shape)."""
    if len(cotangents) > 1:
        try:
            rows: Tensor = torch.autograd.grad(values, at, cotangents, retain_graph=True, is_grads_batched=True)[0]
            return rows
        except RuntimeError:  # an operation that cannot be batched, or too little memory: one by one
            pass
    return torch.stack([torch.autograd.grad(values, at, one, retain_graph=True)[0] for one in cotangents])


def _twice(scalar: Tensor, at: Tensor, direction: Tensor) -> tuple[Tensor, Tensor | None]:
    """The gradient with its graph, and its derivative along a direction; None where the gradient is constant."""
    (gradient,) = torch.autograd.grad(scalar, at, create_graph=True)
    if not gradient.requires_grad:
        return gradient, None
    (moved,) = torch.autograd.grad(gradient, at, direction, retain_graph=True, allow_unused=True)
    return gradient, moved


def _piecewise_linear(run: LayerRun) -> bool:
    """Whether the outputs have no second derivative in the pre-activations.

    A random combination of the outputs is differentiated twice along a random direction: of a piecewise linear network
    that is exactly 0, of another almost surely not.
    """
    generator = torch.Generator().manual_seed(0)
    weights, direction = (
        torch.randn(x.shape, generator=generator, device="cpu").to(x) for x in (run.outputs, run.added)
    )
    _, moved = _twice((run.outputs * weights).sum(), run.added, direction)
    return moved is None or not bool(moved.any())


def _least_columns(matrices: Tensor) -> Tensor:
    """Matrices with the same A A^T and no more columns than their largest rank; (b, rows, any)."""
    if matrices.shape[1] == 1:
        norms: Tensor = matrices.norm(dim=2, keepdim=True)
        return norms
    left, sizes, _ = torch.linalg.svd(matrices, full_matrices=False)
    least = sizes[:, :1] * max(matrices.shape[1:]) * torch.finfo(sizes.dtype).eps
    columns: Tensor = (left * sizes[:, None, :])[:, :, : int((sizes > least).sum(dim=1).max())]
    return columns
