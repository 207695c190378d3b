"""Exact Hessians of small models, and the guards that keep them right.

A Hessian is taken in float64 on detached copies of the parameters, never of a compiled module (the
compiler is known to get a Hessian that contains a trace wrong) and always with the MATH attention kernel:
fused attention has no second derivative on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grokcore.errors import UsageError

LossFunction = Callable[[Any, Any], Tensor]
Batches = Iterable[tuple[Any, Any]]

_RANDOM_IN_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RReLU)


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
        model: any module; its parameters, buffers and mode are left as they are.
        loss_fn: ``loss_fn(output, target)``, the mean over its batch.
        batches: (input, target) pairs. The Hessian is that of the mean over all samples, whatever the batch
            sizes; a batch's size is the first dimension of its target.
        layer: a module's name as in ``model.named_modules()``, whose ``weight`` is meant, or a parameter's name.
        dtype: floating inputs, targets, parameters and buffers are converted to it.
        chunk_size: how many columns to take at once; all of them by default. Memory grows with it.

    Returns:
        Shape (*weight.shape, *weight.shape), on the weight's device.

    Raises:
        UsageError: an unknown layer, no samples, a module in train mode that is random or moves its
            statistics there (dropout, batch norm), or a loss that two evaluations do not agree on.
    """
    model = getattr(model, "_orig_mod", model)
    name = parameter_name(model, layer)
    refuse_train_mode(model)
    state = {key: _cast(value.detach(), dtype) for key, value in (*model.named_parameters(), *model.named_buffers())}
    weight = state.pop(name)
    total, samples = torch.zeros((*weight.shape, *weight.shape), dtype=dtype, device=weight.device), 0
    with differentiable_twice(), _kept(model):
        for inputs, target in batches:
            x, y = (_cast(value.to(weight.device), dtype) for value in (inputs, target))

            def loss(w: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
                return loss_fn(torch.func.functional_call(model, {**state, name: w}, (x,)), y)

            if samples == 0:
                _refuse_randomness(loss, weight)
            total += _forward_over_reverse(loss, weight, chunk_size) * y.shape[0]
            samples += y.shape[0]
    if samples == 0:
        raise UsageError("the Hessian of no samples is undefined")
    return total / samples


def parameter_name(model: nn.Module, layer: str) -> str:
    """The full name of the parameter that `layer` means: itself, or the weight of the module of that name.

    Raises:
        UsageError: there is neither; the message lists what there is.
    """
    names = [name for name, _ in model.named_parameters()]
    for name in (layer, f"{layer}.weight" if layer else "weight"):
        if name in names:
            return name
    raise UsageError(f"no layer or parameter {layer!r}; the model has {', '.join(names) or 'no parameters'}")


def refuse_train_mode(model: nn.Module) -> None:
    """Raise UsageError where a module in train mode would make the loss random or change its statistics."""
    for name, module in model.named_modules():
        if module.training and isinstance(module, _RANDOM_IN_TRAINING):
            raise UsageError(
                f"{name or 'the model'} ({type(module).__name__}) is in train mode; call model.eval() first"
            )


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Attention by kernels that have second derivatives: the MATH kernel, and no fused encoder layers."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers as before: functional_call loses those of a module that stands in a model twice."""
    before = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for module, parameters, buffers in before:
            for name in (*parameters, *buffers):
                module.__dict__.pop(name, None)
            module._parameters, module._buffers = parameters, buffers


def _forward_over_reverse(loss: Callable[[Tensor], Tensor], weight: Tensor, chunk_size: int | None) -> Tensor:
    def column(direction: Tensor) -> Tensor:
        product: Tensor = torch.func.jvp(torch.func.grad(loss), (weight,), (direction,))[1]
        return product

    basis = torch.eye(weight.numel(), dtype=weight.dtype, device=weight.device).reshape(-1, *weight.shape)
    columns: Tensor = torch.vmap(column, chunk_size=chunk_size)(basis)
    return columns.reshape(*weight.shape, *weight.shape).detach()


def _refuse_randomness(loss: Callable[[Tensor], Tensor], weight: Tensor) -> None:
    with torch.no_grad():
        first, second = float(loss(weight)), float(loss(weight))
    if first != second:
        raise UsageError(f"the loss is not deterministic: {first!r}, then {second!r} on the same weights and batch")


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
