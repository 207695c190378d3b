"""Figures of runs: one run against the recorded baseline, and all arms side by side."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from grokcore.files import write_bytes_atomically
from grokcore.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, STYLE
from grokcore.training.record import Record, by_arm
from grokcore.training.table import shared_variants

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY)
DEEPEST = 1e-20
"""Of the greatest value: what lies lower leaves a log axis, as the kappa of a saturated softmax does."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG in one move, without a date in it: the same curves give the same bytes."""
    buffer = io.BytesIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # curves without a positive value on a log axis
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    write_bytes_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Abscissa:
    """What curves are drawn against."""

    column: str
    label: str
    log: bool

    @classmethod
    def of(cls, record: Record) -> _Abscissa:
        """Epochs where a run counts in them, else the logarithm of the step."""
        if "epoch" in record.columns:
            return cls("epoch", "epoch", False)
        return cls("step", "optimiser step", True)

    def curve(self, record: Record, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where it is drawn, and what."""
        at, values = record.column(self.column), record.column(column)
        shown = (at > 0) | (not self.log)  # step 0 has no place on a log axis
        return at[shown], values[shown]

    def prepare(self, axes: Axes) -> None:
        """Scale and label."""
        axes.set_xlabel(self.label)
        if self.log:
            axes.set_xscale("log")

    def limits(self, axes: Axes, fraction: float, records: Sequence[Record]) -> None:
        """Begin a log axis where something begins to happen."""
        end = max(self.place(record, record.config["training"]["steps"]) for record in records)
        if self.log:
            axes.set_xlim(max(1, fraction * end), end * 1.15)
        else:
            axes.set_xlim(0, end)

    def place(self, record: Record, step: float | int) -> float:
        """A step's."""
        training = record.config["training"]
        return float(step) if self.log else step * training["epochs"] / training["steps"]


def run_figure(record: Record, baselines: Sequence[Record] = ()) -> Figure:
    """Accuracy, CDNV, kappa and logit gap of one run, train and test, against the epoch or log step.

    Args:
        record: the run, finished or not.
        baselines: recorded baseline runs of the same setting, drawn in grey behind.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.2, 5.6))
        abscissa = _Abscissa.of(record)
        of_rows = "train_logit_gap_answer_rows" in record.columns
        gap = "logit_gap_answer_rows" if of_rows else "logit_gap"
        panels = dict(zip(("accuracy", "cdnv", "kappa", gap), figure.subplots(2, 2).flat, strict=True))
        for name, axes in panels.items():
            for baseline in baselines:
                _curve(axes, baseline, f"train_{name}", color=GREY, lw=1.1, zorder=1)
                _curve(axes, baseline, f"test_{name}", color=GREY, lw=1.1, ls="--", zorder=1)
            _curve(axes, record, f"train_{name}", color=BLUE, lw=1.8, label="train")
            _curve(axes, record, f"test_{name}", color=ORANGE, lw=1.8, ls="--", label="test")
            _mark(axes, record)
            abscissa.prepare(axes)
            abscissa.limits(axes, 0.001, [record])
        if "train_kappa_collapse_curve" in record.columns:  # of cross-entropy, and a head whose rows are the classes
            label = "train, if collapsed: theory B1 at this gap"
            _curve(panels["kappa"], record, "train_kappa_collapse_curve", color=GREEN, lw=1.2, ls=":", label=label)
        _titles(panels)
        # Under collapse the prediction leaves the page; the measured curves set the scale.
        _limits_from(panels["kappa"], [record, *baselines], ("train_kappa", "test_kappa"))
        if baselines:
            panels["accuracy"].plot([], [], color=GREY, lw=1.1, label=_baseline_label(baselines))
        panels["accuracy"].legend(loc="upper left" if abscissa.log else "best")
        panels["kappa"].legend(loc="lower left" if abscissa.log else "best")
        config = record.config
        finished = "" if record.summary else ", not finished"
        _suptitle(figure, f"{record.arm}, seed {config['seed']} ({_setting(record)}{finished})")
    return figure


def arms_figure(records: Sequence[Record], *, apart: Sequence[str] = ()) -> Figure:
    """Test accuracy, train CDNV and train kappa of every arm: a row for each family of arms (:func:`_family`), the
    baseline in black in each; median and range over seeds.

    Args:
        records: runs of one setting (:func:`grokcore.training.table.by_setting`).
        apart: settings of the same preset that are not drawn; the title names them.
    """
    runs = by_arm(records)
    arms = sorted(runs)
    families = sorted({_family(a) for a in arms if a != "baseline"}, reverse=True) or ["baseline"]
    columns = ("test_accuracy", "train_cdnv", "train_kappa")
    abscissa = _Abscissa.of(records[0])
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 2.4 * len(families) + 0.4))
        grid = figure.subplots(len(families), 3, sharex=True, sharey="col", squeeze=False)
        for family, row in zip(families, grid, strict=True):
            members = [a for a in arms if _family(a) == family and a != "baseline"]
            for axes, column in zip(row, columns, strict=True):
                _band(axes, runs.get("baseline", []), column, "black", "baseline")
                for index, arm in enumerate(members):
                    label = arm.replace("+", "\n   +") if len(arm) > 28 else arm  # the legend takes the panels' width
                    _band(axes, runs[arm], column, COLOURS[index % 5], label, "-" if index < 5 else "--")
                if column == "test_accuracy":
                    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
                else:
                    axes.set_yscale("log")
            row[2].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        titles = ("test accuracy", "CDNV, train (low: collapsed)", "kappa of the head, train (low: flat)")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        for axes in grid[-1]:
            abscissa.prepare(axes)
            abscissa.limits(axes, 0.01, records)
            low, high = axes.get_ylim()
            if axes.get_yscale() == "log":
                axes.set_ylim(max(low, DEEPEST * high), high)
        seeds = sorted({r.config["seed"] for r in records})
        words = f"seeds {', '.join(map(str, seeds))}: median and range" if len(seeds) > 1 else f"seed {seeds[0]}"
        setting = ", ".join([_setting(records[0]), *shared_variants(records)])
        not_drawn = f"\nother settings, not drawn here: {'; '.join(apart)}" if apart else ""
        _suptitle(figure, f"{setting}; {words}{not_drawn}")
    return figure


def _family(arm: str) -> str:
    """The word before the first underscore; the factorial's pairs are their own."""
    return "both" if "+flatness_" in arm else arm.split("_")[0]


def _suptitle(figure: Figure, words: str) -> None:
    """On as many lines as it takes; a long arm may break before its variants."""
    room = round(12 * figure.get_figwidth())
    lines = [line if len(line) <= room else line.replace("+", " +") for line in words.split("\n")]
    figure.suptitle("\n".join(textwrap.fill(line, room) for line in lines), fontsize=11)


def _titles(panels: dict[str, Axes]) -> None:
    titles = {
        "accuracy": "accuracy",
        "cdnv": "CDNV (low: collapsed)",
        "kappa": "relative flatness kappa of the head (low: flat)",
        "logit_gap": "logit gap (nats)",
        "logit_gap_answer_rows": "logit gap among the answers' rows (nats)",
    }
    for name, axes in panels.items():
        axes.set_title(titles[name])
        if name == "accuracy":
            axes.set_ylim(-0.02, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        elif name in ("cdnv", "kappa"):
            axes.set_yscale("log")


def _curve(axes: Axes, record: Record, column: str, **style: object) -> None:
    axes.plot(*_Abscissa.of(record).curve(record, column), **style)  # type: ignore[arg-type]


def _band(axes: Axes, runs: Sequence[Record], column: str, colour: str, label: str, line: str = "-") -> None:
    if not runs:
        return
    abscissa = _Abscissa.of(runs[0])
    at, _ = abscissa.curve(runs[0], column)
    stack = np.stack([np.interp(at, *abscissa.curve(run, column)) for run in runs])
    axes.plot(at, np.median(stack, axis=0), color=colour, lw=1.6, ls=line, label=label)
    axes.fill_between(at, stack.min(axis=0), stack.max(axis=0), color=colour, alpha=0.18, lw=0)


def _limits_from(axes: Axes, records: Sequence[Record], columns: Sequence[str]) -> None:
    values = np.concatenate([r.column(name) for r in records for name in columns])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values):
        axes.set_ylim(max(values.min(), DEEPEST * values.max()) / 3, values.max() * 3)


def _mark(axes: Axes, record: Record) -> None:
    """Where the run leaves its trunk, and where it is released."""
    config, marks = record.config, dict[float, str]()
    at, fork = config["intervention"]["release_at"], config.get("fork")
    if at is not None:
        marks[at * config["training"]["steps"] if at < 1 else at] = "release"
    if fork is not None:
        both = marks.get(fork["step"])
        marks[fork["step"]] = f"fork of {fork['arm']}" + (f", {both}" if both else "")
    for step, words in marks.items():
        at = _Abscissa.of(record).place(record, step)
        axes.axvline(at, color="0.3", lw=0.9, ls="-.")
        axes.annotate(words, (at, 0.02), xycoords=("data", "axes fraction"), fontsize=7, rotation=90,
                      ha="right", va="bottom", color="0.3")  # fmt: skip


def _baseline_label(baselines: Sequence[Record]) -> str:
    seeds = ", ".join(str(b.config["seed"]) for b in baselines)
    return f"recorded baseline,\nseed{'s' if len(baselines) > 1 else ''} {seeds}"


def _setting(record: Record) -> str:
    data = record.config["data"]
    if "images" in data:
        augmented = ", augmented" if data.get("augment") else ""
        return f"{data['images']}, {data['train_images']:,} train images{augmented}, {record.config['preset']}"
    task = "composition in S_5" if data["operation"].lower() == "s5" else f"{data['operation']} mod {data['p']}"
    return f"{task}, {100 * data['train_fraction']:g} % train, {record.config['preset']}"
