"""Every table of the recorded results, by name: Markdown for the pages, LaTeX for the paper."""

from __future__ import annotations

from collections.abc import Mapping

from grokcore.documents import Table, markdown
from grokcore.training import clocks, epochs, table
from grokcore.training.record import Record
from paper import differences, dynamics, limits, outcomes, timing_report
from paper.recorded import Settings
from paper.timing import published_runs


def tables(recorded: Settings) -> dict[str, Table]:
    """A table for each ``<experiment>/<preset>`` that has results, and for each other setting of it
    (another head, another length) as ``<experiment>/<preset>+<variant>``; then the published measurement
    beside ours, as ``grokking/timing``, and paper A's outcomes on CIFAR-10 beside ours, as
    ``cifar10/<preset>-outcomes``, with the arms' differences as ``cifar10/<preset>-differences``; and
    those of :mod:`paper.dynamics` and :mod:`paper.limits`."""
    found: dict[str, Table] = {}
    for (experiment, preset, setting), records in recorded.items():
        if experiment.startswith("limits-"):  # a table a study
            continue
        name = f"{experiment}/{preset}" + (f"+{setting}" if setting else "")
        rows = {"cifar10": epochs, "dynamics": clocks}.get(experiment, table)
        found[name] = Table(rows.HEADER, rows.comparison(records, ["baseline"]))
    for preset, records in of_images(recorded).items():
        found[f"cifar10/{preset}-outcomes"] = Table(outcomes.HEADER, outcomes.table(records, ["baseline"]))
        found[f"cifar10/{preset}-differences"] = Table(differences.HEADER, outcomes.differences_table(records))
    found |= dynamics.tables(recorded) | limits.tables(recorded)
    published = published_of(recorded)
    if published:
        found["grokking/timing"] = Table(timing_report.HEADER, timing_report.table(published))
    return found


def texts(recorded: Settings, full: Mapping[str, Table] | None = None) -> dict[str, str]:
    """All tables in Markdown, and ``grokking/timing-verdict`` in words, as they stand between a page's markers.

    Args:
        recorded: the results.
        full: their :func:`tables`, where they are at hand.
    """
    full = tables(recorded) if full is None else full
    found = {name: markdown(*each) for name, each in full.items()}
    published = published_of(recorded)
    return found | ({"grokking/timing-verdict": timing_report.verdict(published)} if published else {})


def published_of(recorded: Settings) -> dict[str, list[Record]]:
    """The runs with the published head, by set-up."""
    return published_runs([record for records in recorded.values() for record in records])


def of_images(recorded: Settings) -> Mapping[str, list[Record]]:
    """The CIFAR-10 runs of all settings by their preset."""
    found: dict[str, list[Record]] = {}
    for (experiment, preset, _), records in recorded.items():
        if experiment == "cifar10":
            found.setdefault(preset, []).extend(records)
    return found
