"""A batch of CIFAR-10: a pickle of Python 2, read without running anything that it names.

The few names that the format uses stand for inert objects of this file, not for numpy's functions, so nothing is
imported or called that could do more than hold an array of bytes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from grokcore.data.image_cache import PIXELS
from grokcore.errors import UsageError

Batch = tuple[UInt8[np.ndarray, "n 3072"], UInt8[np.ndarray, " n"]]


def parse_batch(content: bytes, where: str) -> Batch:
    """Images (n, 3072) and labels (n,) of one pickled batch, whose checksum the caller has seen match.

    Raises:
        UsageError: the pickle asks for anything but an array of bytes, or does not hold a batch.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # whatever a stream of opcodes can bring about
        words = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{where} is not a batch of CIFAR-10: {words}") from None
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise UsageError(f"{where} is not a batch of CIFAR-10: it has no data and labels")
    data, labels = batch[b"data"], batch[b"labels"]
    images = data.values if isinstance(data, _Array) else None
    if images is None or images.ndim != 2 or images.shape[1] != PIXELS or not len(images):
        raise UsageError(f"{where} is not a batch of CIFAR-10: its data are no array of bytes (n, {PIXELS})")
    if not isinstance(labels, list) or len(labels) != len(images):
        raise UsageError(f"{where} is not a batch of CIFAR-10: its labels are no list of {len(images)}")
    if not all(type(label) is int and 0 <= label < 10 for label in labels):
        raise UsageError(f"{where} is not a batch of CIFAR-10: a label is not one of 0 to 9")
    return images, np.array(labels, dtype=np.uint8)


class _Array:
    """An array of bytes, once the state that numpy pickled is put in."""

    values: UInt8[np.ndarray, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, columns_first, content = state
        if not isinstance(kind, _ByteType) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of something else than bytes")
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if columns_first else "C")


class _ByteType:
    """The dtype of bytes; byte order and alignment mean nothing to it."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Name:
    """What a name in a pickle stands for: it can be called where the format calls it, and not be changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a change to a function")


def _array(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("an array of another class than numpy's")
    return _Array()


def _byte_type(code: Any, *_: Any) -> _ByteType:
    if code not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"an array of {code!r}, not of bytes")
    return _ByteType()


def _encoded(text: Any, codec: Any) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    if not isinstance(text, str) or codec not in (b"latin1", "latin1"):
        raise pickle.UnpicklingError("an encoding that no array has")
    return text.encode("latin1")


def _no_call(*_: Any) -> Any:
    raise pickle.UnpicklingError("a call of numpy's array class")


_NDARRAY = _Name(_no_call)
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Name(_array),  # numpy 1
    ("numpy._core.multiarray", "_reconstruct"): _Name(_array),  # numpy 2
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(_byte_type),
    ("_codecs", "encode"): _Name(_encoded),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the names above and no other; never imports."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r}, which no batch needs and was not given")
        return _NAMES[module, name]
