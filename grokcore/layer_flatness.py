"""Relative flatness of any layer: exact from curvature at its pre-activations, or estimated from any weight."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from grokcore.curvature import LossFunction, parameter_name, refuse_bad_values, refuse_no_mean
from grokcore.errors import NonFiniteError, UnsuitedLayerError, UsageError
from grokcore.estimators import Estimate, signs
from grokcore.frozen import Batches, frozen, tensor_pairs
from grokcore.heads import uncompiled
from grokcore.layer_curvature import CONVOLUTIONS, LayerRun, contraction
from grokcore.operators import HessianOperator

_NUMBERS = 2**25  # in the directions that are taken together


def layer_relative_flatness(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str,
    *,
    method: Literal["exact", "hutchinson"] = "exact",
    probes: int = 32,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Estimate:
    """Relative flatness kappa = sum_{s,t} <w_s, w_t> Tr(H_st) of one layer's weight, mean over all samples.

    Args:
        model: any module in eval mode (or without dropout and batch norm); it is left as it is.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch of per-sample losses.
        batches: (input, target) pairs; a batch's size is the first dimension of its target. "hutchinson" reads them
            twice, so give it a list or a DataLoader.
        layer: a module's name as in ``model.named_modules()``. "exact" takes an ``nn.Linear`` at any number of
            positions and an ``nn.Conv1d`` or ``nn.Conv2d`` without groups, whose input has the samples first;
            "hutchinson" any module or parameter, whose weight is flattened to (out, everything else).
        method: "exact" (standard error 0), or "hutchinson": the mean of <WZ, H[WZ]> over Rademacher Z (theory A4).
        probes: of "hutchinson".
        seed: of "hutchinson".
        dtype: of the model's copy and of every product; sums are float64. In float32 it is faster and good to about
            5 digits.

    Returns:
        An :class:`Estimate`.

    Raises:
        UsageError: an unknown layer, no samples, a loss that is no mean over samples, a model in a train mode that is
            random; for "exact" (as UnsuitedLayerError) a layer of another kind, one that is applied more than once, a
            weight that is used elsewhere too, samples that do not come first or act on each other.
        NonFiniteError: a loss or a second derivative that is NaN or infinite.

    Cost of "exact", a batch: one Jacobian product an output where the rest of the network is piecewise linear, which is
    found out and not assumed; otherwise rank(W) Hessian products at the pre-activations, times the rank of the
    positions' Gram matrix. The number of weights enters neither. As many backward passes are taken together as fit into
    256 MiB.

    Source: Petzka et al. 2021, Definition 3; for convolutions the rows are the flattened filters, as there (theory A6).
    """
    if method == "exact":
        return Estimate.exact(layer_curvature(model, loss_fn, batches, layer, dtype, contracted=True))
    if method == "hutchinson":
        return _hutchinson(model, loss_fn, batches, layer, probes, seed, dtype)
    raise UsageError(f"method must be 'exact' or 'hutchinson', got {method!r}")


def layer_curvature(
    model: nn.Module, loss_fn: LossFunction, batches: Batches, layer: str, dtype: torch.dtype, *, contracted: bool
) -> float:
    """Relative flatness of a layer (`contracted` with its weight), or the trace of its weight's Hessian.

    Raises:
        UsageError: as :func:`layer_relative_flatness`.
    """
    total, samples = 0.0, 0
    with frozen(model, dtype) as (plain, state):
        name = parameter_name(plain, layer)
        refuse_unsuited(plain, name)
        weight = state[name].flatten(1)
        factor = _fewest_columns(weight) if contracted else torch.eye(len(weight)).to(weight)
        for x, y in tensor_pairs(batches, weight.device, dtype):
            run = LayerRun(plain, name, state, x.clone())  # a model may change its input
            if run.given.shape[0] != y.shape[0]:
                raise UnsuitedLayerError(
                    f"an exact value needs the samples first in what enters {layer!r}: its input has shape "
                    f"{tuple(run.given.shape)} for {y.shape[0]} samples; take 'hutchinson'"
                )
            values = [loss_fn(run.outputs, y)]
            if samples == 0:
                with torch.no_grad():
                    values.append(loss_fn(torch.func.functional_call(plain, state, (x,)), y))
            refuse_bad_values(values)
            if not values[0].requires_grad:
                raise UsageError(f"no gradient of the loss reaches layer {layer!r}: unused, or its output is detached")
            refuse_no_mean(loss_fn, run.outputs, y)
            hidden = run.inputs_of_positions()
            run.refuse_other_structure(hidden)
            total += float(contraction(run, loss_fn, y, factor, hidden).double().sum())
            samples += y.shape[0]
    if samples == 0:
        raise UsageError("the curvature of no samples is undefined")
    if not math.isfinite(total):
        raise NonFiniteError(f"the curvature in {name} is not finite though the loss is: no second derivative there")
    return total / samples


def refuse_unsuited(model: nn.Module, name: str) -> None:
    """Raise where this parameter is not the weight of one linear layer or convolution alone.

    Raises:
        UnsuitedLayerError: another kind of parameter or layer, or a weight in several places.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    places = [other for other, value in named.items() if value is named[name]]
    module = model.get_submodule(name.rpartition(".")[0])
    what = f"{name} of {type(module).__name__}"
    if not name.endswith("weight") or not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        raise UnsuitedLayerError(
            f"an exact value needs the weight of an nn.Linear, nn.Conv1d or nn.Conv2d, not {what}; take 'hutchinson'"
        )
    if isinstance(module, CONVOLUTIONS) and (module.groups != 1 or module.padding_mode != "zeros"):
        raise UnsuitedLayerError(
            f"an exact value needs one group and padding by zeros, unlike {what}; take 'hutchinson'"
        )
    if len(places) > 1:
        raise UnsuitedLayerError(
            f"an exact value needs a weight in one place, this is in {', '.join(places)}; take 'hutchinson'"
        )


def _fewest_columns(weight: Tensor) -> Tensor:
    """F with F F^T = W W^T and at most as many columns as rows."""
    if weight.shape[1] <= weight.shape[0]:
        return weight
    triangle: Tensor = torch.linalg.qr(weight.T, mode="r")[1]
    return triangle.T


def _hutchinson(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str,
    probes: int,
    seed: int,
    dtype: torch.dtype,
) -> Estimate:
    if probes < 1:
        raise UsageError(f"probes must be at least 1, got {probes}")
    operator = HessianOperator(model, loss_fn, batches, layer, dtype=dtype)
    weight = dict(uncompiled(model).named_parameters())[operator.names[0]].detach().to(dtype)
    if weight.ndim == 0:
        raise UsageError(f"{layer!r} has no rows")
    rows = weight.reshape(weight.shape[0], -1)
    generator = torch.Generator().manual_seed(seed)
    at_once, values = max(1, _NUMBERS // operator.dim), []
    for start in range(0, probes, at_once):
        # One matrix of signs at a time: of a wide layer each is large.
        drawn = (signs((rows.shape[1],) * 2, generator, rows.device, dtype) for _ in range(start, probes)[:at_once])
        columns = torch.stack([(rows @ matrix).flatten() for matrix in drawn], dim=1)
        values.append((columns * (operator @ columns)).sum(dim=0, dtype=torch.float64))
    return Estimate.of_probes(torch.cat(values), seed)
