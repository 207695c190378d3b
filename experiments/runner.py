"""The command line behind every experiment: parse, run every arm and seed, print what happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.arms import ARMS, CELLS, COMPARED, LAMBDAS, NOT_TUNED, arm_named, with_lambda
from experiments.cli import parse, peek
from experiments.command import PARTS, Command, Experiment
from experiments.forks import Trunk, find_trunk, fork_config
from experiments.naming import plain_data, variant
from experiments.parallel import Failure, Job, run_in_processes, share, usable_cores, way_of
from grokcore import DivergedError, Intervention, UsageError
from grokcore.data.split import Split
from grokcore.documents import plain
from grokcore.errors import InterruptedRunError
from grokcore.training.figures import arms_figure, run_figure, save
from grokcore.training.loop import ProgressBar, Run, train_together
from grokcore.training.memory import explained
from grokcore.training.provenance import origin
from grokcore.training.record import Record, read_records, record_of
from grokcore.training.run_folder import RunFolder, last_path, newest
from grokcore.training.step import Trainer

SEVERAL = {"all": tuple(ARMS), "factorial": tuple(CELLS)}
"""Words for several arms."""


def run_experiment(experiment: Experiment, argv: Sequence[str]) -> int:
    """Parse, run every arm and seed, print what happened; the exit code."""
    commands = commands_of(experiment, argv)
    device = _device(commands[0])
    if commands[0].preset in NOT_TUNED and any(command.intervention != Intervention() for command in commands):
        print(f"note: the arms' coefficients are not tuned for --preset {commands[0].preset}", file=sys.stderr)
    runs = [(command, seed) for command in commands for seed in command.seeds]
    _refuse_early(experiment, runs)
    way = way_of(commands[0].together, device, len(runs), usable_cores(), batchable=experiment.batchable)
    records, code = list[Record](), 0
    if way == "processes":
        workers, threads = share(len(runs), usable_cores())
        each = [(replace(command, threads=threads), seed) for command, seed in runs]
        jobs = [
            Job(_name(command, seed), partial(run_one, experiment, command, seed, device)) for command, seed in each
        ]
        found = iter(run_in_processes(jobs, workers))
    else:
        groups = [(c, c.seeds) for c in commands] if way == "batched" else [(c, (seed,)) for c, seed in runs]
        found = (outcome for command, seeds in groups for outcome in run_seeds(experiment, command, seeds, device))
    for (command, seed), outcome in zip(runs, found, strict=True):
        if isinstance(outcome, Record):
            records.append(outcome)
            continue
        failure = outcome if isinstance(outcome, Failure) else Failure.of(outcome)
        code = max(code, failure.code)
        if way != "processes":  # which have said so when it happened
            print(f"error: {_name(command, seed)} {failure.message}", file=sys.stderr)
    if len(records) > 1:
        print("\n" + plain(experiment.header, experiment.comparison(records, COMPARED)))
        path = commands[0].runs / experiment.name / "comparison.png"
        save(arms_figure(records), path)
        print(f"figure: {path}")
    return code


def commands_of(experiment: Experiment, argv: Sequence[str]) -> list[Command]:
    """A command for each arm and lambda that the command line asks for.

    Raises:
        UsageError: it cannot be acted on.
    """
    chosen = peek(argv, arm="baseline", preset=experiment.first_preset)
    if chosen["preset"] not in experiment.presets:
        raise UsageError(f"unknown preset {chosen['preset']!r} (presets: {', '.join(experiment.presets)})")
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


def _name(command: Command, seed: int) -> str:
    return " ".join([command.arm, *(f"lambda {value:g}" for value in command.lambdas), f"seed {seed}"])


def _refuse_early(experiment: Experiment, runs: Sequence[tuple[Command, int]]) -> None:
    """What cannot be run is said before anything is."""
    command, seed = runs[0]
    split = experiment.split_of(command, seed)
    experiment.build_model(command, split, seed)
    _require_results(command.results)
    for command, seed in runs:
        if command.trunk:
            trunk, config = forked(experiment, command, seed, run_config(experiment, command, seed, split))
            if not last_path(newest(command.runs, config, fresh=command.fresh)).exists():
                trunk.start()


def make_deterministic() -> None:
    """Have CUDA repeat itself where it can; PyTorch warns where it cannot, as in a max-pool's gradient."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a kernel a tensor


def run_one(
    experiment: Experiment,
    command: Command,
    seed: int,
    device: torch.device,
    bar: Callable[..., ProgressBar] = tqdm,
) -> Record:
    """One arm and seed, from the last checkpoint if there is one; writes its folder and returns its record."""
    (outcome,) = run_seeds(experiment, command, (seed,), device, bar)
    if isinstance(outcome, DivergedError):
        raise outcome
    return outcome


