"""Grokking modular arithmetic under arms that encourage, prevent or release collapse and flatness.

    python -m experiments.grokking --arm ncc_prevent
    python -m experiments.grokking --arm all --seeds 0 1 2
    python -m experiments.grokking --arm flatness_release --release-at 0.25 --no-release-cap
    python -m experiments.grokking --preset transformer --arm flatness_release --from flatness_prevent@0.5

Protocol: paper A ("Flatness is Necessary, Neural Collapse is Not", NeurIPS 2025) on modular arithmetic: an embedding
MLP in the quick preset, the paper's decoder transformer in the presets transformer and paper. Measurements: eval mode,
whole train and test sets, raw features, temperature 1, in every arm, through `grokcore.measure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from experiments.command import Experiment
from experiments.grokking_config import PRESETS, GrokkingCommand, build_model, split_of
from experiments.predictions import collapse_curve_columns
from experiments.runner import run_experiment
from grokcore.capture import eval_mode
from grokcore.commandline import run_command
from grokcore.data.split import Split
from grokcore.models.transformer import EquationTransformer
from grokcore.training.measurement import measurement_row
from grokcore.training.milestones import summarise
from grokcore.training.published import product_surrogate
from grokcore.training.step import Trainer
from grokcore.training.table import HEADER, comparison


def main(argv: Sequence[str]) -> int:
    """The command line."""
    return run_experiment(EXPERIMENT, argv)


def measure_row(trainer: Trainer) -> dict[str, float]:
    """The row of metrics, with the collapse curve's prediction (theory B1) at the measured gap and gamma; with the
    published head, which has other rows than the classes', the published curve instead."""
    row = measurement_row(trainer)
    if getattr(trainer.model, "vocabulary", None) is not None:
        return row | published_columns(trainer)
    return row | collapse_curve_columns(row, trainer.data.num_classes)


def published_columns(trainer: Trainer) -> dict[str, float]:
    """What paper A's public code would have logged, on the whole train and test sets in eval mode."""
    model, data = cast(EquationTransformer, trainer.model), trainer.data
    row: dict[str, float] = {}
    with eval_mode(model), torch.no_grad():
        for split, (inputs, labels) in data.sets.items():
            found = product_surrogate(model.features_at_targets(inputs, labels), model.head.weight)
            row |= dict(zip((f"{split}_published_product", f"{split}_published_product_variance"), found, strict=True))
    return row


def _split(command: GrokkingCommand, seed: int) -> Split:
    return split_of(command.data, seed)


EXPERIMENT = Experiment(
    name="grokking",
    presets=PRESETS,
    first_preset="quick",
    split_of=_split,
    build_model=build_model,
    measure_row=measure_row,
    summarise=summarise,
    header=HEADER,
    comparison=comparison,
    batchable=True,
)


if __name__ == "__main__":
    run_command(main)
