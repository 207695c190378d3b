"""Decoded images kept in one file, so that a set is decoded once: written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from grokcore.data.exclusive import exclusive
from grokcore.files import sync_folder

MAGIC = b"grokcore images 1 "
"""Its number is raised whenever the code decodes differently."""
PIXELS = 3 * 32 * 32
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class Decoded:
    """A set of 32x32 colour images, all its bytes in one array.

    `values` holds train images, train labels, test images, test labels, one after the other, a byte a value; images
    are (3, 32, 32), in rows of pixels 0 to 255, first all red, then green, then blue. The properties are views.
    """

    name: str
    train: int
    test: int
    values: UInt8[np.ndarray, " bytes"]

    @classmethod
    def empty(cls, name: str, train: int, test: int) -> Decoded:
        """Room for so many images, to be filled through the views."""
        return cls(name, train, test, np.empty((train + test) * (PIXELS + 1), dtype=np.uint8))

    @property
    def train_images(self) -> UInt8[np.ndarray, "n 3 32 32"]:
        """In the set's order."""
        return self.values[: self.train * PIXELS].reshape(-1, 3, 32, 32)

    @property
    def train_labels(self) -> UInt8[np.ndarray, " n"]:
        """Classes, by number."""
        return self.values[self.train * PIXELS :][: self.train]

    @property
    def test_images(self) -> UInt8[np.ndarray, "n 3 32 32"]:
        """In the set's order."""
        return self.values[self.train * (PIXELS + 1) :][: self.test * PIXELS].reshape(-1, 3, 32, 32)

    @property
    def test_labels(self) -> UInt8[np.ndarray, " n"]:
        """Classes, by number."""
        return self.values[len(self.values) - self.test :]


def cached(folder: Path, source: str, decode: Callable[[], Decoded]) -> tuple[Decoded, str]:
    """What a source decodes to and the SHA-256 of its values, from the folder's file where there is a good one.

    Args:
        folder: of all decoded sets; made where it is missing.
        source: tells this source from every other, and from itself after a change.
        decode: decodes it anew; its errors pass through. One process at a time does so, others wait for its file.

    A damaged file is made again, and a folder that cannot be written is done without, each with a note on stderr.
    """
    path = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.images"
    found = _read(path, source)
    if found is not None:
        return found
    with ExitStack() as stack:
        writable = True
        try:
            waited = stack.enter_context(exclusive(path))
            found = _read(path, source) if waited else None
        except OSError as error:
            writable = False
            _note_unwritable(folder, error)
        if found is None:
            decoded = decode()
            content = hashlib.sha256(decoded.values.data)
            found = decoded, content.hexdigest()
            if writable:
                _write(path, source, decoded, content)
    return found


def _write(path: Path, source: str, decoded: Decoded, content: hashlib._Hash) -> None:
    """`content` is the hash of the values; the file's checksum goes on with the header."""
    header = json.dumps({"source": source, "name": decoded.name, "train": decoded.train, "test": decoded.test})
    content.update(header.encode())
    temporary = path.with_suffix(".tmp")  # this process alone holds the path
    try:
        with open(temporary, "wb") as file:
            file.write(MAGIC + content.hexdigest().encode() + b" " + header.encode() + b"\n")
            file.write(decoded.values.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _note_unwritable(path.parent, error)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read(path: Path, source: str) -> tuple[Decoded, str] | None:
    """The file's content and the digest of its values; None without a file, and with a damaged one, which is said."""
    try:
        with open(path, "rb") as file:
            line = file.readline(_LONGEST_HEADER)
            checksum, _, header = line.removeprefix(MAGIC).rstrip(b"\n").partition(b" ")
            values = np.fromfile(file, dtype=np.uint8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        print(f"note: cannot read {path} ({error.strerror or error}); decoding anew", file=sys.stderr)
        return None
    content = hashlib.sha256(values.data)
    digest = content.hexdigest()
    content.update(header)
    if not line.startswith(MAGIC) or content.hexdigest().encode() != checksum:
        print(f"note: {path} is damaged (its checksum does not match); decoding anew", file=sys.stderr)
        return None
    described = json.loads(header)
    if described.pop("source") != source:
        return None
    return Decoded(**described, values=values), digest


def _note_unwritable(folder: Path, error: OSError) -> None:
    print(f"note: cannot write to {folder} ({error.strerror or error}); going on without a cache", file=sys.stderr)