def run_seeds(
    experiment: Experiment,
    command: Command,
    seeds: Sequence[int],
    device: torch.device,
    bar: Callable[..., ProgressBar] = tqdm,
) -> list[Record | DivergedError]:
    """Seeds of one arm, several as one batched model, from their last checkpoints; writes their folders. A seed that
    diverged gives its error in place of its record."""
    torch.set_num_threads(command.threads)
    if device.type == "cuda":  # on a CPU everything here repeats bit for bit without it
        make_deterministic()
    with ExitStack() as held, explained(device):
        folders, runs = list[tuple[RunFolder, list[Record]]](), dict[int, Run]()
        for index, seed in enumerate(seeds):
            split = experiment.split_of(command, seed)
            config, trunk = run_config(experiment, command, seed, split), None
            if command.trunk:
                trunk, config = forked(experiment, command, seed, config)
            baselines = comparable_baselines(config, command.results)
            place = RunFolder(command.runs, config, origin(device, command.threads), fresh=command.fresh)
            folder = held.enter_context(place)
            folders.append((folder, baselines))
            if folder.summary is not None:
                print(f"{command.arm}, seed {seed}: finished before in {folder.path} (--fresh starts anew)")
                continue
            model = experiment.build_model(command, split, seed).to(device)
            trainer = Trainer(model, "head", split.to(device), command.training, command.intervention, seed)
            if experiment.prepare is not None:
                experiment.prepare(command, trainer)
            print(f"{command.arm}, seed {seed}: {folder.path}")
            if trunk is not None and not folder.begun:
                folder.begin(*trunk.start())
                print(f"  from step {trunk.step} of {trunk.folder}")
            runs[index] = Run(trainer, folder, partial(experiment.measure_row, trainer))
        try:
            ended = train_together(
                list(runs.values()),
                checkpoint_every=command.checkpoint_every,
                keep=command.kept_steps,
                progress=_progress,
                bar=bar,
            )
        except InterruptedRunError:
            for index in runs:
                _draw(*folders[index])  # it shows how far the run came
            raise
        outcomes = dict(zip(runs, ended, strict=True))
        for index, rows in outcomes.items():
            if not isinstance(rows, DivergedError):
                folders[index][0].finish(experiment.summarise(rows))
        found: list[Record | DivergedError] = []
        for index, (folder, baselines) in enumerate(folders):
            record, end = _draw(folder, baselines), outcomes.get(index)
            found.append(end if isinstance(end, DivergedError) else record)
            for sentence in record.summary.get("words", []):
                print(f"  {sentence}")
            if (folder.path / "figure.png").exists():
                print(f"  figure: {folder.path / 'figure.png'}")
        return found


def _draw(folder: RunFolder, baselines: Sequence[Record]) -> Record:
    record = record_of(folder.path)
    if len(record.rows) > 2:  # fewer make no curve
        save(run_figure(record, baselines), folder.path / "figure.png")
    return record


def comparable_baselines(config: dict[str, Any], results: Path) -> list[Record]:
    """Recorded baseline runs that differ from a run's config in nothing but the arm and the seed."""
    _require_results(results)
    if config["arm"] == "baseline":
        return []
    same = ("data", "model", "training")
    return [
        baseline
        for baseline in read_records(results, config["experiment"], config["preset"])
        if baseline.config["arm"] == "baseline"
        and "fork" not in baseline.config
        and baseline.config["intervention"] == plain_data(Intervention())
        and all(baseline.config[k] == config[k] for k in same)
    ]


def _require_results(results: Path) -> None:
    if not results.is_dir() and results != Command().results:
        raise UsageError(f"--results: there is no folder {results}")


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
    default = _defaults(experiment, command.arm, command.preset)
    return [token for part in parts for token in variant(getattr(command, part), getattr(default, part))]


def _command_for(experiment: Experiment, arm: str, preset: str, argv: Sequence[str]) -> Command:
    default = _defaults(experiment, arm, preset)
    return replace(parse(default, argv, f"python -m experiments.{experiment.name}"), arm=arm)


def _defaults(experiment: Experiment, arm: str, preset: str) -> Command:
    return replace(experiment.presets[preset], arm=arm, intervention=arm_named(arm).coefficients[preset])


def _device(command: Command) -> torch.device:
    try:
        device = torch.device(command.device)
    except RuntimeError:
        raise UsageError(f"unknown device {command.device!r} (cpu or cuda)") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine or this PyTorch has no CUDA GPU")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {command.device!r} (cpu or cuda)")
    return device


def _progress(row: dict[str, Any]) -> str:
    return (
        f"train {100 * row['train_accuracy']:.1f} % test {100 * row['test_accuracy']:.1f} % "
        f"kappa {row['train_kappa']:.3g} CDNV {row['train_cdnv']:.3g}"
    )
