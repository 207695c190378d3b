"""Onsets, their order and their ranks on runs made up with known ones; the tables and figures of paper B."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import dynamics
from grokcore.training.clocks import summarise
from grokcore.training.record import Record
from grokcore.training.schedules import log_spaced_steps
from grokcore.training.table import by_setting
from paper import onsets
from paper.__main__ import drawings
from paper.catalogue import figure_named
from paper.charts.calibration import MIXTURE_WIDTH, Curve, mixture_information
from paper.drawing import draw
from paper.dynamics import sweeps
from paper.every_table import texts
from paper.recorded import refresh, settings

STEPS = np.array([0, *log_spaced_steps(100_000, 120)])


def falls(at: float, low: float = 0.01) -> np.ndarray:
    """From 1 to `low`, half of the way on a log scale at step `at`."""
    return low ** (1 / (1 + (at / np.maximum(STEPS, 1e-9)) ** 4))


def run(decay: float, seed: int, *, general: float, train: float, test: float, kappa: float) -> Record:
    """A run whose quantities set in at the given steps; it is fitted at step 200."""
    accuracy = 0.2 + 0.7 / (1 + (general / np.maximum(STEPS, 1e-9)) ** 4)
    columns = {
        "step": STEPS, "train_accuracy": np.where(STEPS >= 200, 1.0, 0.5), "test_accuracy": accuracy,
        "train_rnc1_mean": falls(train), "test_rnc1_mean": falls(test), "train_kappa_squared": 100 * falls(kappa),
        "test_kappa_squared": 100 * falls(kappa), "train_within_class_variance": falls(train),
        "test_within_class_variance": falls(test), "train_nc1_trace_ratio": falls(train),
        "test_nc1_trace_ratio": falls(test), "weight_norm": 0.5 * np.ones(len(STEPS)),
    }  # fmt: skip
    rows = [dict(zip(columns, map(float, values), strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = [row | {"step": int(row["step"])} for row in rows]
    config = {"experiment": "dynamics", "preset": "grey", "arm": f"mnist-mlp-wd{decay:g}", "variant": [], "seed": seed}
    config |= {"data": {"source": "mnist"}, "model": {}, "training": {"weight_decay": decay, "steps": 100_000}}
    values = [[row[name] for name in columns] for row in rows]
    return Record(config, f"{seed}{decay}", {}, "cpu", "0" * 7, 1.0, list(columns), values, summarise(rows))


def runs(*, kappa_leads: float = 2.0, seed: int = 0) -> list[Record]:
    """Generalisation at 2,000 / decay with noise, kappa ahead of it as asked; features at noise of their own."""
    rng, found = np.random.default_rng(seed), []
    for decay in (1.0, 0.3, 0.1):
        for index in range(5):
            general = 2_000 / decay * math.exp(0.3 * rng.normal())
            other = 2_000 / decay * math.exp(0.3 * rng.normal())
            found.append(
                run(decay, index, general=general, train=other / 3, test=other / 2, kappa=general / kappa_leads)
            )
    return found


def test_onsets_are_where_half_is_done() -> None:
    record = run(0.1, 0, general=20_000, train=3_000, test=5_000, kappa=8_000)
    general = onsets.generalisation_onset(record)
    assert general is not None
    assert general.step == pytest.approx(20_000, rel=0.15)
    for name, at in (("train_rnc1_mean", 3_000), ("test_rnc1_mean", 5_000), ("train_kappa_squared", 8_000)):
        fall = onsets.fall_onset(record, name)
        assert fall is not None
        assert fall.step == pytest.approx(at, rel=0.12)


def test_no_rise_is_no_onset() -> None:
    assert onsets.generalisation_onset(run(0.1, 0, general=1e9, train=10, test=10, kappa=10)) is None
    unfitted = run(0.1, 0, general=2_000, train=10, test=10, kappa=10)
    unfitted.summary["tau_1"] = None
    assert onsets.generalisation_onset(unfitted) is not None  # which does not wait for the fit
    assert onsets.fall_onset(run(0.1, 0, general=10, train=1e9, test=10, kappa=10), "train_rnc1_mean") is None


def test_lead_and_ranks_tell_a_companion_from_what_the_decay_moves() -> None:
    """kappa follows generalisation run by run; RNC1 shares its decay alone, which ranks over all runs cannot see."""
    records = runs(kappa_leads=2.0)
    lead = np.median(onsets.leads(records, "train_kappa_squared"))
    assert math.exp(lead) == pytest.approx(2.0, rel=0.15)
    rows = {row[0]: row for row in onsets.table(records)}
    kappa, rnc1 = (rows[onsets.FALLS[name]] for name in ("train_kappa_squared", "train_rnc1_mean"))
    assert float(kappa[4].split()[0]) > 0.95
    assert float(rnc1[4].split()[0]) > 0.7
    assert float(kappa[5].split()[0]) > 0.8
    assert onsets.FALLS["weight_norm"] not in rows  # it does not fall here
    low, high = (float(each) for each in rnc1[5].split("[")[1].rstrip("]").split(", "))
    assert low < 0 < high
    assert float(kappa[6].split()[0]) < -0.9  # along a run kappa falls as accuracy rises


def test_which_contracts_first() -> None:
    def says(records: list[Record]) -> set[str]:
        return {row[4] for row in onsets.order_table(records)}

    assert says(runs()) == {"train first"}
    swapped = [run(0.1, s, general=9_000, train=4_000 * (1 + s / 9), test=2_000, kappa=100) for s in range(5)]
    assert says(swapped) == {"test first"}
    mixed = [run(0.1, s, general=9_000, train=2_000, test=2_000 * 3 ** (s % 2 * 2 - 1), kappa=100) for s in range(6)]
    assert says(mixed) == {"not told apart"}


def test_a_test_set_that_falls_less_is_not_first_for_that() -> None:
    """The same course down to a plateau: half of its own fall comes sooner, a common level does not."""
    record = run(0.1, 0, general=9_000, train=3_000, test=3_000, kappa=100)
    index = record.columns.index("test_rnc1_mean")
    rows = [[*row[:index], max(float(row[index] or 0), 0.12), *row[index + 1 :]] for row in record.rows]
    plateau = replace(record, rows=rows)
    halves = [onsets.fall_onset(plateau, f"{split}_rnc1_mean") for split in ("train", "test")]
    assert halves[0] is not None
    assert halves[1] is not None
    assert halves[1].step < 0.8 * halves[0].step
    found = {level: onsets.order_of_contraction([plateau], level) for level in (0.2, 0.1)}
    assert found[0.2][0].value == pytest.approx(1)
    assert found[0.1][1:] == (0, 1)
    half = onsets.below_onset(plateau, "train_rnc1_mean")
    assert half is not None
    assert half.step < halves[0].step


def test_a_sweep_is_one_setting() -> None:
    (setting,) = by_setting(runs()).items()
    assert setting[0] == ""
    assert len(setting[1]) == 15
    assert list(sweeps({("dynamics", "grey", ""): runs()})) == ["mnist-mlp, grey"]
    assert sweeps({("dynamics", "grey", ""): runs()[:10]}) == {}  # two decays


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_mixture_information_within_its_limits(noise: float) -> None:
    """Between the width's own information and that with a bit for the sign on top, and the sign's alone at no width."""
    own = math.log(1 + (MIXTURE_WIDTH / noise) ** 2) / 2
    assert own < mixture_information(MIXTURE_WIDTH, noise) < own + math.log(2)
    known = {0.5: 0.6327, 1.0: 0.3368, 3.0: 0.05267}  # theory E2
    for s, value in known.items():
        assert mixture_information(0.0, s) == pytest.approx(value, abs=6e-5)


def test_bias_and_spread() -> None:
    curve = Curve("", (1.0, 2.0), ((1.5, 2.5), (1.0, 1.0)))
    assert curve.bias.tolist() == [1.0, -1.0]
    assert curve.spread.tolist() == pytest.approx([math.sqrt(0.5), 0.0])


def test_from_a_command_to_tables_and_figures(tmp_path: Path) -> None:
    words = [
        "--preset", "quick", "--train-images", "50", "--hidden", "40", "20", "--batch-size", "25",
        "--measurements", "6", "--steps", "12", "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip
    assert dynamics.main([*words, "--weight-decays", "1", "0.3", "0.1"]) == 0
    assert dynamics.main([*words, "--weight-decays", "0.1", "--information"]) == 0
    assert refresh(tmp_path / "runs", tmp_path / "results") == 4
    found = texts(settings(tmp_path / "results"))
    assert {"dynamics/quick", "dynamics/quick+information"} <= set(found)
    assert found["dynamics/quick"].count("digits-mlp-wd") == 3
    assert found["dynamics/others"].count("digits-mlp-wd0.1+") == 1  # the run with its information is in no sweep
    bounded = [line.split(" | ") for line in found["dynamics/bounds digits-mlp, quick"].splitlines()[2:]]
    assert [line[0].strip("| ") for line in bounded] == ["1", "0.3", "0.1"]
    assert all(float(line[1]) <= float(line[3]) <= float(line[2]) for line in bounded)
    wanted = [each for each in drawings(tmp_path / "results")[0] if each.records and each.name.startswith("dynamics")]
    names = draw(wanted, tmp_path / "results", tmp_path / "figures")
    assert names == ["dynamics-onsets-digits-mlp-quick"]
    every = [each.name for each in drawings(tmp_path / "results")[0]]
    assert "information-calibration" in every
    assert len([name for name in every if name.startswith("information-digits-mlp-wd0.1+")]) == 1
    records = [r for each in settings(tmp_path / "results").values() for r in each]
    assert figure_named("clocks").draw(records).axes
