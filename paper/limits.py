"""Paper C's tables and figures: does collapse reach test data, what it costs transfer, and its cascade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from grokcore.documents import markdown
from grokcore.training import cascade, collapse_verdict, transfer
from grokcore.training.figures import save
from grokcore.training.record import Record, by_arm
from paper.cascade_figure import cascade_figure
from paper.collapse_on_test_data_figure import collapse_on_test_data_figure
from paper.transfer_figure import transfer_figure

STUDIES = {"test-collapse": collapse_verdict, "transfer": transfer, "cascade": cascade}
DRAWN = {"test-collapse": collapse_on_test_data_figure, "transfer": transfer_figure, "cascade": cascade_figure}
Settings = Mapping[tuple[str, str, str], Sequence[Record]]
"""Records by experiment, preset and setting."""


def tables(recorded: Settings) -> dict[str, str]:
    """``limits/<study>``: all runs of a study in one table, Markdown."""
    found = {}
    for study, words in STUDIES.items():
        runs = runs_of(recorded, study)
        if runs:
            found[f"limits/{study}"] = markdown(words.HEADER, words.comparison(runs, list(runs)))
    return found


def figures(recorded: Settings, folder: Path) -> list[Path]:
    """Draw each study that has runs."""
    drawn = []
    for study, draw in DRAWN.items():
        runs = runs_of(recorded, study)
        if runs:
            drawn.append(folder / f"limits-{study}.png")
            save(draw(runs), drawn[-1])
    return drawn


def runs_of(recorded: Settings, study: str) -> dict[str, list[Record]]:
    """The runs of a study by what they are called, with the preset where that says more than their data's name."""
    found: dict[str, list[Record]] = {}
    for (experiment, preset, setting), records in recorded.items():
        if experiment == f"limits-{study}":
            for arm, runs in by_arm(records).items():
                name = arm if arm.startswith(preset) or preset == "grokking" else f"{arm} ({preset})"
                found[f"{name} ({setting})" if setting else name] = runs
    return dict(sorted(found.items()))
