"""Forks: an arm that starts from another run's checkpoint and shares everything before it.

``--from RUN@STEP``: RUN is an arm (its run with the same seed and settings below --runs), a run's id or its folder;
STEP is a step, or below 1 a fraction of the run, at which RUN kept a checkpoint (``--keep``) or stopped. The fork's
rows begin with RUN's, wall-clock seconds included, and its origins with RUN's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokcore import UsageError
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.record import MAX_ROWS
from grokcore.training.run_folder import kept_path, kept_steps, last_path, read_rows, run_id

MAY_DIFFER = ("steps", "epochs", "measurements", "measure_every")
"""Training settings in which a fork may differ from its trunk."""


@dataclass(frozen=True)
class Trunk:
    """The run that a fork starts from."""

    folder: Path
    stored: dict[str, Any]
    """Its config.json."""
    step: int
    """The last step that the fork shares."""

    @property
    def config(self) -> dict[str, Any]:
        """What decides its result."""
        config: dict[str, Any] = self.stored["config"]
        return config

    @property
    def origin(self) -> dict[str, Any]:
        """Where it comes from, session by session."""
        return {key: value for key, value in self.stored.items() if key not in ("run_id", "config")}

    def start(self) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
        """Its rows up to the step, its state there, and its origin.

        Raises:
            UsageError: no checkpoint of that step (the message names those there are), or not all of its rows.
        """
        path = kept_path(self.folder, self.step)
        if not path.exists():
            path = last_path(self.folder)
        state = load_checkpoint(path) if path.exists() else {}
        if state.get("step") != self.step or state.get("run_id") != self.stored["run_id"]:
            have = sorted({*kept_steps(self.folder)} | ({state["step"]} if "step" in state else set()))
            raise UsageError(
                f"{self.folder} has no checkpoint of step {self.step} (it has: {', '.join(map(str, have)) or 'none'}); "
                f"run it with --keep {self.step}, and --fresh if it has passed that step"
            )
        metrics = self.folder / "metrics.jsonl"
        if not metrics.exists() or metrics.stat().st_size < state["metrics_bytes"]:
            raise UsageError(f"{metrics} is shorter than {path} remembers: let the run get there again first")
        return read_rows(metrics, state["metrics_bytes"]), state, self.origin


def find_trunk(
    text: str,
    runs: Path,
    config: dict[str, Any],
    folder_of_arm: Callable[[str], Path | None],
    measured: Sequence[int],
) -> Trunk:
    """The run and step that ``--from`` names.

    Args:
        text: RUN@STEP.
        runs: folder of runs.
        config: the fork's own, without the fork.
        folder_of_arm: the folder of an arm's run of the fork's seed and settings; None where `RUN` is no arm.
        measured: the steps at which the fork is measured.

    Raises:
        UsageError: not of that form, no such run, another seed or setting, or a step outside the run.
    """
    name, at, step_text = text.rpartition("@")
    try:
        step = float(step_text)
    except ValueError:
        step = -1.0
    if not at or not name or not 0 < step < 10**9:
        raise UsageError(f"--from takes RUN@STEP, such as flatness_prevent@0.5 or a run's id@2000, got {text!r}")
    folder = _folder(name, runs / config["experiment"], folder_of_arm)
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        trunk = stored["config"]
        steps = trunk["training"]["steps"]
        if run_id(trunk) != stored["run_id"]:
            raise UsageError(f"--from: {folder} comes from another version of this program, or was changed")
        differs = [key for key in ("experiment", "preset", "seed", "data", "model") if trunk[key] != config[key]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--from: {folder} is not a run folder") from None
    training = {key: value for key, value in config["training"].items() if key not in MAY_DIFFER}
    differs += [key for key, value in training.items() if trunk["training"].get(key) != value]
    if differs:
        raise UsageError(f"--from: {folder} differs from this run in its {', '.join(differs)}")
    at_step, last = round(step * steps) if step < 1 else round(step), config["training"]["steps"]
    if not 0 < at_step < last:
        raise UsageError(f"--from: step {at_step} does not lie within this run of {last} steps")
    more = sum(each > at_step for each in measured)
    rows = sum(row["step"] <= at_step for row in read_rows(folder / "metrics.jsonl")) + more
    if rows > MAX_ROWS:
        raise UsageError(f"--from: the fork would have {rows} rows, a result holds {MAX_ROWS}: measure it less often")
    return Trunk(folder, stored, at_step)


def fork_config(trunk: Trunk, config: dict[str, Any], natural_arm: str, natural_step: int) -> dict[str, Any]:
    """The config of a run that starts from `trunk`: its id hashes the trunk's, its variant ends in ``fork``.

    Args:
        config: the run's own, without the fork.
        natural_arm, natural_step: the trunk and step that go without saying; others are named in the variant.
    """
    own = set(config["variant"])
    trunk_arm = "-".join([trunk.config["arm"], *(each for each in trunk.config["variant"] if each not in own)])
    if trunk.config["training"] != config["training"]:  # what the names of the two have in common hides it
        trunk_arm += f"-{trunk.stored['run_id']}"
    token = "fork" if trunk_arm == natural_arm else f"fork-{trunk_arm}"
    token += "" if trunk.step == natural_step else f"@{trunk.step}"
    fork = {"run_id": trunk.stored["run_id"], "arm": trunk_arm, "step": trunk.step}
    return config | {"fork": fork, "variant": [*config["variant"], token]}


def _folder(name: str, runs: Path, folder_of_arm: Callable[[str], Path | None]) -> Path:
    of_arm = folder_of_arm(name)
    if of_arm is not None:
        if not of_arm.is_dir():
            raise UsageError(
                f"--from: {name} has not been run with this seed and these settings (no {of_arm}); "
                f"run it first: the same command with --arm {name} and without --from"
            )
        return of_arm
    if (Path(name) / "config.json").is_file():
        return Path(name)
    found = [path for path in runs.glob("*/seed*") if re.fullmatch(rf"seed\d+-{re.escape(name)}(-\d+)?", path.name)]
    if not found:
        raise UsageError(f"--from: {name!r} is no arm, no run's id below {runs} and no run folder")
    return max(found, key=lambda path: (len(path.name), path.name))
