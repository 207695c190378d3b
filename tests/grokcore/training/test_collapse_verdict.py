"""The verdict on test collapse: from made-up runs with known ends."""

from __future__ import annotations

import math

import pytest

from grokcore.training.collapse_verdict import (
    FLOOR,
    STRONG,
    THRESHOLDS,
    WEAK,
    Thresholds,
    comparison,
    summarise,
    verdict,
)
from grokcore.training.record import Record


def run(seed: int, *, about_true: float, floor: float, predicted: float) -> Record:
    row = {
        "step": 10, "train_accuracy": 1.0, "test_accuracy": 0.95, "train_nc1_trace_ratio": 0.001,
        "test_nc1_trace_ratio": about_true, STRONG: about_true, FLOOR: floor, WEAK: predicted,
    }  # fmt: skip
    config = {"experiment": "limits-test-collapse", "preset": "p", "arm": "a", "variant": [], "seed": seed}
    return Record(config, "", {}, "", "", 0.0, list(row), [list(row.values())], summarise([row]))


def runs(about_true: float, floor: float, predicted: float, *, seeds: int = 3, spread: float = 0.001) -> list[Record]:
    return [
        run(seed, about_true=about_true + spread * (seed - 1), floor=floor, predicted=predicted + spread * (seed - 1))
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("about_true", "floor", "predicted", "word"),
    [
        (0.04, 0.0, 0.3, "strong"),
        (0.30, 0.28, 0.3, "strong"),  # what is above the floor counts
        (0.30, 0.10, 0.01, "weak"),
        (0.30, 0.10, 0.20, "none"),
    ],
)
def test_words(about_true: float, floor: float, predicted: float, word: str) -> None:
    assert verdict(runs(about_true, floor, predicted)).word == word
    assert verdict(runs(about_true, floor, predicted, seeds=2)).word == "undecided"


def test_the_upper_end_counts_and_not_the_mean() -> None:
    """By Student's t over three seeds: 4.5 standard errors at the level of two sigma, and no verdict by the mean."""
    sharp, wide = runs(0.045, 0.0, 0.3), runs(0.045, 0.0, 0.3, spread=0.01)
    assert verdict(sharp).word == "strong"
    assert verdict(wide).word == "none"
    assert verdict(wide).excess == pytest.approx(0.045 + 4.5 * 0.01 / math.sqrt(3), rel=0.05)
    assert math.isnan(verdict(sharp[:1]).excess)
    assert verdict(wide, Thresholds(below=0.1)).word == "strong"


def test_what_was_fixed_is_recorded() -> None:
    (record, *_) = runs(0.3, 0.1, 0.2)
    assert record.summary["thresholds"] == {"below": THRESHOLDS.below, "seeds": THRESHOLDS.seeds} == {
        "below": 0.05, "seeds": 3,
    }  # fmt: skip
    assert "below 0.05" in record.summary["words"][-1]
    (row,) = comparison(runs(0.3, 0.1, 0.2))
    assert row[-1] == "none"
    assert row[2] == "5.0"
