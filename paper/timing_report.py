"""The published measurement beside ours: table and verdict by the rules of `paper.timing`, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from grokcore.training.record import Record
from grokcore.training.table import short, spread
from paper.timing import (
    FIT,
    FIT_AND_GENERALISATION,
    HALFWAY,
    QUANTITIES,
    STARTED,
    Fall,
    Timing,
    agreed,
    events,
    timing,
)  # fmt: skip

HEADER = (
    "set-up", "quantity (train, if nothing else is said)", "falls (log scale)", "half of it at step",
    "falls (linear scale)", "below half its maximum at step", "steepest by step", "left at the fit",
    "as generalisation starts", "at test 99 %", "at the end",
)  # fmt: skip
SAID = (
    "train_kappa", "test_kappa", "train_published_product", "train_cdnv", "train_within_class_variance",
    "train_inverse_distance", "train_rnc1_mean",
)  # fmt: skip
"""The quantities of which the verdict speaks one by one."""


def table(setups: Mapping[str, Sequence[Record]]) -> list[tuple[str, ...]]:
    """Rows under HEADER: the events of each set-up, then each quantity; median [least, greatest] over seeds."""
    rows: list[tuple[str, ...]] = []
    for name, runs in setups.items():
        for words, step in _events(runs).items():
            rows.append((name, words, "", step, *[""] * 7))
        for quantity, words in QUANTITIES.items():
            timings = [timing(run, quantity) for run in runs]
            logs, linears = [t.log for t in timings], [t.linear for t in timings]
            steepest = _steps([t.steepest for t in timings])
            halves = (agreed(logs), _steps([f.step for f in logs]), agreed(linears), _steps([f.step for f in linears]))
            rows.append((name, words, *halves, steepest, *_levels(timings)))
    return rows


def verdict(setups: Mapping[str, Sequence[Record]]) -> str:
    """What each quantity does, and in how many runs paper A's claim holds: Markdown, a list for each set-up."""
    return "\n\n".join(f"**{name}**\n\n" + "\n".join(_sentences(runs)) for name, runs in setups.items())


def _sentences(runs: Sequence[Record]) -> list[str]:
    of = {quantity: [timing(run, quantity) for run in runs] for quantity in QUANTITIES}
    logs, linears = ({q: [getattr(t, scale) for t in of[q]] for q in of} for scale in ("log", "linear"))
    accuracy = spread([100 * _test_accuracy_at_fit(run) for run in runs], lambda v: f"{v:.0f}")
    said = [
        f"seeds {' '.join(str(run.config['seed']) for run in runs)}; test accuracy at the fit: {accuracy} %; steps of "
        + "; ".join(f"{words}: {step}" for words, step in _events(runs).items())
    ]
    for quantity in SAID:
        left = _levels(of[quantity])
        said.append(
            f"{QUANTITIES[quantity]}: log scale: {_when(logs[quantity])}; linear scale: {_when(linears[quantity])}; "
            f"left of its maximum: {left[0]} at the fit, {left[1]} as generalisation starts, {left[2]} at test 99 %, "
            f"{left[3]} at the end"
        )
    pairs = [(k.step, p.step) for k, p in zip(logs["train_kappa"], logs["train_published_product"], strict=True)]
    # Two falls that never come are not in one interval; comparisons with NaN are false.
    order = (sum(k < p for k, p in pairs), sum(k == p < math.inf for k, p in pairs), sum(k > p for k, p in pairs))
    of_runs = f"of {len(runs)} run{'s' * (len(runs) > 1)}"
    said.append(
        f"{of_runs}, the exact kappa falls (train, log scale) before the published curve in {order[0]}, in one "
        f"interval with it in {order[1]}, after it in {order[2]}"
    )

    def claimed(quantity: str, test: Callable[[Fall], bool]) -> str:
        log, linear = (sum(map(test, falls[quantity])) for falls in (logs, linears))
        return f"{QUANTITIES[quantity]}: {log} on a log scale, {linear} on a linear one"

    flatness = ("train_kappa", "test_kappa", "train_published_product", "test_published_product")
    start = f"test accuracy {100 * STARTED:g} to {100 * HALFWAY:g} %"
    said.append(
        f'"flatness falls exactly when generalisation starts" ({start}), {of_runs}: '
        + "; ".join(claimed(quantity, lambda f: f.exactly) for quantity in flatness)
    )
    early = claimed("train_cdnv", lambda f: f.phase in (FIT, FIT_AND_GENERALISATION))
    said.append(f'"CDNV falls early, during the fit", {of_runs}: {early}')
    return [f"- {sentence}" for sentence in said]


def _when(falls: Sequence[Fall]) -> str:
    steps = _steps([f.step for f in falls])
    return agreed(falls) if steps in ("never", "undefined") else f"{agreed(falls)}, at step {steps}"


def _events(runs: Sequence[Record]) -> dict[str, str]:
    seen = [events(run) for run in runs]
    named = {
        "train accuracy 99 % (the fit)": [e.fit for e in seen],
        f"test accuracy {100 * STARTED:g} %": [e.starts for e in seen],
        f"test accuracy {100 * HALFWAY:g} %": [e.halfway for e in seen],
        "test accuracy 99 %": [e.done for e in seen],
    }
    return {words: _steps([math.inf if e is None else float(e.step) for e in found]) for words, found in named.items()}


def _levels(timings: Sequence[Timing]) -> list[str]:
    return [spread(level, short) for level in zip(*(t.levels for t in timings), strict=True)]


def _test_accuracy_at_fit(record: Record) -> float:
    fit, test = events(record).fit, record.column("test_accuracy")
    return math.nan if fit is None else float(test[record.column("step").tolist().index(fit.step)])


def _steps(values: Sequence[float]) -> str:
    return spread(values, lambda v: f"{v:,.0f}")
