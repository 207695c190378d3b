"""Small grey images with labels, held in memory: MNIST, sets in its form such as Fashion-MNIST, and the digits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from grokcore.data.idx import read_idx
from grokcore.data.lookup import find, not_found, recognised
from grokcore.data.split import Split, with_label_noise
from grokcore.errors import UsageError

MNIST = "MNIST"
FILES = {
    "train_images": ("train-images", 3), "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3), "test_labels": ("t10k-labels", 1),
}  # fmt: skip
"""The beginning of each file's name and its dimensions."""
OFFICIAL = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of MNIST's files, unzipped: what has them is called MNIST, anything else by its folder."""


@dataclass(frozen=True)
class GreyImages:
    """One set on the CPU, in the set's order."""

    name: str
    pixels: str
    """First 12 hex digits of the SHA-256 of its images and labels, train before test, a byte a value."""
    train_images: Float32[Tensor, "n_train 1 H W"]
    """In [0, 1]."""
    train_labels: Int64[Tensor, " n_train"]
    test_images: Float32[Tensor, "n_test 1 H W"]
    """Empty where the set has no test images of its own: what is not drawn for training is tested on."""
    test_labels: Int64[Tensor, " n_test"]
    num_classes: int


def load_mnist(path: Path | None = None, *, cache: Path | None = None) -> GreyImages:
    """MNIST, or a set in the same four IDX files (gzipped or not), by its folder.

    Args:
        path: a folder; None: looked up in $GROKCORE_DATA, ``shared/data``, the user's cache, and their subfolders
            ``mnist``.
        cache: the user's cache folder.

    Raises:
        UsageError: nothing is found, or what is found is damaged or does not belong together.
    """
    folder = find("mnist", _folder, cache) if path is None else recognised(path.expanduser(), _folder)
    if folder is None and path is not None:
        raise UsageError(f"{path} does not hold {', '.join(f'{name}-idx*-ubyte' for name, _ in FILES.values())}")
    if folder is None:
        raise not_found(MNIST, cache, advice="--data-path FOLDER or $GROKCORE_DATA")
    found = {key: read_idx(_file(folder, beginning, dims)) for key, (beginning, dims) in FILES.items()}
    for part in ("train", "test"):
        images, labels = found[f"{part}_images"], found[f"{part}_labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UsageError(f"{folder}: the {part} images and labels do not belong together")
    return _images(MNIST if _official(found) else folder.resolve().name, found)


def load_digits() -> GreyImages:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn ships (UCI, Alpaydin and Kaynak 1998), values 0 to 16."""
    from sklearn.datasets import load_digits as load  # type: ignore[import-untyped]  # slow to import

    found = load()
    values, labels = found.images.astype(np.uint8), found.target.astype(np.uint8)
    none = {"test_images": values[:0], "test_labels": labels[:0]}
    return _images("digits", {"train_images": values, "train_labels": labels} | none, highest=16)


def stratified_split(images: GreyImages, *, train_images: int, label_noise: float, seed: int) -> Split:
    """So many train images, as equally many of each class as the number allows, drawn by the seed; inputs (n, 1, H, W).

    The test set is the set's own, whole; of a set without one, all that was not drawn.

    Args:
        train_images: at least one of each class; the classes that get one more are drawn too.
        label_noise: share of the train labels replaced by another class; the test set keeps its true labels.
        seed: decides the draw and the noise, by streams of their own.

    Raises:
        UsageError: more images than a class has, fewer than classes, nothing left to test on, noise outside [0, 1).
    """
    classes, labels = images.num_classes, images.train_labels.numpy()
    draw_stream, noise_stream = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(2))
    if train_images < classes:
        raise UsageError(f"--train-images must be at least {classes}, one of each class, got {train_images}")
    wanted = np.full(classes, train_images // classes)
    wanted[draw_stream.permutation(classes)[: train_images % classes]] += 1
    available = np.bincount(labels, minlength=classes)
    if (wanted > available).any():
        raise UsageError(f"--train-images is {train_images}, but a class of {images.name} has {available.min()} images")
    drawn = np.sort(
        np.concatenate([draw_stream.permutation(np.flatnonzero(labels == k))[: wanted[k]] for k in range(classes)])
    )
    test_images, test_labels = images.test_images, images.test_labels
    if not len(test_labels):
        left = np.setdiff1d(np.arange(len(labels)), drawn)
        if not len(left):
            raise UsageError(f"--train-images is {train_images}: nothing of {images.name} is left to test on")
        test_images, test_labels = images.train_images[left], images.train_labels[left]
    noisy = with_label_noise(labels[drawn], label_noise, classes, noise_stream)
    return Split(
        images.train_images[drawn],
        torch.from_numpy(noisy),
        test_images,
        test_labels,
        classes,
        source={"images": images.name, "pixels": images.pixels},
    )


def _images(name: str, found: dict[str, NDArray[np.uint8]], *, highest: int = 255) -> GreyImages:
    digest = hashlib.sha256(b"".join(found[key].tobytes() for key in FILES)).hexdigest()
    scaled = {part: found[f"{part}_images"][:, None].astype(np.float32) / highest for part in ("train", "test")}
    images = {part: torch.from_numpy(values) for part, values in scaled.items()}
    labels = {part: torch.from_numpy(found[f"{part}_labels"].astype(np.int64)) for part in ("train", "test")}
    classes = int(labels["train"].max()) + 1
    if len(labels["test"]) and int(labels["test"].max()) >= classes:
        raise UsageError(f"{name}: the test set has classes that the train set lacks")
    return GreyImages(name, digest[:12], images["train"], labels["train"], images["test"], labels["test"], classes)


def _official(found: dict[str, NDArray[np.uint8]]) -> bool:
    """Whether these are MNIST's files: their headers follow from their shapes."""
    for key, (_, dims) in FILES.items():
        header = bytes([0, 0, 8, dims]) + np.array(found[key].shape, dtype=">u4").tobytes()
        if hashlib.md5(header + found[key].tobytes(), usedforsecurity=False).hexdigest() != OFFICIAL[key]:
            return False
    return True


def _folder(path: Path) -> Path | None:
    whole = path.is_dir() and all(_file(path, beginning, dims).exists() for beginning, dims in FILES.values())
    return path if whole else None


def _file(folder: Path, beginning: str, dims: int) -> Path:
    """The file by any of its usual names, gzipped or not; the first of them where there is none."""
    names = [f"{beginning}{mark}idx{dims}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])
