"""What a loader gives, whoever wrote it: inputs and labels of a batch, and the call they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from grokcore.errors import UsageError

LABEL_KEYS = ("labels", "label", "target", "targets")


def is_one_shot(loader: Iterable[Any]) -> bool:
    """Whether the loader is an iterator (a generator, a zip), which a second reading would find empty."""
    return isinstance(loader, Iterator)


def inputs_and_labels(batch: Any, number: int) -> tuple[Any, Tensor]:
    """A batch's inputs and its labels (n,), of any integer dtype.

    Args:
        batch: a pair (inputs, labels), or a mapping with the labels under one of LABEL_KEYS.
        number: the batch's, for messages.

    Raises:
        UsageError: neither, or labels that are no class indices.
    """
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch), None)
        if key is None:
            raise UsageError(f"batch {number} has no {' or '.join(map(repr, LABEL_KEYS))}, only {', '.join(batch)}")
        inputs: Any = {name: value for name, value in batch.items() if name != key}
        labels = batch[key]
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, labels = batch
    else:
        raise UsageError(f"batch {number} must be a pair (inputs, labels) or a dict with 'labels', got {_kind(batch)}")
    return inputs, class_indices(labels, f"of batch {number}")


def class_indices(labels: Any, where: str) -> Int[Tensor, " n"]:
    """Labels as an int64 tensor (n,).

    Raises:
        UsageError: they are floating (soft labels), or not (n,): one-hot, or a single sample without a batch.
    """
    tensor = torch.as_tensor(labels)
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise UsageError(
            f"the labels {where} must be class indices (n,), got {str(tensor.dtype).removeprefix('torch.')} "
            f"{tuple(tensor.shape)}"
        )
    return tensor.long()


def call(model: nn.Module, inputs: Any, device: torch.device) -> Any:
    """The model on a batch's inputs, moved to the device: model(**x) of a mapping, model(*x) of a tuple or a list,
    and model(x) of anything else."""
    if isinstance(inputs, Mapping):
        return model(**{name: _moved(value, device) for name, value in inputs.items()})
    if isinstance(inputs, (tuple, list)):
        return model(*(_moved(value, device) for value in inputs))
    return model(_moved(inputs, device))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_moved(item, device) for item in value]
    return value.to(device) if hasattr(value, "to") else value


def _kind(batch: Any) -> str:
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{size}"
