"""Exact Hessians of small models, and the guards that keep them right.

A Hessian is taken in float64 on detached copies of the parameters, never of a compiled module (the
compiler is known to get a Hessian that contains a trace wrong) and always with the MATH attention kernel:
fused attention has no second derivative on every device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grokcore.errors import NonFiniteError, UsageError
from grokcore.frozen import Batches, frozen, tensor_pairs

LossFunction = Callable[[Any, Any], Tensor]


def exact_hessian(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Batches,
    layer: str,
    *,
    dtype: torch.dtype = torch.float64,
    chunk_size: int | None = None,
) -> Float[Tensor, ...]:
    """The dense Hessian of the mean loss with respect to one weight, by forward-over-reverse differentiation.

    Args:
        model: any module that takes one tensor; its parameters, buffers and mode are left as they are.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch. It is called more than once a batch.
        batches: (input, target) pairs of tensors. The Hessian is that of the mean over all samples, whatever the
            batch sizes; a batch's size is the first dimension of its target, and an empty one adds nothing.
        layer: a module's name as in ``model.named_modules()``, whose ``weight`` is meant, or a parameter's name.
            A tied weight goes by each of its names and is differentiated in all its places.
        dtype: floating inputs, targets, parameters and buffers are converted to it.
        chunk_size: how many columns to take at once; all of them by default. Memory grows with it.

    Returns:
        Shape ``(*weight.shape, *weight.shape)``, on the weight's device.

    Raises:
        UsageError: an unknown layer or a complex one, no samples, a batch that is no pair of tensors, a module in
            train mode that is random or moves its statistics there (dropout, batch norm, spectral norm), a loss
            that is not one number, one that two evaluations do not agree on, or one that is no mean over samples; a
            Hessian larger than the machine's memory.
        NonFiniteError: a loss or a second derivative that is NaN or infinite.
    """
    with frozen(model, dtype) as (model, state):
        name = parameter_name(model, layer)
        weight = state.pop(name)
        if weight.is_complex():
            raise UsageError(f"{name} is complex: a Hessian is taken in real weights")
        _refuse_too_large(name, weight)
        total, samples = torch.zeros((*weight.shape, *weight.shape), dtype=dtype, device=weight.device), 0
        for loss, count in losses_of_weight(model, loss_fn, batches, state, name, weight):
            total += _forward_over_reverse(loss, weight, chunk_size) * count
            samples += count
    if samples == 0:
        raise UsageError("the Hessian of no samples is undefined")
    if not bool(total.isfinite().all()):
        raise NonFiniteError(
            f"the Hessian in {name} is not finite though the loss is: it has no second derivative there"
        )
    return total / samples


def losses_of_weight(
    model: nn.Module, loss_fn: LossFunction, batches: Batches, state: dict[str, Tensor], name: str, weight: Tensor
) -> Iterator[tuple[Callable[[Tensor], Tensor], int]]:
    """Each batch's mean loss as a function of one weight, and its samples; `state` holds everything else.

    Raises:
        UsageError, NonFiniteError: a batch or a loss that cannot be differentiated, as :func:`exact_hessian` says.
    """
    for index, (x, y) in enumerate(tensor_pairs(batches, weight.device, weight.dtype)):

        def loss(w: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return loss_fn(torch.func.functional_call(model, {**state, name: w}, (x,)), y)

        with torch.no_grad():
            outputs = torch.func.functional_call(model, {**state, name: weight}, (x,))
            refuse_bad_values([loss_fn(outputs, y), *([loss(weight)] if index == 0 else [])])
        refuse_no_mean(loss_fn, outputs, y)
        yield loss, y.shape[0]


def parameter_name(model: nn.Module, layer: str) -> str:
    """The full name of the parameter that `layer` means: itself, or the weight of the module of that name.

    Raises:
        UsageError: there is neither; the message lists what there is.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    tied = dict(model.named_parameters(remove_duplicate=False))
    for name in (layer, f"{layer}.weight" if layer else "weight"):
        if name in tied:
            return names[id(tied[name])]
    has = ", ".join(names.values()) or "no parameters"
    if layer in dict(model.named_modules()):
        raise UsageError(f"layer {layer!r} has no parameter 'weight'; the model has {has}")
    raise UsageError(f"no layer or parameter {layer!r}; the model has {has}")


def _refuse_too_large(name: str, weight: Tensor) -> None:
    """Raise where the Hessian of this weight, and the columns it is made of, exceed the machine's whole memory."""
    needed = 2 * weight.numel() ** 2 * weight.element_size()
    if weight.is_cuda:
        memory = torch.cuda.get_device_properties(weight.device).total_memory
    elif hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > memory:
        raise UsageError(
            f"the dense Hessian of {name} needs {needed / 2**30:.0f} GiB, this machine has {memory / 2**30:.0f}: "
            "HessianOperator and hessian_trace do without it"
        )


def _forward_over_reverse(loss: Callable[[Tensor], Tensor], weight: Tensor, chunk_size: int | None) -> Tensor:
    def column(direction: Tensor) -> Tensor:
        product: Tensor = torch.func.jvp(torch.func.grad(loss), (weight,), (direction,))[1]
        return product

    basis = torch.eye(weight.numel(), dtype=weight.dtype, device=weight.device).reshape(-1, *weight.shape)
    columns: Tensor = torch.vmap(column, chunk_size=chunk_size)(basis)
    return columns.reshape(*weight.shape, *weight.shape).detach()


def refuse_bad_values(values: list[Tensor]) -> None:
    """Raise where evaluations of one batch's loss are no number, not finite, or not the same."""
    if not all(isinstance(value, Tensor) and value.ndim == 0 for value in values):
        raise UsageError("the loss must be one number, a tensor without dimensions: the mean over its batch")
    first, last = float(values[0].detach()), float(values[-1].detach())
    if not math.isfinite(first):
        raise NonFiniteError(f"the loss is {first} on a batch")
    if first != last:
        raise UsageError(f"the loss is not deterministic: {first!r}, then {last!r} on the same weights and batch")


@torch.no_grad()
def refuse_no_mean(loss_fn: LossFunction, outputs: Any, target: Tensor) -> None:
    """Raise where a batch's loss is not the mean of those of its parts: a sum, class weights, or mixed samples."""
    n, cut = len(target), -(-len(target) // 3)
    if n == 1 or not isinstance(outputs, Tensor) or outputs.ndim == 0 or outputs.shape[0] != n:
        return
    whole = n * float(loss_fn(outputs, target))
    first = cut * float(loss_fn(outputs[:cut], target[:cut]))
    last = (n - cut) * float(loss_fn(outputs[cut:], target[cut:]))
    if abs(whole - first - last) > 1e-3 * max(abs(whole), abs(first), abs(last)):
        raise UsageError(
            f"the loss must be the mean over its batch: it is {whole / n:.6g} on {n} samples, but "
            f"{(first + last) / n:.6g} from two parts of them (reduction='sum', class weights, or mixed samples?)"
        )
