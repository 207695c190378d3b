"""CIFAR-10, held in memory: the official distribution, or the same images encoded as JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from grokcore.data.cifar10_official import ARCHIVE, OFFICIAL, Distribution
from grokcore.data.cifar10_source import CLASSES, SUBFOLDER, find_source, source_in
from grokcore.data.download import download as fetch
from grokcore.data.image_cache import Decoded, cached
from grokcore.data.lookup import cache_folder, not_found
from grokcore.data.split import Split, with_label_noise
from grokcore.errors import UsageError, flag

__all__ = ["CLASSES", "Images", "image_split", "load_cifar10"]


@dataclass(frozen=True)
class Images:
    """One data set, decoded, on the CPU: pixels 0 to 255 as red, green, blue; labels in the order of ``CLASSES``."""

    name: str
    """``CIFAR-10``, or ``CIFAR-10 (JPEG)``, whose pixels are others."""
    pixels: str
    """First 12 hex digits of the SHA-256 of train images, train labels, test images, test labels, a byte a value."""
    train_images: UInt8[Tensor, "n_train 3 32 32"]
    train_labels: Int64[Tensor, " n_train"]
    test_images: UInt8[Tensor, "n_test 3 32 32"]
    test_labels: Int64[Tensor, " n_test"]


def load_cifar10(
    path: Path | None = None,
    *,
    download: bool = False,
    cache: Path | None = None,
    official: Distribution = OFFICIAL,
) -> Images:
    """CIFAR-10 from where it is found, decoded once and then read from the cache.

    Looks in `path` alone where it is given; else in $GROKCORE_DATA, ``shared/data`` beside the checkout and the user's
    cache folder, first to last, and in their subfolders ``cifar10``. Each may hold ``cifar-10-python.tar.gz``, its
    folder ``cifar-10-batches-py``, a tar of ``train|test/CLASS/NNNN.jpg``, or that tree, preferred in this order.

    Args:
        path: a file or folder.
        download: where nothing is found, fetch the official archive into the cache folder.
        cache: the user's cache folder; None: $GROKCORE_CACHE, else where the system keeps caches.
        official: address and checksums of the official files.

    Raises:
        UsageError: nothing is found, or what is found is damaged or holds something else.
    """
    source = find_source(path, cache)
    if source is None and download:
        archive = cache_folder(cache) / SUBFOLDER / ARCHIVE
        fetch(official.url, archive, official.archive_md5)
        source = source_in(archive.parent)
    if source is None:
        raise not_found("CIFAR-10", cache, advice="--data PATH or $GROKCORE_DATA, or fetch it with --download")
    try:
        decoded, digest = cached(cache_folder(cache) / "decoded", source.identity(), lambda: source.decode(official))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or source.path}: {error.strerror or error}") from None
    return _on_cpu(decoded, digest)


def _on_cpu(decoded: Decoded, digest: str) -> Images:
    return Images(
        decoded.name,
        digest[:12],
        torch.from_numpy(decoded.train_images),
        torch.from_numpy(decoded.train_labels).long(),
        torch.from_numpy(decoded.test_images),
        torch.from_numpy(decoded.test_labels).long(),
    )


def image_split(images: Images, *, train_images: int, test_images: int, label_noise: float, seed: int) -> Split:
    """The first images of each class, the same ones for every seed, in the set's order; inputs uint8 (n, 3, 32, 32).

    Args:
        train_images: a tenth of them from each class; 0: all.
        test_images: likewise.
        label_noise: share of the train labels replaced by another class drawn uniformly; the test set keeps its true
            labels.
        seed: decides the noise, by the stream that decides it for the equations.

    Raises:
        UsageError: a number that is no multiple of 10 or more than the set has, noise outside [0, 1).
    """
    train = _first_of_each_class(images.train_labels, train_images, "train_images")
    test = _first_of_each_class(images.test_labels, test_images, "test_images")
    _, noise_stream = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(2))
    labels = with_label_noise(images.train_labels[train].numpy(), label_noise, len(CLASSES), noise_stream)
    return Split(
        images.train_images[train],
        torch.from_numpy(labels),
        images.test_images[test],
        images.test_labels[test],
        len(CLASSES),
        source={"images": images.name, "pixels": images.pixels},
    )


def _first_of_each_class(labels: Int64[Tensor, " n"], wanted: int, name: str) -> slice | Int64[Tensor, " m"]:
    """Where they stand, rising."""
    if wanted == 0:
        return slice(None)
    available = int(torch.bincount(labels, minlength=len(CLASSES)).min())
    if wanted < 0 or wanted % len(CLASSES):
        raise UsageError(f"{flag(name)} must be a multiple of {len(CLASSES)}, or 0 for all, got {wanted}")
    if wanted > available * len(CLASSES):
        raise UsageError(f"{flag(name)} is {wanted}, but the set has {available * len(CLASSES)}")
    each = wanted // len(CLASSES)
    return torch.cat([torch.nonzero(labels == k).flatten()[:each] for k in range(len(CLASSES))]).sort().values
