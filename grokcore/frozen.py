"""A model held still to be differentiated: detached copies to call it with, and everything as before afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from grokcore.errors import UsageError
from grokcore.heads import uncompiled

Batches = Iterable[tuple[Any, Any]]

_RANDOM_IN_TRAINING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.RReLU,
    nn.utils.parametrizations._SpectralNorm,
)
_NO_PAIR = "each of the batches must be a pair (input, target) of tensors, the target's samples first"


@contextmanager
def frozen(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
    """The model without its compiler, and detached copies of its parameters and buffers to call it with.

    Inside, second derivatives exist wherever they can; on leaving, on errors too, the model is as it was.

    Raises:
        UsageError: a module is in a train mode that is random (:func:`refuse_train_mode`), or tensors that are neither
            parameters nor buffers keep another dtype.
    """
    model = uncompiled(model)
    refuse_train_mode(model)
    # Whatever modes the caller is in, gradients are taken here, in the dtype that was asked for.
    with torch.inference_mode(mode=False), torch.enable_grad(), _no_autocast(), differentiable_twice(), eager():
        # Clones: modules that write into their buffers (or parameters) write into these.
        named = (*model.named_parameters(), *model.named_buffers())
        state = {key: _cast(value.detach(), dtype).clone() for key, value in named}
        with _kept(model):
            try:
                yield model, state
            except RuntimeError as error:
                if "dtype" not in str(error) and "scalar type" not in str(error):
                    raise
                raise UsageError(
                    f"the model or the loss holds tensors that are not {dtype}: register them as buffers, convert the "
                    f"loss (loss_fn.double()) or pass dtype=torch.float32 ({error})"
                ) from error


def tensor_pairs(batches: Batches, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets on a device, the floating ones in `dtype`; batches without samples are left out.

    Raises:
        UsageError: a batch is no pair of tensors, or its target has no dimension for samples.
    """
    for batch in batches:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(v, Tensor) for v in batch)):
            raise UsageError(_NO_PAIR)
        if batch[1].ndim == 0:
            raise UsageError(_NO_PAIR)
        if batch[1].shape[0]:
            # Clones: a model that works in place on its input works on these.
            x, y = (_cast(value.detach().to(device), dtype).clone() for value in batch)
            yield x, y


def refuse_train_mode(model: nn.Module) -> None:
    """Raise UsageError where a module in train mode would make the loss random or change its statistics."""
    for name, module in model.named_modules():
        # Without running statistics an instance norm is the same in either mode; a batch norm is not.
        still = isinstance(module, nn.modules.instancenorm._InstanceNorm) and not module.track_running_stats
        if module.training and isinstance(module, _RANDOM_IN_TRAINING) and not still:
            raise UsageError(
                f"{name or 'the model'} ({type(module).__name__}) is in train mode; call model.eval() first"
            )


def eager() -> AbstractContextManager[object]:
    """A context in which compiled functions run uncompiled, so that new hooks and second derivatives are seen."""
    # Without a compiler in the process nothing is compiled; importing it takes seconds.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


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
    before = [(m, dict(m._parameters), dict(m._buffers), _derived(m)) for m in model.modules()]
    try:
        yield
    finally:
        for module, parameters, buffers, derived in before:
            for name in (*parameters, *buffers):
                module.__dict__.pop(name, None)
            module._parameters, module._buffers = parameters, buffers
            module.__dict__.update(derived)


def _derived(module: nn.Module) -> dict[str, Any]:
    """What a module computes from its parameters and keeps beside them: old-style weight norms, recurrent layers."""
    kept = {name: value for name, value in module.__dict__.items() if isinstance(value, Tensor)}
    lists = ("_flat_weights", "_flat_weight_refs")
    return kept | {name: list(module.__dict__[name]) for name in lists if name in module.__dict__}


@contextmanager
def _no_autocast() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
