"""Relative flatness of any linear or convolutional layer: exact without its Hessian, or estimated with its error.

A layer that computes a_u = W h_u + b at the positions u of a sample (one position for a plain linear layer, one a
token, one a patch of a convolution, whose flattened filters are the rows of W) has, sample by sample,

    kappa_i = sum_{u,v} <h_u, h_v> Tr(W^T d2 l_i/(da_u da_v) W)               (theory A6 where there is one position),

so curvature is needed at the pre-activations only. Where what follows the layer is piecewise linear up to the
outputs z, d2 l/da2 = J^T (d2 l/dz2) J and one Jacobian product an output is enough. Otherwise it takes one
Hessian-vector product at the pre-activations for each of rank(W) directions, times the rank of the positions' Gram
matrix. The number of weights enters neither.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from grokcore.curvature import (
    Batches,
    LossFunction,
    frozen,
    losses_of_weight,
    parameter_name,
    refuse_bad_loss,
    tensor_pairs,
)
from grokcore.errors import UsageError
from grokcore.estimators import Estimate, rademacher

_PIECEWISE = 1e-9  # relative; float64 products of a piecewise linear rest agree to rounding


def layer_relative_flatness(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str,
    *,
    method: Literal["exact", "hutchinson"] = "exact",
    probes: int = 32,
    seed: int = 0,
) -> Estimate:
    """Relative flatness kappa = sum_{s,t} <w_s, w_t> Tr(H_st) of one layer's weight, mean over all samples.

    Args:
        model: any module in eval mode (or without dropout and batch norm); it is left as it is.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch of per-sample losses.
        batches: (input, target) pairs; a batch's size is the first dimension of its target.
        layer: a module's name as in ``model.named_modules()``. "exact" takes an ``nn.Linear`` at any number of
            positions and an ``nn.Conv2d`` without groups, whose input has the samples first; "hutchinson" any
            module or parameter, whose weight is flattened to (out, everything else).
        method: "exact" (standard error 0), or "hutchinson": the mean of <WZ, H[WZ]> over Rademacher Z (theory A4).
        probes: of "hutchinson".
        seed: of "hutchinson"; the same probes for every batch.

    Returns:
        An :class:`Estimate` in float64.

    Raises:
        UsageError: an unknown layer, one that "exact" cannot take, one that is applied more than once or to samples
            that do not come first, no samples, or a model in a train mode that is random.

    Source: Petzka et al. 2021, Definition 3; for convolutions the rows are the flattened filters, as there.
    """
    if method == "exact":
        return Estimate.exact(_exact(model, loss_fn, batches, layer))
    if method == "hutchinson":
        return _hutchinson(model, loss_fn, batches, layer, probes, seed)
    raise UsageError(f"method must be 'exact' or 'hutchinson', got {method!r}")


def _exact(model: nn.Module, loss_fn: LossFunction, batches: Batches, layer: str) -> float:
    total, samples = 0.0, 0
    with frozen(model, torch.float64) as (plain, state):
        name = parameter_name(plain, layer)
        module = _single_layer(plain, name)
        weight = state[name].flatten(1)
        for x, y in tensor_pairs(batches, weight.device, torch.float64):
            run = _Run(plain, module, state, x)
            if run.layer_input.shape[0] != y.shape[0]:
                raise UsageError(
                    f"an exact value needs the samples first in what enters {layer!r}: its input has shape "
                    f"{tuple(run.layer_input.shape)} for {y.shape[0]} samples; take 'hutchinson'"
                )
            zero = torch.zeros_like(run.layer_output)
            refuse_bad_loss(partial(_loss_at, run, loss_fn, y), zero, twice=samples == 0)
            hidden = _positions(module, run.layer_input)
            total += float(_contributions(run, loss_fn, y, hidden, weight).sum())
            samples += y.shape[0]
    if samples == 0:
        raise UsageError("the relative flatness of no samples is undefined")
    return total / samples


def _single_layer(model: nn.Module, name: str) -> nn.Module:
    """The linear layer or convolution whose weight has this name, if it is its own."""
    named = dict(model.named_parameters(remove_duplicate=False))
    places = [other for other, value in named.items() if value is named[name]]
    module = model.get_submodule(name.rpartition(".")[0])
    what = f"{name} of {type(module).__name__}"
    if not name.endswith("weight") or type(module) not in (nn.Linear, nn.Conv2d):
        raise UsageError(f"an exact value needs the weight of an nn.Linear or nn.Conv2d, not {what}; take 'hutchinson'")
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise UsageError(f"an exact value needs one group and padding by zeros, unlike {what}; take 'hutchinson'")
    if len(places) > 1:
        raise UsageError(
            f"an exact value needs a weight in one place, this is in {', '.join(places)}; take 'hutchinson'"
        )
    return module


def _loss_at(run: _Run, loss_fn: LossFunction, y: Tensor, added: Tensor) -> Tensor:
    return loss_fn(run(added), y)


class _Run:
    """The model on one batch as a function of what is added to a layer's output."""

    def __init__(self, model: nn.Module, module: nn.Module, state: dict[str, Tensor], inputs: Tensor) -> None:
        self.model, self.module, self.state, self.inputs = model, module, state, inputs
        seen: list[tuple[Tensor, Tensor]] = []
        handle = module.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
        try:
            with torch.no_grad():
                torch.func.functional_call(model, state, (inputs,))
        finally:
            handle.remove()
        if len(seen) != 1:
            raise UsageError(
                f"an exact value needs a layer that is applied once, this one is applied {len(seen)} times"
            )
        self.layer_input, self.layer_output = seen[0]

    def __call__(self, added: Tensor) -> Tensor:
        handle = self.module.register_forward_hook(lambda _, given, out: out + added)
        try:
            result: Tensor = torch.func.functional_call(self.model, self.state, (self.inputs,))
        finally:
            handle.remove()
        return result


