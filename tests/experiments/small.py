"""A grokking run small enough for a test: the real code, a modulus of 11."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SMALL = ["--p", "11", "--embedding", "8", "--hidden", "16", "12", "--batch-size", "20", "--measurements", "12"]
ENTRY = [sys.executable, "-m", "experiments.grokking"]


def small(runs: Path, *more: str, steps: int = 60) -> list[str]:
    """The flags of a small run below `runs`."""
    return [*SMALL, "--runs", str(runs), "--steps", str(steps), *more]


def only_run(runs: Path) -> Path:
    """The one run folder below `runs`."""
    (folder,) = runs.glob("grokking/*/seed*")
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows without their wall-clock field."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["wall_s"]
    return rows
