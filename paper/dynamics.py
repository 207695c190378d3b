"""Paper B's tables and figures: the two clocks and their law, the onsets, information and its calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from grokcore.documents import markdown
from grokcore.training import clocks
from grokcore.training.clocks import stays_below
from grokcore.training.figures import save
from grokcore.training.record import Record
from grokcore.training.table import short, spread
from paper import law_table, onsets
from paper.calibration import calibration_figure
from paper.clock_law import decay_of
from paper.clocks_figure import clocks_figure
from paper.information_figure import information_figure
from paper.onsets_figure import onsets_figure

SHOWN_DECAY = 0.1
"""Weight decay of the run whose curves are drawn, seed 0."""
BOUNDS_HEADER = (
    "weight decay", "error (%)", "Cantelli (E1), %", "directional (E1'), %", "directional below 100 % from step",
    "the same on the train set", "I(Z;X|Y) at most, noise B (nats)",
)  # fmt: skip
Settings = Mapping[tuple[str, str, str], Sequence[Record]]
"""Records by experiment, preset and setting."""


def sweeps(recorded: Settings) -> dict[str, Sequence[Record]]:
    """The settings whose runs have three weight decays or more, by what their arms are called without them."""
    found: dict[str, Sequence[Record]] = {}
    for (experiment, preset, setting), records in recorded.items():
        if experiment == "dynamics" and len({decay_of(record) for record in records}) >= 3:
            name = records[0].config["arm"].rsplit("-wd", 1)[0]
            found[f"{name}, {preset}" + (f" ({setting})" if setting else "")] = records
    return found


def tables(recorded: Settings) -> dict[str, str]:
    """``dynamics/law``; of each sweep its bounds at the end, its onsets and their order; and ``dynamics/others``, the
    clocks of the runs that are in none. Markdown."""
    groups, found = sweeps(recorded), dict[str, str]()
    swept = {id(record) for records in groups.values() for record in records}
    others: dict[str, list[Record]] = {}
    for (experiment, _, _), records in recorded.items():
        for record in records:
            if experiment == "dynamics" and id(record) not in swept:
                others.setdefault(record.arm, []).append(record)
    if others:
        found["dynamics/others"] = markdown(clocks.HEADER, clocks.comparison(others, list(others)))
    rows = [row for title, records in groups.items() for row in law_table.table(title, records)]
    if rows:
        found["dynamics/law"] = markdown(law_table.HEADER, rows)
    for title, records in groups.items():
        found[f"dynamics/bounds {title}"] = markdown(BOUNDS_HEADER, bounds(records))
        of_onsets = onsets.table(records)
        if of_onsets:
            found[f"dynamics/onsets {title}"] = markdown(onsets.HEADER, of_onsets)
            found[f"dynamics/order {title}"] = markdown(onsets.ORDER_HEADER, onsets.order_table(records))
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


def figures(recorded: Settings, folder: Path) -> list[Path]:
    """Draw the clocks and onsets of the sweeps, the information of the runs that log it, and the calibration."""
    groups, drawn = sweeps(recorded), list[Path]()
    if groups:
        drawn.append(folder / "dynamics-clocks.png")
        save(clocks_figure(groups), drawn[-1])
    for title, records in groups.items():
        shown = next((r for r in records if decay_of(r) == SHOWN_DECAY and r.config["seed"] == 0), records[0])
        drawn.append(folder / f"dynamics-onsets-{title.replace(', ', '-')}.png")
        save(onsets_figure(records, shown), drawn[-1])
    logged = [r for records in recorded.values() for r in records if "test_nhsic_inputs" in r.columns]
    for record in logged:
        drawn.append(folder / f"information-{record.arm}-seed{record.config['seed']}.png")
        save(information_figure(record), drawn[-1])
    if any(experiment == "dynamics" for experiment, _, _ in recorded):
        drawn.append(folder / "information-calibration.png")
        save(calibration_figure(), drawn[-1])
    return drawn
