"""IDX files, the form of MNIST and of the sets made after it: bytes in an array, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grokcore.errors import UsageError

MOST_BYTES = 1 << 31
_UNSIGNED_BYTE = 8


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, by its own shape; no more is read than its header says.

    Raises:
        UsageError: unreadable, damaged, of another type, cut short or longer than its header says.
    """
    try:
        with open(path, "rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            return _read(gzip.GzipFile(fileobj=raw) if gzipped else raw, path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "damaged"
        raise UsageError(f"cannot read {path}: {reason}") from None


def _read(file: BufferedIOBase, path: Path) -> NDArray[np.uint8]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or not 1 <= magic[3] <= 4:
        raise UsageError(f"{path} is not an IDX file of unsigned bytes")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise UsageError(f"{path} is cut short")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    count = math.prod(shape)
    if not 0 < count <= MOST_BYTES:
        raise UsageError(f"{path} says that it holds {' x '.join(map(str, shape))} values, which no data set does")
    content = file.read(count + 1)
    if len(content) != count:
        raise UsageError(f"{path} holds {'more' if len(content) > count else 'fewer'} bytes than its header says")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
