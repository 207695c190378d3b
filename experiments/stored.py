"""A finished or running run's model, back from its folder: the same data and weights as when it was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from experiments import cifar10, grokking
from experiments.command import Command, Experiment
from experiments.commands import run_config
from grokcore import UsageError
from grokcore.capture import head_features
from grokcore.commandline import OneLineParser
from grokcore.data.split import Split
from grokcore.heads import HeadInput, find_head
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.run_folder import kept_path, kept_steps, last_path, run_id

EXPERIMENTS: dict[str, Experiment] = {each.name: each for each in (grokking.EXPERIMENT, cifar10.EXPERIMENT)}
PARTS = ("data", "model", "training")
"""What a run's model and data come from."""


@dataclass(frozen=True)
class Features:
    """What enters a run's head, in eval mode, and the head; all on the CPU, float32."""

    train: Tensor
    """(n_train, m)."""
    train_labels: Tensor
    test: Tensor
    """(n_test, m)."""
    test_labels: Tensor
    weight: Tensor
    """(K, m)."""
    bias: Tensor | None


@dataclass(frozen=True)
class StoredRun:
    """A run's folder with what it was made from."""

    folder: Path
    config: dict[str, Any]
    run_id: str
    split: Split
    model: nn.Module
    entering: HeadInput
    """Keeps what enters the head."""

    def features(self) -> Iterator[tuple[int, Features]]:
        """The features of whole train and test sets at each step whose checkpoint the run keeps, its last one included.

        Raises:
            UsageError: there is no checkpoint, or one does not hold this run's model, in finite numbers.
        """
        paths = {step: kept_path(self.folder, step) for step in kept_steps(self.folder)}
        if last_path(self.folder).exists():
            paths[self._state(last_path(self.folder))["step"]] = last_path(self.folder)
        if not paths:
            raise UsageError(f"{self.folder} has no checkpoint")
        split, head = self.split, find_head(self.model, "head")
        for at in tqdm(sorted(paths), unit="checkpoint", disable=not sys.stderr.isatty(), leave=False):
            step = self._load(paths[at])  # a run that goes on replaces its last checkpoint
            train, test = (
                head_features(self.model, self.entering, inputs, chunk=cifar10.CHUNK)
                for inputs in (split.train_inputs, split.test_inputs)
            )
            weight, bias = (None if p is None else p.detach().clone() for p in (head.weight, head.bias))
            assert weight is not None
            yield step, Features(train, split.train_labels, test, split.test_labels, weight, bias)

    def _state(self, path: Path) -> dict[str, Any]:
        state = load_checkpoint(path)
        if state.get("run_id") != self.run_id:
            raise UsageError(f"{path} belongs to run {state.get('run_id')}, not {self.run_id}")
        return state

    def _load(self, path: Path) -> int:
        """Give the model the checkpoint's weights; returns its step."""
        state = self._state(path)
        try:
            self.model.load_state_dict(state["model"])
        except (KeyError, RuntimeError) as error:
            raise UsageError(f"{path} does not hold this run's model ({str(error).splitlines()[0]})") from None
        if not all(bool(torch.isfinite(each).all()) for each in self.model.state_dict().values()):
            raise UsageError(f"{path} holds NaN or infinity")
        return int(state["step"])


def stored_run(folder: Path, data: Path | None = None) -> StoredRun:
    """The run in a folder.

    Args:
        folder: a run's folder, finished or not.
        data: the data set's place, where the experiment takes one and it is not to be looked up.

    Raises:
        UsageError: no run's folder, one that was changed or is of another version of this program, or other data than
            the run had.
    """
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config, found_id = stored["config"], str(stored["run_id"])
        experiment, seed = EXPERIMENTS[config["experiment"]], int(config["seed"])
        preset = experiment.presets[config["preset"]]
        if run_id(config) != found_id:
            raise UsageError(f"{folder / 'config.json'} was changed, or written by another version of this program")
        command = replace(preset, arm=config["arm"], **{p: _part(getattr(preset, p), config[p]) for p in PARTS})
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder} is not a run's folder (of {', '.join(EXPERIMENTS)})") from None
    split = experiment.split_of(_with_data(command, data), seed)
    again = run_config(experiment, command, seed, split)
    differs = [part for part in PARTS if again[part] != config[part]]
    if differs:
        raise UsageError(f"{folder}: the {' and '.join(differs)} found here differ from the run's")
    model = experiment.build_model(command, split, seed)
    entering = HeadInput(find_head(model, "head"))
    entering.attach()
    return StoredRun(folder, config, found_id, split, model, entering)


def run_parser(name: str, description: str) -> OneLineParser:
    """The command line of a module that reads a run's folder and prints a table."""
    parser = OneLineParser(prog=f"python -m experiments.{name}", description=description)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--data", type=Path, metavar="PATH", help="CIFAR-10, where it is not to be looked up")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


def _with_data(command: Command, data: Path | None) -> Command:
    if data is None:
        return command
    if not hasattr(command, "data_path"):
        raise UsageError("--data: this run's data are made, not read")
    return replace(command, data_path=data)  # type: ignore[call-arg]


def _part(default: Any, stored: dict[str, Any]) -> Any:
    """A config's part as its dataclass; what the data's source adds is left out and compared later."""
    known = {each.name for each in fields(default)}
    if known - set(stored):
        raise KeyError(*(known - set(stored)))
    return replace(default, **{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k in known})
