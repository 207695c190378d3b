"""The folder of one run: its identity, lock, metrics and checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from grokcore.errors import ResourceBusyError, UsageError, without_nan
from grokcore.files import write_text_atomically
from grokcore.training.checkpoint import load_checkpoint, save_checkpoint

RESULT_VERSION = 1
"""Raised whenever the code changes what a config computes, so that old runs are not gone on with."""


def run_id(config: dict[str, Any]) -> str:
    """Eight hex digits of what decides a run's result; folders, device and threads are not in `config`."""
    text = json.dumps([RESULT_VERSION, config], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class RunFolder:
    """``<root>/<experiment>/<arm>/seed<k>-<id>``, held by one process at a time.

    Use as a context. Files: config.json, metrics.jsonl (a row a line), checkpoint.pt, checkpoints that stay for
    forks (checkpoint-<step>.pt), summary.json.

    Args:
        root: folder of all runs.
        config: plain data that decides the result, with the keys experiment, arm and seed.
        origin: versions, device, commit: kept beside the config, compared with nothing.
        fresh: start in a new folder beside earlier ones (``-2``, ``-3``, ...); otherwise the newest
            folder of this config is gone on with.

    Raises:
        UsageError: the folder cannot be written, or holds another config or a damaged one.
        ResourceBusyError: another process is in it.
    """

    def __init__(self, root: Path, config: dict[str, Any], origin: dict[str, Any], *, fresh: bool = False) -> None:
        self.config, self.origin, self.run_id = config, origin, run_id(config)
        self._root, self._fresh = root, fresh
        self._metrics_bytes = 0

    def __enter__(self) -> RunFolder:
        try:
            self.path = newest(self._root, self.config, fresh=self._fresh)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResourceBusyError(f"another process is working in {self.path}") from None
        except OSError as error:
            raise UsageError(f"cannot write to {error.filename}: {error.strerror or error}") from None
        try:
            self._check_config()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _check_config(self) -> None:
        path = self.path / "config.json"
        if not path.exists():
            content = {"run_id": self.run_id, "config": self.config} | self.origin
            self._write_json("config.json", content)
            return
        stored = _read_json(path)
        if stored.get("config") != self.config:
            keys = ", ".join(key for key, _, _ in _differences(stored.get("config"), self.config))
            raise UsageError(f"{path} holds another config than this command (differs in: {keys})")
        self._note_origin(stored)

    def _note_origin(self, stored: dict[str, Any]) -> None:
        """Keep where each part of a run came from, where that changed between sessions."""
        later = stored.get("later", [])
        known = later[-1] if later else {key: stored.get(key) for key in self.origin}
        if known != self.origin and not (self.path / "summary.json").exists():
            self._write_json("config.json", stored | {"later": [*later, self.origin]})
            changes = "; ".join(f"{key} {was}, now {now}" for key, was, now in _differences(known, self.origin))
            print(f"note: {self.path} was begun with {changes}: bit-for-bit equality needs the same")

    @property
    def summary(self) -> dict[str, Any] | None:
        """The finished run's summary; None while it is not finished."""
        path = self.path / "summary.json"
        if not path.exists():
            return None
        summary = _read_json(path)
        if not isinstance(summary.get("words"), list):
            raise UsageError(f"{path} is damaged; put it back, or start anew with --fresh")
        return summary

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary: the mark of a finished run."""
        self._write_json("summary.json", summary)

    def resume(self) -> dict[str, Any] | None:
        """The last checkpoint's state, with metrics.jsonl cut back to it; None (and no metrics) without."""
        path, metrics = last_path(self.path), self.path / "metrics.jsonl"
        state = load_checkpoint(path) if path.exists() else None
        if state is None and len(self.rows()) > 1:
            self._refuse_lost_checkpoint()
        if state is not None and state.get("run_id") != self.run_id:
            raise UsageError(
                f"{path} belongs to run {state.get('run_id')}, not {self.run_id}; nothing was changed: "
                "put the right one back, or start anew beside it with --fresh"
            )
        self._metrics_bytes = 0 if state is None else state["metrics_bytes"]
        have = metrics.stat().st_size if metrics.exists() else 0
        if have < self._metrics_bytes:
            raise UsageError(f"{metrics} is shorter than its checkpoint remembers; start anew with --fresh")
        if have > self._metrics_bytes:
            os.truncate(metrics, self._metrics_bytes)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Checkpoint `state` and the length of the metrics that belong to it."""
        self._write_checkpoint(last_path(self.path), state)

    def _refuse_lost_checkpoint(self) -> NoReturn:
        metrics, path = self.path / "metrics.jsonl", last_path(self.path)
        raise UsageError(f"{metrics} has rows and {path} is missing; put it back, or start anew with --fresh")

    def keep(self, state: dict[str, Any]) -> None:
        """Checkpoint `state` in a file of its step's own, which stays, for forks."""
        self._write_checkpoint(kept_path(self.path, int(state["step"])), state)

    def _write_checkpoint(self, path: Path, state: dict[str, Any]) -> None:
        save_checkpoint(path, state | {"run_id": self.run_id, "metrics_bytes": self._metrics_bytes})

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return last_path(self.path).exists()

    def begin(self, rows: list[dict[str, Any]], state: dict[str, Any], origin: dict[str, Any]) -> None:
        """Start from another run's rows, state and origin, where this run has nothing of its own yet.

        Raises:
            UsageError: it has rows after the state's step, and so had a checkpoint.
        """
        if any(row["step"] > state["step"] for row in self.rows()):
            self._refuse_lost_checkpoint()
        self._write_json("config.json", {"run_id": self.run_id, "config": self.config} | origin)
        self._note_origin(_read_json(self.path / "config.json"))
        # The checkpoint comes last: without it a process killed here begins again.
        lines = "".join(_line(row) for row in rows)
        write_text_atomically(self.path / "metrics.jsonl", lines)
        self._metrics_bytes = len(lines.encode())
        self.save(state)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row of metrics, on disk when this returns; numbers that are not finite become null."""
        line = _line(row)
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._metrics_bytes += len(line.encode())

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far, null as NaN."""
        return read_rows(self.path / "metrics.jsonl")

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        try:
            write_text_atomically(self.path / name, json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise UsageError(f"cannot write to {self.path}: {error.strerror or error}") from None


def last_path(folder: Path) -> Path:
    """Where a run folder has the checkpoint that it goes on from."""
    return folder / "checkpoint.pt"


def kept_path(folder: Path, step: int) -> Path:
    """Where a run folder keeps the checkpoint of a step."""
    return folder / f"checkpoint-{step}.pt"


def kept_steps(folder: Path) -> list[int]:
    """The steps whose checkpoints a run folder keeps, rising."""
    found = (re.fullmatch(r"checkpoint-(\d+)\.pt", path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(without_nan(row), allow_nan=False) + "\n"


def read_rows(path: Path, size: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, or of its first `size` bytes, null as NaN."""
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_bytes()[:size].decode().splitlines()]
        return [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
    except (ValueError, AttributeError):
        raise UsageError(f"{path} is damaged; put it back, or start anew with --fresh") from None


def newest(root: Path, config: dict[str, Any], *, fresh: bool = False) -> Path:
    """The folder of a config's newest run below `root`, there or not; if `fresh`, the one to start beside it."""
    name = f"seed{config['seed']}-{run_id(config)}"
    parent, number = Path(root, config["experiment"], config["arm"]), 1
    while (parent / _numbered(name, number + 1)).exists():
        number += 1
    if fresh and (parent / _numbered(name, number)).exists():
        number += 1
    return parent / _numbered(name, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read; put it back, or start anew with --fresh") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} cannot be read; put it back, or start anew with --fresh")
    return content


def _differences(stored: Any, wanted: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where they differ, by dotted keys, and what stands there in each."""
    if not isinstance(stored, dict) or not isinstance(wanted, dict):
        return [(prefix or "everything", stored, wanted)]
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(stored.keys() | wanted.keys()):
        if stored.get(key) != wanted.get(key):
            found += _differences(stored.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else key)
    return found
