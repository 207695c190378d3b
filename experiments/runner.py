"""The command line behind every experiment: parse, run every arm and seed, print what happened."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from experiments.arms import COMPARED, NOT_TUNED
from experiments.command import PARTS, Command, Experiment
from experiments.commands import commands_of, forked, run_config
from experiments.naming import plain_data
from experiments.parallel import Failure, Job, Together, run_in_processes, share, usable_cores, way_of
from grokcore import DivergedError, Intervention, UsageError
from grokcore.documents import plain
from grokcore.errors import InterruptedRunError
from grokcore.training.figures import arms_figure, run_figure, save
from grokcore.training.loop import ProgressBar, Run, train_together
from grokcore.training.memory import explained, keep_freed_memory
from grokcore.training.provenance import origin
from grokcore.training.record import Record, read_records, record_of
from grokcore.training.run_folder import RunFolder, last_path, newest
from grokcore.training.step import Trainer

Member = tuple[Command, int]
"""A run: a command and one of its seeds."""


def run_experiment(experiment: Experiment, argv: Sequence[str]) -> int:
    """Parse, run every arm and seed, print what happened; the exit code."""
    return run_commands(experiment, commands_of(experiment, argv))


def run_commands(experiment: Experiment, commands: Sequence[Command]) -> int:
    """Run every command's seeds, print what happened; the exit code."""
    device = _device(commands[0])
    if commands[0].preset in NOT_TUNED and any(command.intervention != Intervention() for command in commands):
        print(f"note: the arms' coefficients are not tuned for --preset {commands[0].preset}", file=sys.stderr)
    runs = [(command, seed) for command in commands for seed in command.seeds]
    _refuse_early(experiment, runs)
    cores, asked = usable_cores(), commands[0].together
    way = way_of(asked, device, len(runs), cores, batchable=experiment.batchable, on_cpu=experiment.together)
    groups = _groups(runs, way, cores)
    ended: Iterable[list[Record | DivergedError] | Failure]
    if way in ("processes", "batches"):
        workers, threads = share(len(groups), cores)
        jobs = [
            Job(_title(group), partial(_work, experiment, [(replace(c, threads=threads), s) for c, s in group], device))
            for group in groups
        ]
        ended = run_in_processes(jobs, workers)
    else:
        ended = (run_batch(experiment, group, device) for group in groups)
    records, code = list[Record](), 0
    for group, outcomes in zip(groups, ended, strict=True):
        if isinstance(outcomes, Failure):  # which has been said when it happened
            code = max(code, outcomes.code)
            continue
        for run, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Record):
                records.append(outcome)
                continue
            failure = Failure.of(outcome)
            code = max(code, failure.code)
            print(f"error: {_title([run])} {failure.message}", file=sys.stderr)
    if len(records) > 1:
        print("\n" + plain(experiment.header, experiment.comparison(records, COMPARED)))
        path = commands[0].runs / experiment.name / "comparison.png"
        save(arms_figure(records), path)
        print(f"figure: {path}")
    return code


def _groups(runs: Sequence[Member], way: Together, cores: int) -> list[list[Member]]:
    """The runs that are done as one: alone, all that can be batched, or those shared out among the cores."""
    if way in ("no", "processes"):
        return [[run] for run in runs]
    alike = dict[str, list[Member]]()
    for command, seed in runs:
        parts = {part: plain_data(getattr(command, part)) for part in PARTS}
        parts["training"]["weight_decay"] = None  # members of a batch may differ in it
        alike.setdefault(json.dumps(parts, sort_keys=True), []).append((command, seed))
    shares = 1 if way == "batched" else max(1, cores // len(alike))
    return [members[i::shares] for members in alike.values() for i in range(min(shares, len(members)))]


def _title(group: Sequence[Member]) -> str:
    command, seed = group[0]
    name = " ".join([command.arm, *(f"lambda {value:g}" for value in command.lambdas), f"seed {seed}"])
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more in its batch"


def _work(
    experiment: Experiment, members: Sequence[Member], device: torch.device, bar: Callable[..., ProgressBar]
) -> list[Record | DivergedError]:
    """:func:`run_batch` as a job; one run alone raises what ends it, so that it is said when it happens."""
    outcomes = run_batch(experiment, members, device, bar)
    if len(outcomes) == 1 and isinstance(outcomes[0], DivergedError):
        raise outcomes[0]
    return outcomes


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


def run_batch(
    experiment: Experiment,
    members: Sequence[Member],
    device: torch.device,
    bar: Callable[..., ProgressBar] = tqdm,
) -> list[Record | DivergedError]:
    """Runs of one arm, several as one batched model, from their last checkpoints; writes their folders. One that
    diverged gives its error in place of its record."""
    first, _ = members[0]
    torch.set_num_threads(first.threads)
    if device.type == "cuda":  # on a CPU everything here repeats bit for bit without it
        make_deterministic()
    else:
        keep_freed_memory()
    with ExitStack() as held, explained(device):
        folders, runs = list[tuple[RunFolder, list[Record]]](), dict[int, Run]()
        for index, (command, seed) in enumerate(members):
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
            print(f"{command.arm}, seed {seed}: {folder.path}{', from its last checkpoint' * folder.begun}")
            if trunk is not None and not folder.begun:
                folder.begin(*trunk.start())
                print(f"  from step {trunk.step} of {trunk.folder}")
            runs[index] = Run(trainer, folder, partial(experiment.measure_row, trainer))
        try:
            ended = train_together(
                list(runs.values()),
                checkpoint_every=first.checkpoint_every,
                keep=first.kept_steps,
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
