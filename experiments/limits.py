"""The limits of collapse (paper C): does it reach test data, does it hurt transfer, does it cascade through the layers?

    python -m experiments.limits test-collapse --preset digits --network cnn --seeds 0 1 2
    python -m experiments.limits test-collapse --preset grokking          # along paper A's grokking run
    python -m experiments.limits transfer --preset cifar10 --arm all      # baseline, ncc_encourage and ncc_prevent
    python -m experiments.limits cascade --preset cifar10

Protocol: "Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022), at a small scale.
Measurements: eval mode, whole train and test sets, raw features, through `grokcore.measure`; layers with positions are
averaged over them. Training is that of experiments.grokking, dynamics and cifar10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from experiments import cifar10
from experiments.cli import parse, peek
from experiments.command import Command, Experiment
from experiments.dynamics_config import ResidualCommand
from experiments.grokking_config import GrokkingCommand
from experiments.limits_config import (
    PRESETS,
    SAYS,
    STUDIES,
    TRANSFER_ARMS,
    AnyLimits,
    build_model,
    data_name,
    split_of,
    with_arm,
)
from experiments.limits_rows import cascade_row, collapse_on_test_data_row
from experiments.naming import token
from experiments.runner import run_commands
from experiments.transfer_rows import transfer_row
from grokcore import UsageError
from grokcore.commandline import run_command
from grokcore.training import cascade, collapse_verdict, transfer

CHUNK = 5_000
"""Samples a forward pass takes while measuring."""
FIRST = "digits"
"""The preset where none is named."""
ROWS = {"test-collapse": collapse_on_test_data_row, "transfer": transfer_row, "cascade": cascade_row}
SUMMARIES = {"test-collapse": collapse_verdict, "transfer": transfer, "cascade": cascade}


def main(argv: Sequence[str]) -> int:
    """The command line."""
    if argv and argv[0] in {"-h", "--help"}:
        print(f"{__doc__}\nFlags: python -m experiments.limits {'|'.join(STUDIES)} --help")
        return 0
    study, commands = commands_of(argv)
    return run_commands(experiment_of(study, commands[0]), commands)


def commands_of(argv: Sequence[str]) -> tuple[str, list[AnyLimits]]:
    """The study, and a command for each arm and weight decay.

    Raises:
        UsageError: it cannot be acted on.
    """
    if not argv or argv[0] not in STUDIES:
        raise UsageError(f"name a study first: python -m experiments.limits {'|'.join(STUDIES)}")
    study, words = argv[0], argv[1:]
    presets = PRESETS[study]
    chosen = peek(words, arm="baseline", preset=FIRST)
    if chosen["preset"] not in presets:
        raise UsageError(f"unknown preset {chosen['preset']!r} (presets: {', '.join(presets)})")
    arms = TRANSFER_ARMS if chosen["arm"] == "all" else (chosen["arm"],)
    commands: list[AnyLimits] = []
    for arm in arms:
        command = parse(
            with_arm(study, presets[chosen["preset"]], arm), words, f"python -m experiments.limits {study}", SAYS[study]
        )
        if command.lambdas or command.trunk:
            raise UsageError("--lambdas and --from belong to grokking and cifar10")
        decays = getattr(command, "weight_decays", ()) or (command.training.weight_decay,)
        commands += [
            _named(replace(command, training=replace(command.training, weight_decay=decay)), arm) for decay in decays
        ]
    if len({repr(replace(each, arm="")) for each in commands}) < len(commands):
        raise UsageError(f"--arm {chosen['arm']} takes each arm with its own coefficients")
    return study, commands


def default_of(study: str, command: AnyLimits) -> Command:
    """The preset with what the run's name says already: data, model, weight decay and arm."""
    name = command.arm.split("+", 1)
    preset = with_arm(study, PRESETS[study][command.preset], name[1] if len(name) > 1 else "baseline")
    changed = {"arm": command.arm, "training": replace(preset.training, weight_decay=command.training.weight_decay)}
    if hasattr(preset.model, "network"):
        changed["model"] = replace(preset.model, network=command.model.network)
    if hasattr(preset.data, "source"):
        changed["data"] = replace(preset.data, source=command.data.source)
    return replace(preset, **changed)


def experiment_of(study: str, command: AnyLimits) -> Experiment:
    """What the runner needs to know of a study on a command's kind of model."""
    residual, summary = isinstance(command, ResidualCommand), SUMMARIES[study]
    return Experiment(
        name=f"limits-{study}",
        presets=PRESETS[study],
        first_preset=FIRST,
        split_of=split_of,
        build_model=build_model,
        measure_row=partial(ROWS[study], chunk=cifar10.CHUNK if residual else CHUNK),
        summarise=summary.summarise,
        header=summary.HEADER,
        comparison=summary.comparison,
        batchable=not residual,
        default_of=partial(default_of, study),
        prepare=cifar10.prepare if residual else None,
    )


def _named(command: AnyLimits, arm: str) -> AnyLimits:
    """With its arm's place in a result's name: data, model and weight decay, like ``mnist-mlp-wd0.1``, then the arm."""
    network = "mlp" if isinstance(command, GrokkingCommand) else command.model.network
    name = f"{data_name(command)}-{network}-wd{token(command.training.weight_decay)}"
    named = replace(command, arm=name if arm == "baseline" else f"{name}+{arm}")
    return named if isinstance(named, GrokkingCommand) else replace(named, weight_decays=())


if __name__ == "__main__":
    run_command(main)
