"""The second clock's law as a table: of which decays, of which event, with which level, and what each says of -1.

The fit takes the decays of FIT where a sweep has them all; paper B's six, most of them too weak to be seen within
100,000 steps, have a row of their own. Rows at other levels of RNC1, and for the stronger and the weaker half of the
decays alone, show whether the slope depends on either: a power law's would not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grokcore.training.clocks import CONTRACTED, stays_below
from grokcore.training.record import Record
from paper.clock_law import BOOTSTRAPS, PREDICTED, Event, decay_of, event_at, event_of, everywhere_reached, fitted, law
from paper.onsets import generalisation_onset

PAPER = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""The weight decays of paper B."""
LEVELS = (0.2, 0.05)
"""Other levels of train RNC1."""
BALANCED = 0.01
"""Share of its first value at which the last two layers' imbalance counts as gone. Theory D3: under gradient flow,
with nothing between them, it is exp(-2 lambda t), so that this clock has the slope -1 exactly."""
CLOCK_WORDS = {
    "tau_1": "train accuracy 99.9 % (fit)",
    "tau_2": f"train RNC1 below {CONTRACTED:g}",
    "tau_2_test": f"test RNC1 below {CONTRACTED:g}",
}
HEADER = (
    "runs", "weight decays", "event", "slope of log tau against log decay [95 %]", "predicted", "runs (censored)",
)  # fmt: skip


def table(title: str, records: Sequence[Record], *, bootstraps: int = BOOTSTRAPS) -> list[tuple[str, ...]]:
    """Rows under HEADER of one sweep; what has no slope has no row."""
    chosen = fitted(records)
    decays = sorted({decay_of(record) for record in chosen}, reverse=True)
    groups = [(name, words, chosen, lambda r, name=name: event_of(r, name)) for name, words in CLOCK_WORDS.items()]
    groups += [
        (f"{level}", f"train RNC1 below {level:g}", chosen, lambda r, level=level: contraction_at(r, level))
        for level in LEVELS
    ]
    groups.append(("generalisation", "test accuracy half of its rise", chosen, generalisation))
    if all("imbalance" in record.columns for record in chosen):
        groups.append(("balance", f"imbalance of the last two layers below {100 * BALANCED:g} %", chosen, balance))
    if len(decays) >= 6:
        middle = decays[len(decays) // 2]
        for part in ([r for r in chosen if decay_of(r) >= middle], [r for r in chosen if decay_of(r) <= middle]):
            groups.append(("tau_2", CLOCK_WORDS["tau_2"], part, event_of))
    reached = everywhere_reached(chosen)
    if len(reached) < len(chosen):
        groups.append(("tau_2", f"{CLOCK_WORDS['tau_2']}, decays at which every run gets there", reached, event_of))
    of_paper = [record for record in records if decay_of(record) in PAPER]
    if {decay_of(record) for record in of_paper} == set(PAPER):
        groups.append(("tau_2", f"{CLOCK_WORDS['tau_2']}, paper B's six", of_paper, event_of))
    rows = [_row(title, name, words, [event(r) for r in runs], bootstraps) for name, words, runs, event in groups]
    return [row for row in rows if row]


def contraction_at(record: Record, level: float) -> Event:
    """tau_2 at another level of train RNC1 (mean norm)."""
    return _below(record, record.column("train_rnc1_mean"), level)


def generalisation(record: Record) -> Event:
    """The onset of generalisation (:mod:`paper.onsets`)."""
    return event_at(record, generalisation_onset(record))


def balance(record: Record) -> Event:
    """When the imbalance of the last two layers has fallen to BALANCED of its first value, for good."""
    return _below(record, record.column("imbalance") / record.column("imbalance")[0], BALANCED)


def _below(record: Record, values: NDArray[np.float64], level: float) -> Event:
    return event_at(record, stays_below(record.column("step").astype(np.int64), values, level))


def _row(title: str, name: str, words: str, events: Sequence[Event], bootstraps: int) -> tuple[str, ...]:
    try:
        found = law(events, bootstraps=bootstraps)
    except ValueError:
        return ()
    decays = sorted({event.decay for event in events}, reverse=True)
    predicted = "" if name in ("tau_1", "generalisation") else f"{PREDICTED:g}"
    counted = f"{found.runs} ({found.censored})"
    return (title, f"{decays[0]:g} to {decays[-1]:g}", words, found.words, predicted, counted)
