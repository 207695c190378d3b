"""The recorded results of the paper: written from finished runs, read by setting, and asked for by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grokcore.errors import UsageError
from grokcore.training.record import MAX_ROWS, Record, read_record, record_of
from grokcore.training.table import by_setting

RESULTS = Path(__file__).parent / "results"
Settings = Mapping[tuple[str, str, str], Sequence[Record]]
"""Records by experiment, preset and setting (:func:`grokcore.training.table.by_setting`)."""


@dataclass(frozen=True)
class Need:
    """Recorded runs that a figure is drawn from: an arm with its variants, for some seeds.

    Attributes:
        experiment, preset, arm: the parts of the results' paths.
        seeds: one result each.
        words: the command that runs it, after ``python -m``, without its seeds.
        after: what has to be run before, as a fork's trunk.
    """

    experiment: str
    preset: str
    arm: str
    seeds: tuple[int, ...]
    words: tuple[str, ...]
    after: Need | None = None

    @property
    def paths(self) -> list[Path]:
        """Of its results, relative to their folder."""
        return [Path(self.experiment, self.preset, f"{self.arm}-seed{seed}.json") for seed in self.seeds]

    def missing(self, results: Path) -> list[Path]:
        """Those that are not recorded."""
        return [path for path in self.paths if not (results / path).is_file()]


def records_of(needs: Iterable[Need], results: Path) -> list[Record]:
    """The results of all needs, in their order, each once."""
    paths = dict.fromkeys(path for need in needs for path in need.paths)
    return [read_record(results / path) for path in paths]


def settings(results: Path) -> dict[tuple[str, str, str], list[Record]]:
    """All recorded results."""
    return settings_of([read_record(path) for path in sorted(results.glob("*/*/*.json"))])


def settings_of(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records by experiment, preset and setting, in this order."""
    presets: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        presets.setdefault((record.config["experiment"], record.config["preset"]), []).append(record)
    return {
        (*preset, setting): chosen for preset, each in presets.items() for setting, chosen in by_setting(each).items()
    }


def by_full_name(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by their arm with all its variants, each list by seed."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.config["seed"]):
        found.setdefault(record.arm, []).append(record)
    return found


def digest_of(records: Iterable[Record], results: Path) -> str:
    """A hash of what stands in the records' files."""
    found = sorted((record.path.as_posix(), (results / record.path).read_bytes()) for record in records)
    total = hashlib.sha256()
    for path, content in found:
        total.update(path.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def refresh(runs: Path, results: Path) -> int:
    """Write a result file for each finished run below `runs`; returns how many.

    Of several runs of one config (made with --fresh) the newest finished one counts. A path that two
    different runs claim is refused: nothing is written.
    """
    if not runs.is_dir():
        raise UsageError(f"there is no folder {runs}")
    chosen: dict[Path, tuple[Path, str]] = {}
    # Sorted by length first, so that seed0-x-10 comes after seed0-x-9.
    for summary in sorted(runs.glob("*/*/*/summary.json"), key=lambda p: (len(str(p)), str(p))):
        record = record_of(summary.parent)
        if len(record.rows) > MAX_ROWS:
            raise UsageError(f"{summary.parent} has {len(record.rows)} rows, a result holds at most {MAX_ROWS}")
        claimed = chosen.get(record.path)
        if claimed is not None and claimed[1] != record.run_id:
            raise UsageError(f"{claimed[0]} and {summary.parent} both claim {record.path}")
        chosen[record.path] = (summary.parent, record.run_id)
    for target, (folder, _) in sorted(chosen.items()):
        record_of(folder).write(results)
        print(f"{results / target}  <-  {folder}")
    return len(chosen)
