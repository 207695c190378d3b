"""The configs of the CIFAR-10 experiment: data, models and presets, as frozen dataclasses; the flags come from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from experiments.command import Command
from grokcore import UsageError
from grokcore.data.cifar10 import Images, image_split, load_cifar10
from grokcore.data.split import Split
from grokcore.errors import require_finite
from grokcore.models.resnet import resnet18
from grokcore.models.wide_resnet import WideResNet
from grokcore.training.config import SGDConfig
from grokcore.training.schedules import torch_seed

WHOLE = (50_000, 10_000)
"""Train and test images of CIFAR-10."""


@dataclass(frozen=True)
class ImagesConfig:
    """Which images, and what is done to them."""

    train_images: int = WHOLE[0]
    """Train images: the first of each class in the set's order, as many of each, the same for every seed."""
    test_images: int = WHOLE[1]
    """Test images, likewise."""
    label_noise: float = 0.0
    """Share of the train labels replaced by another class, drawn by each seed; the test set stays clean."""
    augment: bool = False
    """Crop (4 pixels of padding) and flip the train images anew each epoch; they are measured as they are."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name, value in (("--train-images", self.train_images), ("--test-images", self.test_images)):
            if value < 10 or value % 10:
                raise UsageError(f"{name} takes as many images of each of 10 classes: a multiple of 10, got {value}")


@dataclass(frozen=True)
class ImageModelConfig:
    """A residual network."""

    network: Literal["resnet18", "wide_resnet"] = "resnet18"
    """resnet18, or wide_resnet (Zagoruyko and Komodakis 2016), whose --width is the widen factor."""
    stem: Literal["7x7", "3x3"] = "7x7"
    """resnet18's first layer: 7x7/2 and max-pool, as for ImageNet (paper A), or 3x3."""
    width: float = 1.0
    """Channels, as a multiple of the network's own."""
    depth: int = 28
    """wide_resnet's layers, 6 n + 4."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the layers before the head while training; weights, head and every measurement are float32 or wider."""

    def __post_init__(self) -> None:
        require_finite(self)
        if self.network == "wide_resnet" and self.stem != "7x7":
            raise UsageError("--stem belongs to resnet18: wide_resnet has a 3x3 one of its own")
        if self.network == "wide_resnet" and self.width != round(self.width):
            raise UsageError(f"--width of wide_resnet is a whole number, got {self.width:g}")
        if self.network == "resnet18" and self.depth != 28:
            raise UsageError("--depth belongs to wide_resnet")


@dataclass(frozen=True)
class ImageCommand(Command):
    """The command line of CIFAR-10."""

    preset: str = "cpu"
    """smoke: a quarter of the width and 2,000 train images, within a minute on two cores; cpu: half the width, 5,000
    train images, 80 epochs, in minutes; paper-nc, paper-rf: paper A's set-ups for collapse (250 epochs) and flatness
    (400 epochs), for a GPU."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data", metavar="PATH")] = None
    """CIFAR-10 as the official archive or folder, or as a JPEG tar or folder; looked up where not given."""
    download: bool = False
    """Fetch the official archive (170 MB) into the user's cache where no data are found."""
    capture: bool = False
    """On CUDA: replay the step as a graph; not tried on a GPU yet."""
    data: tyro.conf.OmitArgPrefixes[ImagesConfig] = field(default_factory=ImagesConfig)
    model: tyro.conf.OmitArgPrefixes[ImageModelConfig] = field(default_factory=ImageModelConfig)
    training: tyro.conf.OmitArgPrefixes[SGDConfig] = field(default_factory=SGDConfig)

    @property
    def train_samples(self) -> int:
        """Size of the train set, which decides the length of an epoch."""
        return self.data.train_images


PRESETS: dict[str, ImageCommand] = {
    "smoke": ImageCommand(
        preset="smoke",
        data=ImagesConfig(train_images=2_000, test_images=2_000),
        model=ImageModelConfig(width=0.25),
        training=SGDConfig(epochs=30, measure_every=2),
    ),
    "cpu": ImageCommand(
        preset="cpu",
        data=ImagesConfig(train_images=5_000),
        model=ImageModelConfig(width=0.5),
        training=SGDConfig(epochs=80, measure_every=5),
        checkpoint_every=390,
    ),
    "paper-nc": ImageCommand(
        preset="paper-nc",
        seeds=(1,),
        model=ImageModelConfig(precision="bfloat16"),
        training=SGDConfig(epochs=250, measure_every=5),
        checkpoint_every=3_905,
    ),
    "paper-rf": ImageCommand(
        preset="paper-rf",
        seeds=(1,),
        model=ImageModelConfig(precision="bfloat16"),
        training=SGDConfig(epochs=400, measure_every=5),
        checkpoint_every=3_905,
    ),
}
"""Paper A: SGD 0.01, momentum 0.9, no weight decay, batch 64, constant rate, no augmentation; its seeds were 1, 42 and
15213. The small presets take its rate, momentum and batch."""


def split_of(command: ImageCommand, seed: int) -> Split:
    """The fixed list of images, with the seed's label noise."""
    images, data = _loaded(command.data_path, command.download), command.data
    split = image_split(
        images,
        train_images=data.train_images,
        test_images=data.test_images,
        label_noise=data.label_noise,
        seed=seed,
    )
    return replace(split, augmented=data.augment)


@cache
def _loaded(path: Path | None, download: bool) -> Images:
    return load_cifar10(path, download=download)


def build_model(command: ImageCommand, split: Split, seed: int) -> nn.Module:
    """The network with the seed's initial weights."""
    torch.manual_seed(torch_seed(seed, "weights"))
    config, bfloat16 = command.model, command.model.precision == "bfloat16"
    if config.network == "wide_resnet":
        return WideResNet(split.num_classes, depth=config.depth, widen=round(config.width), bfloat16=bfloat16)
    return resnet18(split.num_classes, stem=config.stem, width=config.width, bfloat16=bfloat16)
