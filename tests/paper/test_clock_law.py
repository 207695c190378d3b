"""The fit of the second clock's law on runs drawn from a known one, censored as real ones are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize  # type: ignore[import-untyped]

from grokcore.training.clocks import summarise
from grokcore.training.figures import save
from grokcore.training.record import Record
from grokcore.training.schedules import log_spaced_steps
from paper import law_table
from paper.charts.clocks import clocks_figure
from paper.clock_law import FIT, Event, decay_of, event_of, law
from paper.interval_regression import fit, log_between

DECAYS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02)
STEPS = np.array(log_spaced_steps(100_000, 120))


def drawn(slope: float, *, at_one: float = 2_000.0, spread: float = 0.15, seeds: int = 5, seed: int = 0) -> list[Event]:
    """Five runs a decay, seen at measured steps up to 100,000."""
    rng, found = np.random.default_rng(seed), []
    for decay in DECAYS:
        for _ in range(seeds):
            tau = at_one * decay**slope * math.exp(spread * rng.normal())
            index = int(np.searchsorted(STEPS, tau))
            late = index == len(STEPS)
            found.append(Event(decay, float(STEPS[index - 1]), math.inf if late else float(STEPS[index])))
    return found


@pytest.mark.parametrize("slope", [-1.0, -0.6])
def test_the_slope_is_found_and_covered(slope: float) -> None:
    found = law(drawn(slope), bootstraps=100)
    assert found.low < slope < found.high
    assert found.slope == pytest.approx(slope, abs=0.08)
    assert found.spread == pytest.approx(0.15, rel=0.4)
    assert found.tau(1.0) == pytest.approx(2_000, rel=0.15)
    assert found.runs == 40


def test_leaving_out_what_never_came_would_flatten_it() -> None:
    events = drawn(-1.0, at_one=6_000.0, spread=0.5)
    seen = [event for event in events if not event.censored]
    assert 3 <= len(events) - len(seen) <= 15
    whole, naive = law(events, bootstraps=100), law(seen, bootstraps=2)
    assert whole.censored == len(events) - len(seen)
    assert whole.low < -1 < whole.high
    assert naive.slope > whole.slope + 0.05


def test_one_run_a_decay_has_no_interval() -> None:
    found = law(drawn(-1.0, seeds=1))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "[" not in found.words
    assert "[" in law(drawn(-1.0, seeds=2), bootstraps=20).words


def test_no_slope_without_two_decays() -> None:
    with pytest.raises(ValueError, match="two weight decays"):
        law([Event(0.1, 10, 20), Event(0.01, 100, math.inf)])


def test_probabilities_between_keep_their_tails() -> None:
    mpmath = pytest.importorskip("mpmath")
    for a, b in ((-1, 2), (30, 31), (-31, -30), (5, math.inf), (-40, math.inf), (0.1, 0.1001), (-40, 40)):
        with mpmath.workdps(60):
            high = mpmath.mpf(1) if math.isinf(b) else mpmath.ncdf(b)
            exact = float(mpmath.log(high - mpmath.ncdf(a))) if a < 0 else float(
                mpmath.log(mpmath.ncdf(-a) - (0 if math.isinf(b) else mpmath.ncdf(-b)))
            )  # fmt: skip
        assert float(log_between(np.array([a]), np.array([b]))[0]) == pytest.approx(exact, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", range(6))
def test_the_fit_is_the_maximum_that_an_optimiser_finds(case: int) -> None:
    """Nelder-Mead on the likelihood itself, from elsewhere; many samples at once and one alone agree."""
    events = drawn(-0.8, at_one=4_000.0, spread=(0.02, 0.1, 0.4)[case % 3], seed=case)
    x = np.log([event.decay for event in events])
    low, high = np.log([e.after for e in events]), np.log([e.step for e in events])

    def minus(values: np.ndarray) -> float:
        slope, intercept, spread = values[0], values[1], max(values[2], 0.01)
        middle = intercept + slope * x
        return -float(log_between((low - middle) / spread, (high - middle) / spread).sum())

    found = [float(each[0]) for each in fit(x[None], low[None], high[None], 0.01)]
    scipy = minimize(
        minus, [-1.2, 8.0, 0.3], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 9000}
    )
    assert minus(np.array(found)) <= scipy.fun + 1e-7
    assert found[:2] == pytest.approx(list(scipy.x[:2]), abs=1e-3)
    twice = fit(np.stack([x, x[::-1]]), np.stack([low, low[::-1]]), np.stack([high, high[::-1]]), 0.01)
    assert [float(each[1]) for each in twice] == pytest.approx(found, rel=1e-6)


def test_an_event_of_a_run() -> None:
    config = {"training": {"weight_decay": 0.1}}
    record = Record(
        config, "", {}, "", "", 0.0, ["step"], [[0], [500]], {"tau_2": {"step": 100, "after": 90}, "tau_1": None}
    )
    assert event_of(record) == Event(0.1, 90, 100)
    assert event_of(record, "tau_1") == Event(0.1, 500, math.inf)


def test_the_figure_shows_what_never_came(tmp_path: Path) -> None:
    records = []
    for index, event in enumerate(drawn(-1.0, at_one=3_000.0)):
        came = None if event.censored else {"step": event.step, "after": event.after}
        summary = {"tau_1": {"step": 900, "after": 800}, "tau_2": came, "tau_2_test": None}
        config = {"training": {"weight_decay": event.decay}, "seed": index % 5}
        records.append(Record(config, "", {}, "", "", 0.0, ["step"], [[0], [100_000]], summary))
    figure = clocks_figure({"all": records, "one decay, no law": records[:5]})
    first, second = figure.axes
    counts = [text.get_text() for text in first.texts]
    assert counts.count("5") >= 8  # no test event ever came, at any of the eight decays
    assert any("slope" in text for text in counts)
    assert not any("slope" in text.get_text() for text in second.texts)
    save(figure, tmp_path / "clocks.png")
    assert (tmp_path / "clocks.png").stat().st_size > 10_000


def contracting(decay: float, seed: int, *, weak_power: float = 1.0) -> Record:
    """RNC1 falls as 1 / (1 + step decay / 100), below a decay of 0.1 with decay^weak_power, joined there."""
    rng, rate = np.random.default_rng(seed), decay if decay > 0.1 else 0.1 * (decay / 0.1) ** weak_power
    values = 1 / (1 + STEPS * rate * math.exp(0.1 * rng.normal()) / 100)
    rows = [
        {"step": int(step), "train_accuracy": 1.0, "test_accuracy": 0.5, "train_rnc1_mean": float(value),
         "test_rnc1_mean": 1.0, "train_kappa_squared": 1.0}
        for step, value in zip(STEPS, values, strict=True)
    ]  # fmt: skip
    values_of_rows = [list(row.values()) for row in rows]
    config = {"training": {"weight_decay": decay}, "seed": seed}
    return Record(config, "", {}, "", "", 0.0, list(rows[0]), values_of_rows, summarise(rows))


def test_the_table_says_whether_it_is_a_power_law() -> None:
    """Of paper B's decays the three outside the fit have a row of their own, and do not move it."""
    records = [contracting(decay, seed) for decay in {*FIT, *law_table.PAPER} for seed in range(3)]
    rows = law_table.table("made up", records, bootstraps=20)
    slopes = {(row[1], row[2]): float(row[3].split()[0]) for row in rows}
    assert {decays for decays, _ in slopes} == {"1 to 0.02", "1 to 0.1", "0.1 to 0.02", "0.3 to 0.001"}
    of_tau_2 = [slope for (_, words), slope in slopes.items() if words.startswith("train RNC1")]
    assert len(of_tau_2) == 6
    assert all(slope == pytest.approx(-1, abs=0.08) for slope in of_tau_2)
    assert rows == [*law_table.table("made up", [r for r in records if decay_of(r) in FIT], bootstraps=20), rows[-1]]
    assert rows[-1][5].startswith("18 (")
    assert rows[-1][5] != "18 (0)"
    # Two laws, one for strong and one for weak decay, are not one.
    broken = [contracting(decay, seed, weak_power=0.5) for decay in FIT for seed in range(3)]
    found = {
        row[1]: float(row[3].split()[0])
        for row in law_table.table("broken", broken, bootstraps=20)
        if "below 0.1" in row[2]
    }
    assert found["0.1 to 0.02"] > found["1 to 0.1"] + 0.3


