"""From a command line to commands, a run each arm and seed, and from a command to what decides its run's result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.arms import ARMS, CELLS, LAMBDAS, arm_named, with_lambda
from experiments.cli import parse, peek
from experiments.command import PARTS, Command, Experiment
from experiments.forks import Trunk, find_trunk, fork_config
from experiments.naming import plain_data, variant
from grokcore import UsageError
from grokcore.data.split import Split
from grokcore.training.run_folder import newest

SEVERAL = {"all": tuple(ARMS), "factorial": tuple(CELLS)}
"""Words for several arms."""
SAYS = {
    "arm": f"{', '.join(ARMS)}; two joined by a plus (collapse and flatness); all of these; or factorial, all nine "
    "pairs of {encourage, off, prevent}."
}
"""What --help says of --arm."""


def commands_of(experiment: Experiment, argv: Sequence[str]) -> list[Command]:
    """A command for each arm and lambda that the command line asks for.

    Raises:
        UsageError: it cannot be acted on.
    """
    chosen = arm_and_preset(experiment, argv)
    arms = SEVERAL.get(chosen["arm"], (chosen["arm"],))
    commands = [_command_for(experiment, arm, chosen["preset"], argv) for arm in arms]
    if len(arms) > 1 and any(command_variant(experiment, c, ["intervention"]) or c.lambdas for c in commands):
        raise UsageError(
            f"--arm {chosen['arm']} takes each arm with its own coefficients; change them one arm at a time"
        )
    swept = [command for command in commands if command.lambdas]
    if any(
        getattr(c.intervention, weight) != getattr(arm_named(c.arm).coefficients[c.preset], weight)
        for c in swept
        for weight in LAMBDAS
    ):
        raise UsageError("--lambdas sets the weight of the arm's penalty: leave the weights' own flags out")
    commands = [
        replace(
            command, intervention=with_lambda(command.intervention, value), lambdas=() if value is None else (value,)
        )
        for command in commands
        for value in command.lambdas or (None,)
    ]
    for command in commands:
        command.intervention.release_step(command.steps)
    return commands


def arm_and_preset(experiment: Experiment, argv: Sequence[str]) -> dict[str, str]:
    """The words of --arm and --preset, on which the other defaults depend; UsageError for an unknown preset."""
    chosen = peek(argv, arm="baseline", preset=experiment.first_preset)
    if chosen["preset"] not in experiment.presets:
        raise UsageError(f"unknown preset {chosen['preset']!r} (presets: {', '.join(experiment.presets)})")
    return chosen


def run_config(experiment: Experiment, command: Command, seed: int, split: Split) -> dict[str, Any]:
    """What decides the run's result, as plain data."""
    config = {"experiment": experiment.name, "preset": command.preset, "arm": command.arm, "seed": seed}
    config |= {part: plain_data(getattr(command, part)) for part in PARTS}
    config["data"] |= split.source
    config["training"]["steps"] = command.steps
    return config | {"variant": command_variant(experiment, command)}


def forked(experiment: Experiment, command: Command, seed: int, config: dict[str, Any]) -> tuple[Trunk, dict[str, Any]]:
    """The run that ``--from`` names, and the fork's config."""

    def folder_of_arm(name: str) -> Path | None:
        try:
            default = _defaults(experiment, name, command.preset)
        except UsageError:
            return None
        parts = {part: getattr(command, part) for part in PARTS if part != "intervention"}
        of_arm = replace(default, **parts)
        own = {"arm": name, "intervention": plain_data(of_arm.intervention)}
        return newest(command.runs, config | own | {"variant": command_variant(experiment, of_arm)})

    trunk = find_trunk(
        command.trunk, command.runs, config, folder_of_arm, command.training.measured_steps(command.train_samples)
    )
    release, steps = command.intervention.release_step(command.steps), command.steps
    if release is not None and release < trunk.step:
        raise UsageError(f"the release at step {release} lies before the fork at step {trunk.step}")
    natural_step = round(0.5 * steps) if release is None else release
    return trunk, fork_config(trunk, config, arm_named(command.arm).trunk, natural_step)


def command_variant(experiment: Experiment, command: Command, parts: Sequence[str] = PARTS) -> list[str]:
    """The settings that differ from the defaults of the command's arm and preset."""
    default_of = experiment.default_of
    default = default_of(command) if default_of else _defaults(experiment, command.arm, command.preset)
    return [token for part in parts for token in variant(getattr(command, part), getattr(default, part))]


def _command_for(experiment: Experiment, arm: str, preset: str, argv: Sequence[str]) -> Command:
    default = _defaults(experiment, arm, preset)
    return replace(parse(default, argv, f"python -m experiments.{experiment.name}", SAYS), arm=arm)


def _defaults(experiment: Experiment, arm: str, preset: str) -> Command:
    return replace(experiment.presets[preset], arm=arm, intervention=arm_named(arm).coefficients[preset])
