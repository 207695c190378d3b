"""The configs of the grokking experiment: data, models and presets, as frozen dataclasses; the flags come from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import tyro
from torch import nn

from experiments.command import Command
from grokcore import UsageError
from grokcore.data.modular import modular_arithmetic
from grokcore.data.permutations import S5, permutation_composition
from grokcore.data.split import Split
from grokcore.models.mlp import EmbeddingMLP
from grokcore.models.transformer import EquationTransformer
from grokcore.training.config import TrainingConfig
from grokcore.training.schedules import torch_seed

VOCABULARY = 239
"""Tokens of the published vocabulary: 97 numbers, 120 permutations, operators, = and <eos>."""


@dataclass(frozen=True)
class DataConfig:
    """The equations and their split; each seed draws its own."""

    operation: str = "x+y"
    """An expression in x and y with + - * / ^ and integers, mod p; or s5: composition of permutations."""
    p: int = 97
    """The modulus; prime where the operation divides; s5 has none."""
    train_fraction: float = 0.4
    """Share of the equations that is trained on."""
    label_noise: float = 0.0
    """Share of the train labels replaced by another class; the test set stays clean."""

    def __post_init__(self) -> None:
        if self.operation.strip().lower() == S5:
            object.__setattr__(self, "operation", S5)  # one setting, one name
            if self.p != 97:
                raise UsageError("--operation s5 has no modulus: leave --p out")


@dataclass(frozen=True)
class MLPConfig:
    """The embedding MLP."""

    embedding: int = 128
    """Width of a token's embedding."""
    hidden: tuple[int, ...] = (256, 128)
    """Widths of the ReLU layers; the last is the number of features."""
    head_bias: bool = False
    """Give the head a bias."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.embedding, *self.hidden) < 1 or max(self.embedding, *self.hidden) > 65_536:
            raise UsageError("--embedding and --hidden take widths from 1 to 65536")


@dataclass(frozen=True)
class TransformerConfig:
    """The decoder transformer."""

    layers: int = 2
    """Blocks."""
    heads: int = 4
    """Attention heads of a block."""
    width: int = 128
    """Width of embeddings, blocks and features."""
    head: Literal["answer", "vocabulary"] = "answer"
    """answer: a row an answer, the answer the only target; vocabulary: the published 239 rows and two targets."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the blocks while training; weights, head and every measurement are float32 or wider."""

    def __post_init__(self) -> None:
        if not (1 <= self.layers <= 64 and 1 <= self.heads <= 1024 and 2 <= self.width <= 16_384):
            raise UsageError("--layers takes 1 to 64, --heads 1 to 1024, --width 2 to 16384")
        if self.width % self.heads or self.width % 2:
            raise UsageError(f"--width must be even and a multiple of --heads, got {self.width} and {self.heads}")


@dataclass(frozen=True)
class GrokkingCommand(Command):
    """The command line of an embedding MLP."""

    preset: str = "quick"
    """quick: an embedding MLP that groks in a minute; transformer: paper A's model at a tenfold learning rate, in
    minutes; paper: paper A's set-up, an hour or more."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: tyro.conf.OmitArgPrefixes[MLPConfig] = field(default_factory=MLPConfig)
    training: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class TransformerCommand(GrokkingCommand):
    """The same with the transformer's settings."""

    model: tyro.conf.OmitArgPrefixes[TransformerConfig] = field(default_factory=TransformerConfig)


_HALF = DataConfig(train_fraction=0.5)

PRESETS: dict[str, GrokkingCommand] = {
    "quick": GrokkingCommand(preset="quick", training=TrainingConfig(steps=8_000, measurements=60)),
    "transformer": TransformerCommand(
        preset="transformer", data=_HALF, training=TrainingConfig(steps=4_000, learning_rate=1e-3, measurements=60)
    ),
    "paper": TransformerCommand(
        preset="paper", data=_HALF, training=TrainingConfig(steps=100_000, learning_rate=1e-4, measurements=150)
    ),
}


def split_of(config: DataConfig, seed: int) -> Split:
    """The seed's own split."""
    if config.operation == S5:
        return permutation_composition(train_fraction=config.train_fraction, label_noise=config.label_noise, seed=seed)
    return modular_arithmetic(
        config.operation,
        config.p,
        train_fraction=config.train_fraction,
        label_noise=config.label_noise,
        seed=seed,
    )


def build_model(command: GrokkingCommand, split: Split, seed: int) -> nn.Module:
    """The preset's model with the seed's initial weights."""
    torch.manual_seed(torch_seed(seed, "weights"))
    config, classes = command.model, split.num_classes
    if isinstance(config, TransformerConfig):
        vocabulary = VOCABULARY if config.head == "vocabulary" else None
        if vocabulary is not None and classes + 3 > vocabulary:
            raise UsageError(f"--head vocabulary has room for moduli up to {vocabulary - 3}, got {classes}")
        return EquationTransformer(
            classes,
            classes,
            layers=config.layers,
            heads=config.heads,
            width=config.width,
            vocabulary=vocabulary,
            bfloat16=config.precision == "bfloat16",
        )
    return EmbeddingMLP(
        classes,
        classes,
        embedding=config.embedding,
        hidden=config.hidden,
        head_bias=config.head_bias,
    )