def _positions(module: nn.Module, given: Tensor) -> Tensor:
    """The inputs h_u of the layer, (n, positions, in): patches for a convolution."""
    if isinstance(module, nn.Conv2d):
        # The padding as it is applied, left, right, top and bottom: "same" may be uneven.
        given = nn.functional.pad(given, module._reversed_padding_repeated_twice)
        patches = nn.functional.unfold(given, module.kernel_size, module.dilation, 0, module.stride)
        return patches.transpose(1, 2)
    return given.reshape(given.shape[0], -1, given.shape[-1])


def _as_output(module: nn.Module, value: Tensor, out: Tensor) -> Tensor:
    """(n, positions, out) in the shape of the layer's output."""
    if isinstance(module, nn.Conv2d):
        value = value.transpose(1, 2)
    return value.reshape(out.shape)


def _from_output(module: nn.Module, value: Tensor) -> Tensor:
    """The layer's output, or a gradient in it, as (n, positions, out)."""
    if isinstance(module, nn.Conv2d):
        return value.flatten(2).transpose(1, 2)
    return value.reshape(value.shape[0], -1, value.shape[-1])


def _contributions(run: _Run, loss_fn: LossFunction, y: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """kappa_i of each sample, (n,)."""
    zero, n = torch.zeros_like(run.layer_output), y.shape[0]

    def summed(added: Tensor) -> Tensor:
        return n * loss_fn(run(added), y)

    def product(direction: Tensor) -> Tensor:
        moved: Tensor = torch.func.jvp(torch.func.grad(summed), (zero,), (direction,))[1]
        return moved

    outputs, pull = torch.func.vjp(run, zero)[:2]
    curvature = _output_curvature(loss_fn, outputs, y)
    if curvature is not None and _piecewise_linear(run, product, pull, curvature, zero):
        return _by_jacobians(run, pull, curvature, hidden, weight)
    return _by_products(run, product, hidden, weight)


def _output_curvature(loss_fn: LossFunction, outputs: Tensor, y: Tensor) -> Tensor | None:
    """d2 l_i/dz2 of each sample, (n, K, K), from K products; None where the outputs are no (n, K) matrix."""
    if outputs.ndim != 2:
        return None
    gradient = torch.func.grad(lambda z: outputs.shape[0] * loss_fn(z, y))
    basis = torch.eye(outputs.shape[1]).to(outputs)[:, None, :].expand(-1, *outputs.shape)
    columns: Tensor = torch.vmap(lambda d: torch.func.jvp(gradient, (outputs,), (d,))[1])(basis)
    return columns.permute(1, 2, 0)


def _piecewise_linear(
    run: _Run, product: Callable[[Tensor], Tensor], pull: Callable[..., Any], curvature: Tensor, zero: Tensor
) -> bool:
    """Whether the Hessian along one random direction is that of the linearised rest of the network."""
    direction = rademacher(tuple(zero.shape), 0, zero.device, zero.dtype)
    pushed = torch.func.jvp(run, (zero,), (direction,))[1]
    (linear,) = pull(torch.einsum("nkl,nl->nk", curvature, pushed))
    full = product(direction)
    return bool((full - linear).norm() <= _PIECEWISE * full.norm())


def _by_jacobians(run: _Run, pull: Callable[..., Any], curvature: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    n, classes = curvature.shape[:2]
    maps = []
    for k in range(classes):
        cotangent = torch.zeros(n, classes).to(curvature)
        cotangent[:, k] = 1
        (jacobian,) = pull(cotangent)
        seen = _from_output(run.module, jacobian) @ weight
        # One position: <h,h><J_k W, J_l W>, without the (in x in) matrix of several.
        maps.append(seen[:, 0] if hidden.shape[1] == 1 else torch.einsum("nua,nub->nab", hidden, seen).flatten(1))
    stacked = torch.stack(maps, dim=1)
    values = torch.einsum("nka,nla,nkl->n", stacked, stacked, curvature)
    return values * hidden.square().sum(dim=(1, 2)) if hidden.shape[1] == 1 else values


def _by_products(run: _Run, product: Callable[[Tensor], Tensor], hidden: Tensor, weight: Tensor) -> Tensor:
    left, sizes, _ = torch.linalg.svd(weight, full_matrices=False)
    seen = sizes > sizes.max() * max(weight.shape) * torch.finfo(weight.dtype).eps
    rows = (left * sizes).T[seen]
    values = torch.zeros(hidden.shape[0]).to(hidden)
    for factor in _gram_factors(hidden):
        for row in rows:
            direction = _as_output(run.module, factor[:, :, None] * row, run.layer_output)
            values += (direction * product(direction)).flatten(1).sum(dim=1)
    return values


def _gram_factors(hidden: Tensor) -> Tensor:
    """Vectors g_r over the positions with sum_r g_r g_r^T the Gram matrix of the inputs, (ranks, n, positions)."""
    if hidden.shape[1] == 1:
        norms: Tensor = hidden.norm(dim=2)
        return norms[None]
    if hidden.shape[2] <= hidden.shape[1]:
        return hidden.permute(2, 0, 1)
    eigenvalues, vectors = torch.linalg.eigh(hidden @ hidden.transpose(1, 2))
    factors: Tensor = vectors * eigenvalues.clamp_min(0).sqrt()[:, None, :]
    return factors.permute(2, 0, 1)


def _hutchinson(
    model: nn.Module, loss_fn: LossFunction, batches: Batches, layer: str, probes: int, seed: int
) -> Estimate:
    if probes < 1:
        raise UsageError(f"probes must be at least 1, got {probes}")
    with frozen(model, torch.float64) as (plain, state):
        name = parameter_name(plain, layer)
        weight = state.pop(name)
        rows = weight.reshape(weight.shape[0], -1)
        signs = rademacher((probes, rows.shape[1], rows.shape[1]), seed, weight.device, weight.dtype)
        directions = (rows @ signs).reshape(probes, *weight.shape)
        totals, samples = torch.zeros(probes, dtype=torch.float64), 0
        for loss, count in losses_of_weight(plain, loss_fn, batches, state, name, weight):
            for index, direction in enumerate(directions):
                moved: Tensor = torch.func.jvp(torch.func.grad(loss), (weight,), (direction,))[1]
                totals[index] += float((direction * moved).sum()) * count
            samples += count
    if samples == 0:
        raise UsageError("the relative flatness of no samples is undefined")
    return Estimate.of_probes(totals / samples, seed)
