"""CIFAR-10 under arms that encourage, prevent or release collapse and flatness.

    python -m experiments.cifar10 --preset smoke --arm ncc_prevent
    python -m experiments.cifar10 --arm baseline --seeds 0 1 2
    python -m experiments.cifar10 --arm ncc_prevent --lambdas 1e-2 1e-3 1e-4
    python -m experiments.cifar10 --arm ncc_prevent+flatness_encourage --augment
    python -m experiments.cifar10 --arm flatness_release --from flatness_prevent@0.5
    python -m experiments.cifar10 --preset paper-nc --device cuda

Protocol: paper A ("Flatness is Necessary, Neural Collapse is Not", NeurIPS 2025) on CIFAR-10 in the presets paper-nc
and paper-rf; smoke and cpu are smaller and no reproductions of it. Measurements: eval mode, whole train and test
sets of the preset, images as they are, raw features, temperature 1, in every arm, through `grokcore.measure`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experiments.cifar10_config import PRESETS, ImageCommand, build_model, split_of
from experiments.command import Experiment
from experiments.predictions import collapse_curve_columns
from experiments.runner import run_experiment
from grokcore.commandline import run_command
from grokcore.training.captured import CapturedStep
from grokcore.training.epochs import HEADER, comparison, summarise
from grokcore.training.measurement import measurement_row
from grokcore.training.step import Trainer

CHUNK = 500
"""Images a forward pass takes while measuring."""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    return run_experiment(EXPERIMENT, argv)


def measure_row(trainer: Trainer) -> dict[str, float]:
    """The epoch and its metrics, with the collapse curve's prediction (theory B1) at the measured gap and gamma."""
    row = measurement_row(trainer, chunk=CHUNK)
    epoch = {"epoch": trainer.steps_done / trainer.batches.batches}
    return epoch | row | collapse_curve_columns(row, trainer.data.num_classes)


def prepare(command: ImageCommand, trainer: Trainer) -> None:
    """What a GPU wants: weights with their channels last, and the step as a graph where that is asked for."""
    if trainer.data.train_labels.is_cuda:
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32, in every measurement too
        trainer.model.to(memory_format=torch.channels_last)
    if command.capture:
        CapturedStep(trainer)


EXPERIMENT = Experiment(
    name="cifar10",
    presets=PRESETS,
    first_preset="cpu",
    split_of=split_of,
    build_model=build_model,
    measure_row=measure_row,
    summarise=summarise,
    header=HEADER,
    comparison=comparison,
    batchable=False,
    prepare=prepare,
)


if __name__ == "__main__":
    run_command(main)
