"""The configs of the dynamics experiment (paper B): data, models, training and presets, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from experiments.cifar10_config import PRESETS as CIFAR10
from experiments.cifar10_config import ImageCommand
from experiments.command import Command
from grokcore import UsageError
from grokcore.data.grey_images import GreyImages, load_digits, load_mnist, stratified_split
from grokcore.data.split import Split
from grokcore.errors import require_finite
from grokcore.models.image_mlp import ImageMLP
from grokcore.models.one_layer_vit import OneLayerViT
from grokcore.models.small_cnn import SmallCNN
from grokcore.training.config import Parameters, TrainingConfig
from grokcore.training.schedules import torch_seed

FIT_DECAYS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02)
"""The weight decays of the law's fit."""
PAPER_DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Paper B's six."""
THEORY_DECAYS = (0.05, 0.03, 0.02, 0.01, 0.005)
"""Of the theory's own setting: at 0.1 decay alone takes every weight to zero."""
PATCHES = {28: 7, 8: 2}
"""The ViT's patch by the images' side."""


@dataclass(frozen=True)
class GreyData:
    """Which images."""

    source: Literal["auto", "mnist", "digits"] = "auto"
    """mnist (or a set in its form, by --data-path), digits (scikit-learn's, nothing to fetch), auto: MNIST where it is
    found, else the digits."""
    train_images: int = 1_000
    """Train images, as many of each class, drawn by the seed; the test set is whole."""
    label_noise: float = 0.0
    """Share of the train labels replaced by another class, drawn by the seed."""


@dataclass(frozen=True)
class GreyModel:
    """A small model of grey images."""

    network: Literal["mlp", "cnn", "vit"] = "mlp"
    """mlp (paper B's 784-200-200-200-10), cnn, or vit (one block)."""
    hidden: tuple[int, ...] = (200, 200, 200)
    """Widths of the MLP's layers; the last is the number of features."""
    linear_pair: bool = False
    """The MLP's last two layers linear, the setting of theory D3."""
    init_scale: float = 8.0
    """Every initial parameter is multiplied by this."""

    def __post_init__(self) -> None:
        require_finite(self)
        if self.init_scale <= 0:
            raise UsageError(f"--init-scale must be positive, got {self.init_scale:g}")
        if self.network != "mlp" and self.linear_pair:
            raise UsageError("--linear-pair belongs to the mlp")


@dataclass(frozen=True)
class DynamicsTraining(TrainingConfig):
    """AdamW on small batches, or full-batch gradient descent."""

    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 100
    """Samples a step; gd takes all."""
    warmup: int = 0
    """Steps of linear warm-up."""
    beta2: float = 0.999
    """AdamW's beta2."""
    weight_decay: float = 0.01
    """AdamW's decoupled one; gd's l in the penalty (l/2) ||all parameters||^2."""
    measurements: int = 120
    """Number of log-spaced steps at which everything is measured, besides step 0."""
    loss: Literal["squared", "cross_entropy"] = "squared"  # type: ignore[misc]
    """squared: (1/2)||f(x) - y||^2 summed over outputs, mean over samples."""
    information: bool = False
    """Estimate information at every measurement too, with its nulls: seconds each."""
    optimizer: Literal["adamw", "gd"] = "adamw"
    """adamw, or gd: gradient descent on the whole train set, no momentum (paper B's theory)."""

    def new_optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The optimiser over some parameters, or groups of them, without state."""
        if self.optimizer == "adamw":
            return super().new_optimizer(parameters)
        return torch.optim.SGD(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class DynamicsCommand(Command):
    """The command line of the dynamics experiment."""

    preset: str = "grey"
    """grey: paper B's run on MNIST or the digits, 100,000 steps; quick: the same on the digits in a minute or two;
    theory: gradient descent on all of 100 images, a linear pair of last layers, a first layer of 200; resnet: ResNet-18
    on CIFAR-10 with the flags of experiments.cifar10, whose preset cpu it is (cross-entropy, SGD, usual weights)."""
    weight_decays: tuple[float, ...] = ()
    """A run for each of these; the preset's own where none is given."""
    data_path: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """MNIST's four files, or those of a set in its form (Fashion-MNIST); looked up where not given."""
    data: tyro.conf.OmitArgPrefixes[GreyData] = field(default_factory=GreyData)
    model: tyro.conf.OmitArgPrefixes[GreyModel] = field(default_factory=GreyModel)
    training: tyro.conf.OmitArgPrefixes[DynamicsTraining] = field(default_factory=DynamicsTraining)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_decays(self.weight_decays)

    @property
    def train_samples(self) -> int:
        """Size of the train set."""
        return self.data.train_images


