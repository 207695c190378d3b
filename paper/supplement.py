"""The figures beside the paper's own, for the README and the pages: arms of each preset, runs over the curve."""

from __future__ import annotations

from functools import partial

from grokcore.training.figures import arms_figure, run_figure
from grokcore.training.record import by_arm
from paper import dynamics
from paper.charts.published_kappa import timing_figure
from paper.charts.runs_over_the_curve import collapse_curve_figure
from paper.drawing import Drawing
from paper.every_table import of_images, published_of
from paper.recorded import Settings

SHOWN_RUN = ("grokking", "quick", "ncc_prevent", 0)
"""The run whose own figure the README shows: experiment, preset, arm, seed."""


def drawings(recorded: Settings) -> list[Drawing]:
    """All arms of each ``<experiment>/<preset>`` of grokking and CIFAR-10, and of each of its other settings that has
    several arms; the shown run; CIFAR-10's runs over the collapse curve; the published measurement beside ours; and
    those of :mod:`paper.dynamics`."""
    found = []
    for (experiment, preset, setting), records in recorded.items():
        if experiment not in ("grokking", "cifar10") or (setting and len(by_arm(records)) == 1):
            continue
        apart = [] if setting else [s for e, p, s in recorded if (e, p) == (experiment, preset) and s]
        name = f"{experiment}-{preset}{'+' * bool(setting)}{setting}-arms"
        found.append(Drawing(name, records, partial(arms_figure, records, apart=apart)))
        for record in records:
            if (experiment, preset, record.arm, record.config["seed"]) == SHOWN_RUN:
                baselines = [r for r in records if r.arm == "baseline"]
                name = f"{experiment}-{preset}-{record.arm}-seed{record.config['seed']}"
                found.append(Drawing(name, [record, *baselines], partial(run_figure, record, baselines)))
    for preset, records in of_images(recorded).items():
        for split in ("train", "test"):
            name = f"cifar10-{preset}-collapse-curve-{split}"
            found.append(Drawing(name, records, partial(collapse_curve_figure, records, split=split)))
    for setup, records in published_of(recorded).items():
        if setup == "transformer":  # the paper's figure 2
            continue
        name = f"grokking-{setup.replace(', ', '+')}-timing"
        found.append(Drawing(name, records, partial(timing_figure, setup, records)))
    return found + dynamics.drawings(recorded)
