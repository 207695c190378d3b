"""Recorded results: one small file for a finished run, with its hash.

Path: ``<experiment>/<preset>/<arm>[+<variant>...]-seed<k>.json`` below the results folder. Numbers are rounded
to seven significant digits; ``sha256`` is the hash of everything else in the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokcore.errors import UsageError
from grokcore.files import write_text_atomically
from grokcore.training.run_folder import read_rows, run_id

SCHEMA = 1
MAX_ROWS = 200


@dataclass(frozen=True)
class Record:
    """A run's config, curves and summary, whether finished or still in its folder."""

    config: dict[str, Any]
    run_id: str
    versions: dict[str, str]
    device: str
    commit: str
    wall_s: float
    columns: list[str]
    rows: list[list[float | int | None]]
    summary: dict[str, Any]
    schema: int = SCHEMA

    @property
    def arm(self) -> str:
        """The arm with its variants."""
        return "+".join([self.config["arm"], *self.config["variant"]])

    @property
    def path(self) -> Path:
        """Where the record belongs, relative to the results folder."""
        config = self.config
        return Path(config["experiment"], config["preset"], f"{self.arm}-seed{config['seed']}.json")

    def column(self, name: str) -> NDArray[np.float64]:
        """A curve over the measured steps, NaN where it has no value or the column is missing."""
        if name not in self.columns:
            return np.full(len(self.rows), np.nan)
        index = self.columns.index(name)
        return np.array([row[index] for row in self.rows], dtype=np.float64)

    def final(self, name: str) -> float:
        """A column's last value."""
        return float(self.column(name)[-1])

    def write(self, results: Path) -> Path:
        """Write the record below `results`; returns its path."""
        content = _rounded(asdict(self))
        content["sha256"] = _digest(content)
        rows = content.pop("rows")
        head = json.dumps(content, indent=1, allow_nan=False)
        lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        text = head[:-2] + ',\n "rows": [\n  ' + lines + "\n ]\n}\n"
        path = results / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, text)
        return path


def by_arm(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by their arm and those of its variants that not all records share, each list by seed."""
    shared = set.intersection(*(set(record.config["variant"]) for record in records)) if records else set()
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.config["seed"]):
        variant = [token for token in record.config["variant"] if token not in shared]
        found.setdefault("+".join([record.config["arm"], *variant]), []).append(record)
    return found


def read_record(path: Path) -> Record:
    """Read a recorded result.

    Raises:
        UsageError: not a result file, of another schema, or its hash does not match.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        if content["schema"] != SCHEMA:
            raise UsageError(f"{path} has schema {content['schema']}, this program reads {SCHEMA}")
        matches = digest == _digest(content)
        record = Record(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is not a recorded result") from None
    if not matches:
        raise UsageError(f"{path} was changed after it was written: its hash does not match")
    return record


def read_records(results: Path, experiment: str, preset: str) -> list[Record]:
    """All recorded results of a preset, by path."""
    return [read_record(path) for path in sorted((results / experiment / preset).glob("*.json"))]


def record_of(folder: Path) -> Record:
    """The record of a run folder; its summary is empty while the run is not finished.

    Raises:
        UsageError: not a run folder, or its parts do not belong together.
    """
    try:
        origin = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        finished = folder / "summary.json"
        summary = json.loads(finished.read_text(encoding="utf-8")) if finished.exists() else {}
        if finished.exists() and not isinstance(summary.get("words"), list):
            raise UsageError(f"{finished} is no summary")
        dicts = read_rows(folder / "metrics.jsonl")
        config = origin["config"]
        record = Record(
            config=config,
            run_id=origin["run_id"],
            versions=origin["versions"],
            device=origin["device"],
            commit=", then ".join(dict.fromkeys(each["commit"] for each in (origin, *origin.get("later", [])))),
            wall_s=float(dicts[-1]["wall_s"]) if dicts else 0.0,
            columns=(columns := _columns(dicts)),
            rows=[[row.get(name) for name in columns] for row in dicts],
            summary=summary,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder} is not a run folder ({type(error).__name__}: {error})") from None
    if run_id(config) != record.run_id:
        raise UsageError(f"{folder}: the config does not belong to the run's id")
    if summary and (not dicts or dicts[-1]["step"] != config["training"]["steps"]):
        raise UsageError(f"{folder} calls itself finished and lacks a summary or the row of its last step")
    return record


def _columns(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The union of the rows' keys, in order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
