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

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from experiments.arms import ARMS, NOT_TUNED, arm_named
from experiments.cli import parse, peek
from experiments.forks import Trunk, find_trunk, fork_config
from experiments.grokking_config import PRESETS, Command, build_model, split_of
from experiments.naming import plain_data, variant
from experiments.parallel import Failure, Job, run_in_processes, share, usable_cores, way_of
from grokcore import DivergedError, Intervention, UsageError
from grokcore.capture import eval_mode
from grokcore.commandline import run_command
from grokcore.documents import plain
from grokcore.errors import InterruptedRunError
from grokcore.models.transformer import EquationTransformer
from grokcore.training.figures import arms_figure, run_figure, save
from grokcore.training.loop import ProgressBar, Run, train_together
from grokcore.training.measurement import measurement_row
from grokcore.training.milestones import summarise
from grokcore.training.provenance import origin
from grokcore.training.published import product_surrogate
from grokcore.training.record import Record, read_records, record_of
from grokcore.training.run_folder import RunFolder, last_path, newest
from grokcore.training.step import Trainer
from grokcore.training.table import HEADER, comparison
from theory.formulas import kappa_at_collapse

PARTS = ("data", "model", "training", "intervention")
"""The parts of a command that decide a run's result."""


def main(argv: Sequence[str]) -> int:
    """Parse, run every arm and seed, print what happened."""
    chosen = peek(argv, arm="baseline", preset="quick")
    if chosen["preset"] not in PRESETS:
        raise UsageError(f"unknown preset {chosen['preset']!r} (presets: {', '.join(PRESETS)})")
    arms = list(ARMS) if chosen["arm"] == "all" else [chosen["arm"]]
    commands = [_command_for(arm, chosen["preset"], argv) for arm in arms]
    if chosen["arm"] == "all" and any(command_variant(c, ["intervention"]) for c in commands):
        raise UsageError("--arm all takes each arm with its own coefficients; change them one arm at a time")
    for command in commands:
        command.intervention.release_step(command.training.steps)
    device = _device(commands[0])
    if chosen["preset"] in NOT_TUNED and any(command.intervention != Intervention() for command in commands):
        print(f"note: the arms' coefficients are not tuned for --preset {chosen['preset']}", file=sys.stderr)
    runs = [(command, seed) for command in commands for seed in command.seeds]
    _refuse_early(runs)
    way, records, code = way_of(commands[0].together, device, len(runs), usable_cores()), list[Record](), 0
    if way == "processes":
        workers, threads = share(len(runs), usable_cores())
        each = [(replace(command, threads=threads), seed) for command, seed in runs]
        jobs = [Job(f"{command.arm} seed {seed}", partial(run_one, command, seed, device)) for command, seed in each]
        found = iter(run_in_processes(jobs, workers))
    else:
        groups = [(c, c.seeds) for c in commands] if way == "batched" else [(c, (seed,)) for c, seed in runs]
        found = (outcome for command, seeds in groups for outcome in run_seeds(command, seeds, device))
    for (command, seed), outcome in zip(runs, found, strict=True):
        if isinstance(outcome, Record):
            records.append(outcome)
            continue
        failure = outcome if isinstance(outcome, Failure) else Failure.of(outcome)
        code = max(code, failure.code)
        if way != "processes":  # which have said so when it happened
            print(f"error: {command.arm} seed {seed} {failure.message}", file=sys.stderr)
    if len(records) > 1:
        print("\n" + plain(HEADER, comparison(records, list(ARMS))))
        path = commands[0].runs / "grokking" / "comparison.png"
        save(arms_figure(records), path)
        print(f"figure: {path}")
    return code


def _refuse_early(runs: Sequence[tuple[Command, int]]) -> None:
    """What cannot be run is said before anything is."""
    command, seed = runs[0]
    build_model(command, split_of(command.data, seed), seed)
    _require_results(command.results)
    for command, seed in runs:
        if command.trunk:
            trunk, config = forked(command, seed, run_config(command, seed))
            if not last_path(newest(command.runs, config, fresh=command.fresh)).exists():
                trunk.start()


def run_one(command: Command, seed: int, device: torch.device, bar: Callable[..., ProgressBar] = tqdm) -> Record:
    """One arm and seed, from the last checkpoint if there is one; writes its folder and returns its record."""
    (outcome,) = run_seeds(command, (seed,), device, bar)
    if isinstance(outcome, DivergedError):
        raise outcome
    return outcome


