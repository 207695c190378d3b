"""The configs of the grokking experiment: data, models and presets, as frozen dataclasses; the flags come from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from experiments.parallel import Together
from grokcore import Intervention, UsageError
from grokcore.data.modular import modular_arithmetic
from grokcore.data.permutations import S5, permutation_composition
from grokcore.data.split import Split
from grokcore.models.mlp import EmbeddingMLP
from grokcore.models.transformer import EquationTransformer
from grokcore.training.provenance import ROOT
from grokcore.training.schedules import torch_seed
from grokcore.training.step import TrainingConfig

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
class Command:
    """What the command line says: options of this call, and the config that decides the result."""

    arm: str = "baseline"
    """The arm (see experiments/arms.py), or all."""
    preset: str = "quick"
    """quick: an embedding MLP that groks in a minute; transformer: paper A's model at a tenfold learning rate, in
    minutes; paper: paper A's set-up, an hour or more."""
    seeds: tuple[int, ...] = (0,)
    """Each seed draws its own split, noise, initial weights and batches."""
    together: Together = "auto"
    """How several runs are done: processes (one a core, which share its threads), batched (an arm's seeds as one
    model), no (one after another), auto (processes on a CPU, batched on a GPU)."""
    runs: Path = Path("runs")
    """Where run folders go."""
    results: Path = ROOT / "paper" / "results"
    """Where recorded results lie; the baseline's is drawn in grey."""
    fresh: bool = False
    """Start anew beside earlier runs of the same config."""
    device: str = "cpu"
    """cpu or cuda, which has not been tried yet."""
    threads: int = 2
    """CPU threads of a run, if not in processes; results repeat bit for bit at the same number."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: tuple[float, ...] = (0.5,)
    """Checkpoints that stay, for forks: steps, or below 1 fractions of the run."""
    trunk: Annotated[str, tyro.conf.arg(name="from", metavar="RUN@STEP")] = ""
    """Fork: start from another run's checkpoint; RUN is an arm, a run's id or its folder."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: tyro.conf.OmitArgPrefixes[MLPConfig] = field(default_factory=MLPConfig)
    training: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    intervention: tyro.conf.OmitArgPrefixes[Intervention] = field(default_factory=Intervention)

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**32 or len(set(self.seeds)) < len(self.seeds):
            raise UsageError("--seeds takes one or more different numbers from 0 to 4294967295")
        if not 1 <= self.threads <= 1024:
            raise UsageError(f"--threads must lie between 1 and 1024, got {self.threads}")
        if self.checkpoint_every < 1:
            raise UsageError(f"--checkpoint-every must be at least 1, got {self.checkpoint_every}")
        if any(not 0 < at < 10**9 for at in self.keep):
            raise UsageError("--keep takes steps, or fractions of the run between 0 and 1")

    @property
    def kept_steps(self) -> frozenset[int]:
        """The steps whose checkpoints stay."""
        return frozenset(round(at * self.training.steps if at < 1 else at) for at in self.keep)


@dataclass(frozen=True)
class TransformerCommand(Command):
    """The same with the transformer's settings."""

    model: tyro.conf.OmitArgPrefixes[TransformerConfig] = field(default_factory=TransformerConfig)  # type: ignore[assignment]


_HALF = DataConfig(train_fraction=0.5)

PRESETS: dict[str, Command] = {
    "quick": Command(preset="quick", training=TrainingConfig(steps=8_000, measurements=60)),
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


def build_model(command: Command, split: Split, seed: int) -> nn.Module:
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
