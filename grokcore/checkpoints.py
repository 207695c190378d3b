"""A saved model and saved samples, read without running what a file says: tensors and plain data only."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grokcore.errors import UsageError

KEYS = ("state_dict", "model_state_dict", "model")
"""Where a checkpoint keeps its state dict, if it is not one itself."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What wrappers put before every name: DistributedDataParallel, torch.compile, Lightning modules."""


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> str:
    """Load a checkpoint into a model, strictly.

    Args:
        model: gets the weights, on its own device.
        path: a file of ``torch.save``: a state dict, or a dict that holds one.
        key: where it is held; by default under one of KEYS.

    Returns:
        What was found, in words: the key and the prefix that were taken off.

    Raises:
        UsageError: no such file, more than tensors and plain data in it, no state dict, or not this model's.
    """
    found = read_tensors(path)
    words = []
    if not isinstance(found, Mapping):
        raise UsageError(f"{path} holds a {type(found).__name__}, not a state dict")
    key = next((each for each in KEYS if isinstance(found.get(each), Mapping)), None) if key is None else key
    if key is not None:
        if not isinstance(found.get(key), Mapping):
            raise UsageError(f"{path} has no state dict under {key!r} (keys: {', '.join(map(str, found))})")
        found = found[key]
        words.append(f"its {key}")
    wanted = set(model.state_dict())
    for prefix in PREFIXES:
        if set(found) != wanted and all(str(name).startswith(prefix) for name in found):
            found = {str(name).removeprefix(prefix): value for name, value in found.items()}
            words.append(f"without {prefix!r}")
    missing, more = sorted(wanted - set(found)), sorted(set(map(str, found)) - wanted)
    if missing or more:
        raise UsageError(f"{path} is not this model's: " + "; ".join(_differences(missing, more)))
    try:
        model.load_state_dict(dict(found))
    except RuntimeError as error:
        raise UsageError(f"{path} is not this model's: {' '.join(str(error).split())}") from None
    return ", ".join(words)


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote, tensors and plain data only.

    Raises:
        UsageError: it cannot be read, or it holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except pickle.UnpicklingError as error:
        what = str(error).split("GLOBAL ")[-1].split(" was not")[0] if "GLOBAL " in str(error) else "something else"
        raise UsageError(
            f"{path} holds more than tensors and plain data ({what}) and was not loaded: files are read with "
            "weights_only=True; save model.state_dict() instead of the model"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a checkpoint: {' '.join(str(error).split())[:200]}") from None


class Batches:
    """Samples in memory as batches, which can be read again."""

    def __init__(self, inputs: Tensor, labels: Tensor, size: int) -> None:
        self.inputs, self.labels, self.size = inputs, labels, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.labels), self.size):
            yield self.inputs[start : start + self.size], self.labels[start : start + self.size]

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)


def read_samples(path: Path, batch_size: int, dtype: torch.dtype | None = None) -> Batches:
    """Inputs and labels from a file: ``.npz`` with arrays ``inputs`` and ``labels``, else what ``torch.save`` wrote: a
    dict with these keys, or a pair.

    Args:
        path: the file.
        batch_size: samples a batch.
        dtype: of the inputs, where they are floating (NumPy's are float64); as they are if None.

    Raises:
        UsageError: it cannot be read, or holds neither.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found: Any = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path} cannot be read as plain arrays: {error}") from None
    else:
        found = read_tensors(path)
    pair = (found.get("inputs"), found.get("labels")) if isinstance(found, Mapping) else found
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(each, Tensor) for each in pair):
        has = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise UsageError(f"{path} must hold two arrays named inputs and labels (it holds: {has or 'nothing'})")
    inputs, labels = pair
    if labels.ndim == 0 or len(inputs) != len(labels):
        raise UsageError(f"{path} has {len(inputs)} inputs and {labels.numel()} labels")
    return Batches(inputs.to(dtype) if inputs.is_floating_point() else inputs, labels, batch_size)


def _differences(missing: list[str], more: list[str]) -> list[str]:
    words = {"it lacks": missing, "it has more": more}
    return [f"{text} {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for text, names in words.items() if names]
