"""CIFAR-10 as its authors distribute it: six pickled batches, in a folder or in an archive of it.

A pickle can run code, so what is unpickled is the very bytes whose MD5 matched, and by
:mod:`grokcore.data.cifar10_pickle`, which runs none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grokcore.data.archives import read_members
from grokcore.data.cifar10_pickle import Batch, parse_batch
from grokcore.data.image_cache import Decoded
from grokcore.errors import UsageError

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"


@dataclass(frozen=True)
class Distribution:
    """Where the archive is, and what its MD5 and those of its batches are, the train batches in order, test last."""

    url: str
    archive_md5: str
    batch_md5: Mapping[str, str]


OFFICIAL = Distribution(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    batch_md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)


def read_archive(path: Path, distribution: Distribution = OFFICIAL) -> Decoded:
    """The images of ``cifar-10-python.tar.gz``; nothing is extracted to disk.

    Raises:
        UsageError: another MD5, or content that is not CIFAR-10's.
    """
    content = path.read_bytes()
    _check(path, content, distribution.archive_md5)
    wanted = {f"{FOLDER}/{name}": name for name in distribution.batch_md5}
    members = read_members(path, lambda member: member.name in wanted, content)
    batches = {wanted[name]: parse_batch(batch, f"{path}: {name}") for name, batch in members}
    return _joined(path, batches, distribution)


def read_folder(path: Path, distribution: Distribution = OFFICIAL) -> Decoded:
    """The images of an extracted folder ``cifar-10-batches-py``.

    Raises:
        UsageError: a file is missing, has another MD5, or holds what is not CIFAR-10's.
    """
    batches: dict[str, Batch] = {}
    for name, md5 in distribution.batch_md5.items():
        file = path / name
        if file.is_file():
            content = file.read_bytes()
            _check(file, content, md5)
            batches[name] = parse_batch(content, str(file))
    return _joined(path, batches, distribution)


def _check(path: Path, content: bytes, md5: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UsageError(
            f"{path} is damaged or another file and was not opened: its MD5 is {found}, not {md5}; "
            "delete it and fetch it with --download, or put the right one in its place"
        )


def _joined(path: Path, batches: Mapping[str, Batch], distribution: Distribution) -> Decoded:
    """The train batches in their order, and the last one as the test set."""
    missing = [name for name in distribution.batch_md5 if name not in batches]
    if missing:
        raise UsageError(f"{path} is incomplete: {', '.join(missing)} missing")
    *train, test = (batches[name] for name in distribution.batch_md5)
    decoded = Decoded.empty("CIFAR-10", sum(len(labels) for _, labels in train), len(test[1]))
    np.concatenate([images.reshape(-1, 3, 32, 32) for images, _ in train], out=decoded.train_images)
    np.concatenate([labels for _, labels in train], out=decoded.train_labels)
    decoded.test_images[:] = test[0].reshape(-1, 3, 32, 32)
    decoded.test_labels[:] = test[1]
    return decoded
