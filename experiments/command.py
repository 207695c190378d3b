"""What every experiment's command line has, and what an experiment is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import nn

from experiments.parallel import Together
from grokcore import Intervention, UsageError
from grokcore.data.split import Split
from grokcore.files import ROOT
from grokcore.training.config import AnyConfig
from grokcore.training.record import Record
from grokcore.training.step import Trainer

PARTS = ("data", "model", "training", "intervention")
"""The parts of a command that decide a run's result."""


@dataclass(frozen=True)
class Command:
    """What the command line says: options of this call, and the config that decides the result.

    An experiment's own command adds the parts ``data``, ``model`` and ``training``, dataclasses whose fields are flags.
    """

    arm: str = "baseline"
    """The arm (experiments/arms.py)."""
    preset: str = ""
    """The preset."""
    seeds: tuple[int, ...] = (0,)
    """Each seed draws its own initial weights and batches."""
    lambdas: tuple[float, ...] = ()
    """Sweep: run the arm once with each of these as the lambda of its penalty (paper A's sign, loss - lambda penalty:
    positive prevents, negative encourages)."""
    together: Together = "auto"
    """How several runs are done: processes (one a core, which share its threads), batched (an arm's seeds as one
    model), batches (so in each process), no (one after another), auto (what is fastest on a CPU, batched on a GPU where
    the model can be)."""
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
        usable = all(math.isfinite(value) and value for value in self.lambdas)
        if len(set(self.lambdas)) < len(self.lambdas) or not usable:
            raise UsageError("--lambdas takes different numbers other than 0")

    @property
    def train_samples(self) -> int:
        """Size of the train set, where the length of a run depends on it; else 0."""
        return 0

    @property
    def steps(self) -> int:
        """Optimiser steps of a run."""
        config: AnyConfig = getattr(self, "training")  # noqa: B009 - an experiment's own command adds it
        return config.length(self.train_samples)

    @property
    def kept_steps(self) -> frozenset[int]:
        """The steps whose checkpoints stay."""
        return frozenset(round(at * self.steps if at < 1 else at) for at in self.keep)


@dataclass(frozen=True)
class Experiment:
    """What the runner needs to know of an experiment; functions of its module, so that it goes to other processes."""

    name: str
    presets: Mapping[str, Command]
    first_preset: str
    """The preset where none is named."""
    split_of: Callable[[Any, int], Split]
    """A command's data for a seed, on the CPU."""
    build_model: Callable[[Any, Split, int], nn.Module]
    """A command's model with the seed's initial weights, on the CPU."""
    measure_row: Callable[[Trainer], dict[str, float]]
    summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """A finished run's summary."""
    header: tuple[str, ...]
    comparison: Callable[[Sequence[Record], Sequence[str]], list[tuple[str, ...]]]
    """Rows of the table under `header`, arms in the given order."""
    batchable: bool
    """Whether seeds can be one batched model (no batch norm)."""
    together: Together = "processes"
    """What ``--together auto`` is on a CPU."""
    default_of: Callable[[Any], Command] | None = None
    """The command whose settings go without saying in a run's name; None: the preset with its arm's coefficients."""
    prepare: Callable[[Any, Trainer], None] | None = None
    """Called with a command and its trainer before it starts."""
