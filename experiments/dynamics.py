"""Two clocks and the information bottleneck (paper B): fit, contraction, generalisation, and the bounds along the way.

    python -m experiments.dynamics --preset quick
    python -m experiments.dynamics --weight-decays 1 0.5 0.3 0.2 0.1 0.05 0.03 0.02 --seeds 0 1 2 3 4
    python -m experiments.dynamics --network cnn --seeds 0
    python -m experiments.dynamics --preset resnet               # ResNet-18 on CIFAR-10, as cifar10's cpu preset
    python -m experiments.dynamics --data-path fashion/          # a set in MNIST's form
    python -m experiments.dynamics --preset theory               # gradient descent, a linear pair of last layers

Protocol: paper B's MLP on 1,000 images drawn per seed, init x8, squared loss, AdamW 1e-3. Measurements: eval mode,
whole train and test sets, through `grokcore.measure` and the functions of E1, E2 and D3. Several runs are batched
models, one a core: they may differ in seed and weight decay. ResNets are not batched, as batch norm cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from experiments import cifar10, cifar10_config
from experiments.cli import parse
from experiments.command import Command, Experiment
from experiments.commands import arm_and_preset
from experiments.dynamics_config import (
    PRESETS,
    DynamicsCommand,
    ResidualCommand,
    build_model,
    data_name,
    split_of,
)
from experiments.dynamics_rows import measure_row
from experiments.naming import token
from experiments.runner import run_commands
from grokcore import UsageError
from grokcore.commandline import run_command
from grokcore.training.clocks import HEADER, comparison, summarise

AnyCommand = DynamicsCommand | ResidualCommand
SAYS = {"arm": "The baseline: arms belong to experiments.grokking and experiments.cifar10."}
"""What --help says of --arm."""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    commands = commands_of(argv)
    return run_commands(RESIDUAL if isinstance(commands[0], ResidualCommand) else GREY, commands)


def commands_of(argv: Sequence[str]) -> list[AnyCommand]:
    """A command for each weight decay.

    Raises:
        UsageError: it cannot be acted on.
    """
    preset = arm_and_preset(GREY, argv)["preset"]
    command: AnyCommand = parse(PRESETS[preset], argv, "python -m experiments.dynamics", SAYS)
    if command.arm != "baseline" or command.lambdas or command.trunk:
        raise UsageError("--arm, --lambdas and --from belong to grokking and cifar10")
    decays = command.weight_decays or (command.training.weight_decay,)
    return [_named(replace(command, training=replace(command.training, weight_decay=d))) for d in decays]


def default_of(command: AnyCommand) -> Command:
    """The preset with what the run's name says already: data, model and weight decay."""
    preset = PRESETS[command.preset]
    changed = {"arm": command.arm, "model": replace(preset.model, network=command.model.network)}
    changed["training"] = replace(preset.training, weight_decay=command.training.weight_decay)
    if isinstance(command, DynamicsCommand):
        changed["data"] = replace(preset.data, source=command.data.source)
    return replace(preset, **changed)


def _named(command: AnyCommand) -> AnyCommand:
    """With its arm's place in a result's name: data, model and weight decay, like ``mnist-mlp-wd0.1``."""
    data = data_name(command) if isinstance(command, DynamicsCommand) else "cifar10"
    name = f"{data}-{command.model.network}-wd{token(command.training.weight_decay)}"
    return replace(command, arm=name, weight_decays=())


GREY = Experiment(
    name="dynamics",
    presets=PRESETS,
    first_preset="grey",
    split_of=split_of,
    build_model=build_model,
    measure_row=measure_row,
    summarise=summarise,
    header=HEADER,
    comparison=comparison,
    batchable=True,
    together="batches",
    default_of=default_of,
)
RESIDUAL = replace(
    GREY,
    split_of=cifar10_config.split_of,
    build_model=cifar10_config.build_model,
    measure_row=partial(measure_row, chunk=cifar10.CHUNK),
    batchable=False,
    together="processes",
    prepare=cifar10.prepare,
)


if __name__ == "__main__":
    run_command(main)
