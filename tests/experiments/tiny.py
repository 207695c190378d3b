"""A CIFAR-10 run small enough for a test: the real code, 60 + 30 made images, a ResNet-18 of a tenth of the width."""

from __future__ import annotations

from pathlib import Path

from tests.grokcore.data.tiny_cifar10 import write_jpeg_tar


def tiny_data(folder: Path) -> Path:
    """A JPEG tar of ten classes, six train and three test images each."""
    path = folder / "cifar10-jpeg.tar.xz"
    write_jpeg_tar(path, per_class_train=6, per_class_test=3)
    return path


def tiny(data: Path, runs: Path, *more: str, epochs: int = 3) -> list[str]:
    """The flags of a small run below `runs`: three steps an epoch."""
    sizes = ["--train-images", "60", "--test-images", "30", "--width", "0.1", "--batch-size", "20"]
    length = ["--epochs", str(epochs), "--measure-every", "1", "--checkpoint-every", "2"]
    return ["--data", str(data), *sizes, *length, "--runs", str(runs), *more]


def only_folder(runs: Path, arm: str = "*") -> Path:
    """The one run folder below `runs`, or of one of its arms."""
    (folder,) = runs.glob(f"cifar10/{arm}/seed*")
    return folder
