"""CIFAR-10 (JPEG): images ``train|test/CLASS/NNNN.jpg``, in a tar archive or in folders.

The images are CIFAR-10's, encoded anew with loss, so their pixels are not the official ones. Both forms give the same
set: classes in alphabetical order, within each the images sorted by name.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from grokcore.data.archives import read_members
from grokcore.data.image_cache import Decoded
from grokcore.errors import UsageError

NAME = "CIFAR-10 (JPEG)"
SETS = ("train", "test")
IMAGE = re.compile(r"(?:\./)?(train|test)/([^/]+)/([0-9]+\.jpg)")
_LONGEST = 1 << 16
"""Bytes that no JPEG of 32x32 pixels needs."""

Item = TypeVar("Item")
Key = tuple[str, str, str]
"""An image's set, class and name."""


def read_tar(path: Path, classes: Sequence[str]) -> Decoded:
    """The images of a tar archive, compressed or not; nothing is extracted to disk.

    Raises:
        UsageError: a damaged archive or image, a member that is no such image, other classes than `classes`, or not
            the same number of images in each.
    """
    found: dict[tuple[str, str, str], bytes] = {}
    for name, content in _shown(read_members(path, lambda member: _is_image(path, member)), "unpack"):
        key = _image(path, name)
        if key in found:
            raise UsageError(f"{path} holds {name!r} twice")
        found[key] = content
    return _decoded(path, found.keys(), classes, lambda key: found[key])


def read_folder(path: Path, classes: Sequence[str]) -> Decoded:
    """The images of the folders ``train`` and ``test`` in `path`.

    Raises:
        UsageError: a damaged image, another file among the images, other classes than `classes`, or not the same
            number of images in each.
        OSError: the folder cannot be read.
    """
    keys = [_image(path, Path(file.path).relative_to(path).as_posix()) for file in image_files(path)]
    return _decoded(path, keys, classes, lambda key: path.joinpath(*key).read_bytes())


def image_files(path: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in the folders of classes of ``train`` and ``test``, or beside them, in no order."""
    for chosen in SETS:
        if (path / chosen).is_dir():
            with os.scandir(path / chosen) as labels:
                for label in labels:
                    if not label.is_dir():
                        yield label
                        continue
                    with os.scandir(label) as files:
                        yield from files


def _is_image(path: Path, member: tarfile.TarInfo) -> bool:
    """False for folders; other members must be images."""
    if member.isdir():
        return False
    _image(path, member.name)
    if member.size > _LONGEST:
        raise UsageError(f"{path}: {member.name} is no 32x32 JPEG: it has {member.size} bytes")
    return True


def _image(path: Path, name: str) -> Key:
    match = IMAGE.fullmatch(name)
    if match is None:
        raise UsageError(f"{path} holds {name!r}, which is no file train|test/CLASS/NNNN.jpg")
    return match[1], match[2], match[3]


def _decoded(path: Path, keys: Iterable[Key], classes: Sequence[str], read: Callable[[Key], bytes]) -> Decoded:
    ordered = sorted(keys, key=lambda key: (key[0] != "train", key))
    train, test = (_check_classes(path, chosen, ordered, classes) for chosen in SETS)
    decoded = Decoded.empty(NAME, train, test)
    images = chain(decoded.train_images, decoded.test_images)
    for image, key in zip(images, _shown(ordered, "decode"), strict=True):
        image[:] = _pixels(read(key), f"{path}: {'/'.join(key)}")
    labels = [classes.index(label) for _, label, _ in ordered]
    decoded.train_labels[:], decoded.test_labels[:] = labels[:train], labels[train:]
    return decoded


def _shown(items: Iterable[Item], words: str) -> Iterable[Item]:
    """The items, with a bar on a terminal if they take long."""
    bar: Iterable[Item] = tqdm(items, desc=words, unit=" images", delay=2, leave=False, disable=not sys.stderr.isatty())
    return bar


def _check_classes(path: Path, chosen: str, keys: Sequence[Key], classes: Sequence[str]) -> int:
    """How many images a set has, after checking that its classes are these and of one size."""
    counts = Counter(label for of, label, _ in keys if of == chosen)
    other, missing = sorted(counts.keys() - set(classes)), [label for label in classes if label not in counts]
    if other or missing:
        words = " and ".join([f"it has {_few(other)}"] * bool(other) + [f"it lacks {_few(missing)}"] * bool(missing))
        raise UsageError(f"the classes in {chosen} of {path} are not CIFAR-10's: {words}")
    least, most = min(classes, key=counts.__getitem__), max(classes, key=counts.__getitem__)
    if counts[least] != counts[most]:
        raise UsageError(
            f"{path} is incomplete: {chosen}/{least} has {counts[least]} images and {chosen}/{most} {counts[most]}"
        )
    return counts.total()


def _few(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(map(repr, labels[:5])) + more


def _pixels(content: bytes, where: str) -> UInt8[np.ndarray, "3 32 32"]:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            (width, height), mode = image.size, image.mode
            # Before any other is decoded: it may claim to be huge.
            pixels = np.asarray(image) if (width, height, mode) == (32, 32, "RGB") else None
    except Exception as error:  # whatever a damaged file can bring about in the decoder
        raise UsageError(f"{where} is damaged or no JPEG ({type(error).__name__})") from None
    if pixels is None:
        raise UsageError(f"{where} has {width}x{height} pixels of mode {mode}, not 32x32 of RGB")
    return pixels.transpose(2, 0, 1)