def run_seeds(
    command: Command, seeds: Sequence[int], device: torch.device, bar: Callable[..., ProgressBar] = tqdm
) -> list[Record | DivergedError]:
    """Seeds of one arm, several as one batched model, from their last checkpoints; writes their folders. A seed that
    diverged gives its error in place of its record."""
    torch.set_num_threads(command.threads)
    if device.type == "cuda":  # on a CPU everything here repeats bit for bit without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    with ExitStack() as held:
        folders, runs = list[tuple[RunFolder, list[Record]]](), dict[int, Run]()
        for index, seed in enumerate(seeds):
            split = split_of(command.data, seed).to(device)
            config, trunk = run_config(command, seed), None
            if command.trunk:
                trunk, config = forked(command, seed, config)
            baselines = comparable_baselines(config, command.results)
            place = RunFolder(command.runs, config, origin(device, command.threads), fresh=command.fresh)
            folder = held.enter_context(place)
            folders.append((folder, baselines))
            if folder.summary is not None:
                print(f"{command.arm}, seed {seed}: finished before in {folder.path} (--fresh starts anew)")
                continue
            model = build_model(command, split, seed).to(device)
            trainer = Trainer(model, "head", split, command.training, command.intervention, seed)
            print(f"{command.arm}, seed {seed}: {folder.path}")
            if trunk is not None and not folder.begun:
                folder.begin(*trunk.start())
                print(f"  from step {trunk.step} of {trunk.folder}")
            runs[index] = Run(trainer, folder, partial(measure_row, trainer))
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
                folders[index][0].finish(summarise(rows))
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
        for baseline in read_records(results, "grokking", config["preset"])
        if baseline.config["arm"] == "baseline"
        and "fork" not in baseline.config
        and baseline.config["intervention"] == plain_data(Intervention())
        and all(baseline.config[k] == config[k] for k in same)
    ]


def _require_results(results: Path) -> None:
    if not results.is_dir() and results != Command().results:
        raise UsageError(f"--results: there is no folder {results}")


def measure_row(trainer: Trainer) -> dict[str, float]:
    """The row of metrics, with the collapse curve's prediction (theory B1) at the measured gap and gamma; with the
    published head, which has other rows than the classes', the published curve instead."""
    row = measurement_row(trainer)
    if getattr(trainer.model, "vocabulary", None) is not None:
        return row | published_columns(trainer)
    classes = trainer.data.num_classes
    for split in ("train", "test"):
        gap, gamma = row[f"{split}_logit_gap"], row[f"{split}_global_mean_ratio"]
        row[f"{split}_kappa_collapse_curve"] = float(kappa_at_collapse(gap, classes, gamma))
    return row


def published_columns(trainer: Trainer) -> dict[str, float]:
    """What paper A's public code would have logged, on the whole train and test sets in eval mode."""
    model, data = cast(EquationTransformer, trainer.model), trainer.data
    row: dict[str, float] = {}
    with eval_mode(model), torch.no_grad():
        for split, inputs, labels in (
            ("train", data.train_inputs, data.train_labels),
            ("test", data.test_inputs, data.test_labels),
        ):
            found = product_surrogate(model.features_at_targets(inputs, labels), model.head.weight)
            row |= dict(zip((f"{split}_published_product", f"{split}_published_product_variance"), found, strict=True))
    return row


def run_config(command: Command, seed: int) -> dict[str, Any]:
    """What decides the run's result, as plain data."""
    config = {"experiment": "grokking", "preset": command.preset, "arm": command.arm, "seed": seed}
    config |= {part: plain_data(getattr(command, part)) for part in PARTS}
    return config | {"variant": command_variant(command)}


def forked(command: Command, seed: int, config: dict[str, Any]) -> tuple[Trunk, dict[str, Any]]:
    """The run that ``--from`` names, and the fork's config."""

    def folder_of_arm(name: str) -> Path | None:
        if name not in ARMS:
            return None
        default = _defaults(name, command.preset)
        of_arm = replace(default, data=command.data, model=command.model, training=command.training)
        return newest(command.runs, run_config(of_arm, seed))

    trunk = find_trunk(command.trunk, command.runs, config, folder_of_arm)
    release, steps = command.intervention.release_step(command.training.steps), command.training.steps
    if release is not None and release < trunk.step:
        raise UsageError(f"the release at step {release} lies before the fork at step {trunk.step}")
    natural_step = round(0.5 * steps) if release is None else release
    return trunk, fork_config(trunk, config, arm_named(command.arm).trunk, natural_step)


def command_variant(command: Command, parts: Sequence[str] = PARTS) -> list[str]:
    """The settings that differ from the defaults of the command's arm and preset."""
    default = _defaults(command.arm, command.preset)
    return [token for part in parts for token in variant(getattr(command, part), getattr(default, part))]


def _command_for(arm: str, preset: str, argv: Sequence[str]) -> Command:
    default = _defaults(arm, preset)
    return replace(parse(default, argv, "python -m experiments.grokking"), arm=arm)


def _defaults(arm: str, preset: str) -> Command:
    return replace(PRESETS[preset], arm=arm, intervention=arm_named(arm).coefficients[preset])


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


if __name__ == "__main__":
    run_command(main)
