"""Paper C's tables: does collapse reach test data, what it costs transfer, and its cascade."""

from __future__ import annotations

from grokcore.documents import Table
from grokcore.training import cascade, collapse_verdict, transfer
from grokcore.training.record import Record, by_arm
from paper.recorded import Settings

STUDIES = {"test-collapse": collapse_verdict, "transfer": transfer, "cascade": cascade}


def tables(recorded: Settings) -> dict[str, Table]:
    """``limits/<study>``: all runs of a study in one table."""
    found = {}
    for study, words in STUDIES.items():
        runs = runs_of(recorded, study)
        if runs:
            found[f"limits/{study}"] = Table(words.HEADER, words.comparison(runs, list(runs)))
    return found


def runs_of(recorded: Settings, study: str) -> dict[str, list[Record]]:
    """The runs of a study by what they are called, with the preset where that says more than their data's name."""
    found: dict[str, list[Record]] = {}
    for (experiment, preset, setting), records in recorded.items():
        if experiment == f"limits-{study}":
            for arm, runs in by_arm(records).items():
                name = arm if arm.startswith(preset) or preset == "grokking" else f"{arm} ({preset})"
                found[f"{name} ({setting})" if setting else name] = runs
    return dict(sorted(found.items()))
