"""How loose the bounds of kappa about the collapse curve are along a run (theory B8, B8s, B8l and A5).

    python -m experiments.grokking --keep 50 200 1000 2000 4000 8000
    python -m experiments.flatness_bounds runs/grokking/baseline/seed0-885c893a

Reads every checkpoint that the run kept: its features enter :func:`grokcore.flatness_sandwich`, eval mode, whole train
and test sets, Delta the mean logit gap of each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from experiments.grokking_config import PRESETS, DataConfig, GrokkingCommand, build_model, split_of
from grokcore import FlatnessSandwich, UsageError, flatness_sandwich
from grokcore.capture import eval_mode
from grokcore.commandline import OneLineParser, run_command
from grokcore.documents import markdown, plain
from grokcore.heads import HeadInput, find_head
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.measurement import CHUNK
from grokcore.training.run_folder import kept_path, kept_steps

PAIRS = {"exponential": "B8", "extremal": "B8s", "losses": "B8l", "outputs": "A5"}
"""The fields of a FlatnessSandwich that are bounds, and the statements that prove them."""


def main(argv: Sequence[str]) -> int:
    """Print the table of one run."""
    parser = OneLineParser(prog="python -m experiments.flatness_bounds", description="Bounds of kappa along a run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    words = parser.parse_args(argv)
    command, seed = _stored(words.run)
    steps = kept_steps(words.run)
    if not steps:
        raise UsageError(f"{words.run} kept no checkpoint: run it with --keep, and --fresh if it has finished")
    split = split_of(command.data, seed)
    model = build_model(command, split, seed)
    head = find_head(model, "head")
    entering = HeadInput(head)
    entering.attach()
    table: list[tuple[str, ...]] = []
    for step in tqdm(steps, unit="checkpoint", disable=not sys.stderr.isatty(), leave=False):
        path = kept_path(words.run, step)
        state = load_checkpoint(path)
        try:
            model.load_state_dict(state["model"])
        except (KeyError, RuntimeError) as error:
            raise UsageError(f"{path} does not hold this run's model ({str(error).splitlines()[0]})") from None
        for name, inputs, labels in (
            ("train", split.train_inputs, split.train_labels),
            ("test", split.test_inputs, split.test_labels),
        ):
            found = flatness_sandwich(_features(model, entering, inputs), labels, head.weight, head.bias)
            table.append((f"{step:,}", name, *_cells(found)))
    header = ("step", "data", "kappa", "gap", "mean omega", *(f"{label}: U/kappa, kappa/L" for label in PAIRS.values()))
    print((markdown if words.markdown else plain)(header, table))
    return 0


def _cells(found: FlatnessSandwich) -> tuple[str, ...]:
    """kappa, gap and oscillation, then how far each pair of bounds lies above and below kappa."""
    sides = [getattr(found, name) for name in PAIRS]
    ratios = [(_ratio(side.upper, found.kappa), _ratio(found.kappa, side.lower)) for side in sides]
    numbers = (found.kappa, found.gap, found.oscillation)
    return (*(f"{n:.3g}" for n in numbers), *(f"{up}, {down}" for up, down in ratios))


def _ratio(larger: float, smaller: float) -> str:
    return f"{larger / smaller:.3g}" if smaller > 0 else "-"


@torch.no_grad()
def _features(model: nn.Module, entering: HeadInput, inputs: Tensor) -> Tensor:
    """The head's input (n, m) in eval mode."""
    found = []
    with eval_mode(model):
        for part in torch.split(inputs, CHUNK):
            model(part)
            found.append(entering.features)
    return torch.cat(found)


def _stored(folder: Path) -> tuple[GrokkingCommand, int]:
    """The command that the run's config came from, as far as data and model go, and its seed."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        preset = PRESETS[config["preset"]]
        parts = {"data": DataConfig(**config["data"]), "model": _model_config(preset.model, config["model"])}
        return replace(preset, **parts), int(config["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder} is not the folder of a grokking run") from None


def _model_config(default: Any, stored: dict[str, Any]) -> Any:
    known = {each.name for each in fields(default)}
    if set(stored) != known:
        raise KeyError(*(set(stored) ^ known))
    return replace(default, **{key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()})


if __name__ == "__main__":
    run_command(main)