def test_the_clock_of_balance_is_exact() -> None:
    """Theory D3: exp(-2 l t), so that 1 % of the imbalance is left at t = log(100) / (2 l)."""
    records = []
    for decay in (1.0, 0.3, 0.1):
        of = contracting(decay, 0)
        gone = np.exp(-2 * decay * np.array([row[0] for row in of.rows]) / 1_000)
        rows = [[*row, 7.0 * float(value)] for row, value in zip(of.rows, gone, strict=True)]
        records.append(replace(of, columns=[*of.columns, "imbalance"], rows=rows))
    event = law_table.balance(records[0])
    assert event.after < 1_000 * math.log(100) / 2 <= event.step
    (row,) = (row for row in law_table.table("made up", records, bootstraps=5) if "imbalance" in row[2])
    assert float(row[3].split()[0]) == pytest.approx(-1, abs=0.05)


def test_a_decay_whose_rnc1_rests_above_its_level_is_no_slow_clock() -> None:
    """Three decays follow the law, the strongest never gets there: taken for a slow clock it turns the slope round."""
    records = [contracting(decay, seed) for decay in (1.0, 0.5, 0.2) for seed in range(3)]
    for seed in range(3):
        of = contracting(3.0, seed)
        records.append(replace(of, summary=of.summary | {"tau_2": None}))
    rows = {row[2]: row for row in law_table.table("made up", records, bootstraps=5)}
    words = law_table.CLOCK_WORDS["tau_2"]
    assert float(rows[words][3].split()[0]) > -0.8
    apart = rows[f"{words}, decays at which every run gets there"]
    assert float(apart[3].split()[0]) == pytest.approx(-1, abs=0.08)
    assert (rows[words][5], apart[5], apart[1]) == ("12 (3)", "9 (0)", "1 to 0.2")
    (panel,) = clocks_figure({"made up": records}).axes
    assert any("slope -1.0" in text.get_text() or "slope -0.9" in text.get_text() for text in panel.texts)


def test_runs_without_decay_are_drawn_and_not_fitted(tmp_path: Path) -> None:
    records = [contracting(decay, seed) for decay in (1.0, 0.5, 0.2) for seed in range(2)]
    without = [replace(records[0], config={"training": {"weight_decay": 0.0}, "seed": 0})]
    events = [event_of(record) for record in records]
    assert law([*events, event_of(without[0])], bootstraps=5) == law(events, bootstraps=5)
    figure = clocks_figure({"made up": [*records, *without]})
    (panel,) = figure.axes
    assert "no decay" in [text.get_text() for text in panel.texts]
    assert 0 < panel.get_xlim()[0] < 0.2 / 3
    save(figure, tmp_path / "clocks.png")
