"""Transfer against collapse: what probes read about the fine classes while the super-classes are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from grokcore.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY
from grokcore.training.record import Record
from grokcore.training.transfer import HEAD
from paper.charts.look import PAGE, VENUE

ARM_STYLES = {"baseline": (BLUE, "o"), "ncc_encourage": (GREEN, "s"), "ncc_prevent": (ORANGE, "^")}
PLACE_COLOURS = (SKY, GREEN, PINK, ORANGE)


def transfer_figure(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """A row for each data set: the baseline's probes along training, each arm's transfer against its train V, and the
    information about the fine classes that noise of the features' own size leaves, at most (F4)."""
    groups = by_data(runs)
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 2.45 * len(groups) + 0.4))
        grid = figure.subplots(len(groups), 3, squeeze=False)
        for (name, arms), (left, middle, right) in zip(groups.items(), grid, strict=True):
            first = next(iter(arms.values()))
            _along(left, arms.get("baseline", first))
            left.set_title(f"{name}: probes")
            _against(middle, arms)
            middle.set_title("transfer against collapse")
            _information(right, arms)
            right.set_title("I(Z;Y|S) at most, noise B (F4)")
        marks = [Line2D([], [], color=colour, marker=mark, mec="black") for colour, mark in ARM_STYLES.values()]
        words = [f"{arm} (large mark: the end)" for arm in ARM_STYLES]
        figure.legend(marks, words, loc="outside lower center", ncols=3)
    return figure


def by_data(runs: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Sequence[Record]]]:
    """Runs by data, model and decay, then by arm."""
    found: dict[str, dict[str, Sequence[Record]]] = {}
    for name, records in runs.items():
        data, _, arm = name.partition("+")
        known = next((each for each in ARM_STYLES if arm.startswith(each)), "")
        if known or not arm:
            found.setdefault(data, {})[known or "baseline"] = records
    return found


def _along(axes: Axes, records: Sequence[Record]) -> None:
    steps = records[0].column("step")
    seen = steps > 0
    start = "probe_transfer/"
    places = [name.removeprefix(start) for name in records[0].columns if name.startswith(start)]
    earlier = [place for place in places if place != HEAD]
    chosen = [earlier[i] for i in sorted({0, len(earlier) // 2, len(earlier) - 1})] if earlier else []
    for place, colour in zip(chosen, PLACE_COLOURS, strict=False):
        _median(axes, records, f"{start}{place}", seen, color=colour, lw=1.1, label=f"{place}: transfer")
    _median(axes, records, f"{start}{HEAD}", seen, color=BLUE, lw=1.7, label="head's input: transfer")
    _median(
        axes,
        records,
        f"probe_fresh/{HEAD}",
        seen,
        color=BLUE,
        lw=1.1,
        ls="--",
        label="the same, fresh images",
    )
    _median(axes, records, f"probe_train/{HEAD}", seen, color="black", lw=1.1, ls=":", label="the same, train images")
    _ceiling(axes, records)
    axes.set(xscale="log", xlabel="optimiser step", ylabel="fine classes right (%)", ylim=(0, 102))
    axes.legend(loc="best", fontsize=6)


def _against(axes: Axes, arms: Mapping[str, Sequence[Record]]) -> None:
    for arm, (colour, mark) in ARM_STYLES.items():
        for record in arms.get(arm, []):
            seen = record.column("step") > 0
            x, y = record.column("train_variance_ratio")[seen], 100 * record.column(f"probe_transfer/{HEAD}")[seen]
            axes.plot(x, y, color=colour, lw=0.6, alpha=0.5)
            axes.plot(x, y, color=colour, marker=mark, ms=2.5, ls="", alpha=0.5)
            axes.plot(x[-1:], y[-1:], color=colour, marker=mark, ms=7, ls="", mec="black", mew=0.7)
    _ceiling(axes, next(iter(arms.values())))
    axes.set(xscale="log", xlabel="train V (left: more collapse)", ylim=(0, 102))


def _information(axes: Axes, arms: Mapping[str, Sequence[Record]]) -> None:
    for arm, (colour, _) in ARM_STYLES.items():
        records = arms.get(arm, [])
        if not records:
            continue
        steps = records[0].column("step")
        seen = steps > 0
        for split, line in (("train", "-"), ("test", "--")):
            values = np.median([record.column(f"{split}_information_logdet_1")[seen] for record in records], axis=0)
            axes.plot(steps[seen], values, color=colour, ls=line, lw=1.3, label=split if arm == "baseline" else None)
    known = next(iter(arms.values()))[0].final("fine_entropy")
    axes.axhline(known, color="0.3", lw=0.9, ls=":")
    axes.annotate("H(Y|S): all there is", (0.02, known), (0, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=6.5, color="0.3")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="optimiser step", ylabel="nats")
    axes.legend(loc="lower left", fontsize=6)


def _median(axes: Axes, records: Sequence[Record], name: str, seen: np.ndarray, **style: object) -> None:
    values = 100 * np.median([record.column(name)[seen] for record in records], axis=0)
    axes.plot(records[0].column("step")[seen], values, **style)  # type: ignore[arg-type]


def _ceiling(axes: Axes, records: Sequence[Record]) -> None:
    ceiling = 100 * records[0].final("ceiling")
    axes.axhspan(0, ceiling, color=GREY, alpha=0.3, lw=0)
    axes.annotate(
        f"ceiling at exact collapse (F3): {ceiling:.0f} %", (0.02, ceiling), (0, 2), xycoords=("axes fraction", "data"),
        textcoords="offset points", fontsize=6.5, color="0.3",
    )  # fmt: skip
