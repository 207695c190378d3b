"""Paper B's tables, and the figures beside the paper's own: onsets, information along a run and its calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from grokcore.documents import Table
from grokcore.training import clocks
from grokcore.training.clocks import stays_below
from grokcore.training.record import Record
from grokcore.training.table import short, spread
from paper import law_table, onsets
from paper.charts.calibration import calibration_figure
from paper.charts.information import information_figure
from paper.charts.onsets import onsets_figure
from paper.clock_law import decay_of
from paper.drawing import Drawing
from paper.recorded import Settings

SHOWN_DECAY = 0.1
"""Weight decay of the run whose curves are drawn, seed 0."""
BOUNDS_HEADER = (
    "weight decay", "error (%)", "Cantelli (E1), %", "directional (E1'), %", "directional below 100 % from step",
    "the same on the train set", "I(Z;X|Y) at most, noise B (nats)",
)  # fmt: skip


def sweeps(recorded: Settings) -> dict[str, Sequence[Record]]:
    """The settings whose runs have three weight decays or more, by what their arms are called without them."""
    found: dict[str, Sequence[Record]] = {}
    for (experiment, preset, setting), records in recorded.items():
        if experiment == "dynamics" and len({decay_of(record) for record in records}) >= 3:
            name = records[0].config["arm"].rsplit("-wd", 1)[0]
            found[f"{name}, {preset}" + (f" ({setting})" if setting else "")] = records
    return found


def tables(recorded: Settings) -> dict[str, Table]:
    """``dynamics/law``; of each sweep its bounds at the end, its onsets and their order; and ``dynamics/others``, the
    clocks of the runs that are in none."""
    groups, found = sweeps(recorded), dict[str, Table]()
    swept = {id(record) for records in groups.values() for record in records}
    others: dict[str, list[Record]] = {}
    for (experiment, _, _), records in recorded.items():
        for record in records:
            if experiment == "dynamics" and id(record) not in swept:
                others.setdefault(record.arm, []).append(record)
    if others:
        found["dynamics/others"] = Table(clocks.HEADER, clocks.comparison(others, list(others)))
    rows = [row for title, records in groups.items() for row in law_table.table(title, records)]
    if rows:
        found["dynamics/law"] = Table(law_table.HEADER, rows)
    for title, records in groups.items():
        found[f"dynamics/bounds {title}"] = Table(BOUNDS_HEADER, bounds(records))
        of_onsets = onsets.table(records)
        if of_onsets:
            found[f"dynamics/onsets {title}"] = Table(onsets.HEADER, of_onsets)
            found[f"dynamics/order {title}"] = Table(onsets.ORDER_HEADER, onsets.order_table(records))
    return found


def bounds(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under BOUNDS_HEADER, of the test set at the end of the runs: median [least, greatest] over seeds."""
    rows = []
    for decay in sorted({decay_of(record) for record in records}, reverse=True):
        runs = [record for record in records if decay_of(record) == decay]
        errors = [100 * (1 - record.final("test_accuracy")) for record in runs]
        cantelli, directional = (
            [100 * record.final(f"test_{name}") for record in runs] for name in ("cantelli", "cantelli_directional")
        )
        since = [[_says_something(r, f"{split}_cantelli_directional") for r in runs] for split in ("test", "train")]
        information = [record.final("test_information_logdet_1") for record in runs]
        rows.append(
            (
                f"{decay:g}",
                *(spread(values, lambda v: f"{v:.1f}") for values in (errors, cantelli, directional)),
                *(spread(values, lambda v: f"{v:,.0f}") for values in since),
                spread(information, short),
            )
        )
    return rows


def _says_something(record: Record, name: str) -> float:
    """The first measured step from which on a bound of an error stays below one; infinite where the last does not."""
    found = stays_below(record.column("step").astype(np.int64), record.column(name), 1.0)
    return math.inf if found is None else float(found.step)


def drawings(recorded: Settings) -> list[Drawing]:
    """The onsets of the sweeps, the information of the runs that log it, and the calibration of its estimators."""
    found = []
    for title, records in sweeps(recorded).items():
        shown = next((r for r in records if decay_of(r) == SHOWN_DECAY and r.config["seed"] == 0), records[0])
        name = f"dynamics-onsets-{title.replace(', ', '-')}"
        found.append(Drawing(name, records, partial(onsets_figure, records, shown)))
    for record in (r for records in recorded.values() for r in records if "test_nhsic_inputs" in r.columns):
        name = f"information-{record.arm}-seed{record.config['seed']}"
        found.append(Drawing(name, [record], partial(information_figure, record)))
    if any(experiment == "dynamics" for experiment, _, _ in recorded):
        found.append(Drawing("information-calibration", [], calibration_figure))
    return found