@dataclass(frozen=True)
class ResidualCommand(ImageCommand):
    """The command line of the preset resnet: that of the cifar10 experiment, a run for each weight decay."""

    weight_decays: tuple[float, ...] = ()
    """A run for each of these; the preset's own where none is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_decays(self.weight_decays)


def _require_decays(decays: tuple[float, ...]) -> None:
    if len(set(decays)) < len(decays) or not all(decay >= 0 for decay in decays):
        raise UsageError("--weight-decays takes different numbers from 0 on")


PRESETS: dict[str, DynamicsCommand | ResidualCommand] = {
    "grey": DynamicsCommand(checkpoint_every=5_000),
    "quick": DynamicsCommand(
        preset="quick",
        data=GreyData(source="digits", train_images=500),
        model=GreyModel(hidden=(64, 64, 64), init_scale=4.0),
        training=DynamicsTraining(steps=8_000, weight_decay=0.3, measurements=60),
        weight_decays=(1.0, 0.3, 0.1),
        checkpoint_every=1_000,
    ),
    "theory": DynamicsCommand(
        preset="theory",
        data=GreyData(train_images=100),
        model=GreyModel(hidden=(200, 100, 100), linear_pair=True, init_scale=3.0),
        training=DynamicsTraining(
            optimizer="gd", batch_size=100, learning_rate=0.003, weight_decay=0.03, steps=100_000, measurements=120
        ),
        weight_decays=THEORY_DECAYS,
        checkpoint_every=5_000,
    ),
    "resnet": ResidualCommand(
        preset="resnet",
        data=CIFAR10["cpu"].data,
        model=CIFAR10["cpu"].model,
        training=replace(CIFAR10["cpu"].training, weight_decay=5e-4),
        checkpoint_every=CIFAR10["cpu"].checkpoint_every,
    ),
}


def split_of(command: DynamicsCommand, seed: int) -> Split:
    """The seed's own draw."""
    data = command.data
    images = _loaded(data.source, command.data_path)
    return stratified_split(images, train_images=data.train_images, label_noise=data.label_noise, seed=seed)


@cache
def _loaded(source: str, path: Path | None) -> GreyImages:
    if source == "digits":
        if path is not None:
            raise UsageError("--data-path belongs to sets in MNIST's form: the digits come with scikit-learn")
        return load_digits()
    try:
        return load_mnist(path)
    except UsageError:
        if source == "auto" and path is None:
            return load_digits()
        raise


def data_name(command: DynamicsCommand) -> str:
    """What the data are called in a result's name."""
    return _loaded(command.data.source, command.data_path).name.lower().replace("+", "plus").replace(" ", "-")


def build_model(command: DynamicsCommand, split: Split, seed: int) -> nn.Module:
    """The network with the seed's initial weights, scaled."""
    torch.manual_seed(torch_seed(seed, "weights"))
    config, (_, _, side, across) = command.model, split.train_inputs.shape
    if side != across and config.network != "mlp":
        raise UsageError(f"--network {config.network} takes square images, these are {side}x{across}")
    model: nn.Module
    if config.network == "mlp":
        model = ImageMLP(side * across, split.num_classes, hidden=config.hidden, linear_pair=config.linear_pair)
    elif config.network == "cnn":
        model = SmallCNN(side, split.num_classes)
    else:
        model = OneLayerViT(side, split.num_classes, patch=PATCHES.get(side, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(config.init_scale)
    return model
