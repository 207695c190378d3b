"""Events read off curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grokcore.training.milestones import Passing, half_fall, passes, summarise, value_at

STEPS = np.array([0, 1, 10, 100, 1000])


def test_passing() -> None:
    assert passes(STEPS, np.array([0, 0.5, 0.99, 1, 1]), 0.99) == Passing(10, 1)
    assert passes(STEPS, np.array([0, 0.5, 0.98, 0.98, 0.98]), 0.99) is None


def test_half_fall_is_half_on_a_log_scale() -> None:
    """From 100 to 1 the half is 10, not 50."""
    assert half_fall(STEPS, np.array([1, 100, 40, 9, 1.0])) == Passing(100, 10)
    assert half_fall(STEPS, np.array([1, 100, 10, 9, 1.0])) == Passing(10, 1)


def test_half_fall_ignores_values_before_the_peak_and_small_falls() -> None:
    assert half_fall(STEPS, np.array([0.1, 0.1, 100, 50, 1.0])) == Passing(1000, 100)
    assert half_fall(STEPS, np.array([1, 2, 3, 4, 5.0])) is None
    assert half_fall(STEPS, np.array([1, 2, 3, 4, 2.1])) is None
    assert half_fall(STEPS, np.array([1, 2, math.nan, 4, 1.0])) is None
    assert half_fall(STEPS, np.array([1, 2, 3, 4, 0.0])) is None


def test_interpolation_is_on_log_axes() -> None:
    assert value_at(STEPS, np.array([5, 1, 10, 100, 1000.0]), 31) == pytest.approx(31)


def rows(test_accuracy: list[float], kappa: list[float], cdnv: list[float]) -> list[dict[str, float]]:
    return [
        {"step": s, "train_accuracy": 1.0, "test_accuracy": a, "train_kappa": k, "test_kappa": k, "train_cdnv": c,
         "test_cdnv": c}
        for s, a, k, c in zip(STEPS.tolist(), test_accuracy, kappa, cdnv, strict=True)
    ]  # fmt: skip


def test_the_order_in_words() -> None:
    said = summarise(rows([0, 0, 0, 0, 1.0], [1, 100, 5, 1, 0.5], [9, 9, 9, 9, 0.01]))["words"][-1]
    assert said == "order: the fall of kappa, then generalisation together with the fall of CDNV"
    apart = summarise(rows([0, 0, 0, 0, 1.0], [1, 100, 5, 1, 0.5], [9, 9, 9, 0.1, 0.01]))["words"][-1]
    assert apart == "order: the fall of kappa, then the fall of CDNV, then generalisation"


def test_what_never_happens_is_said() -> None:
    summary = summarise(rows([0, 0, 0, 0, 0.2], [1, 100, 5, 1, 0.5], [9, 9, 9, 9, 9.0]))
    assert summary["test_99"] is None
    assert summary["train_kappa_half"] == {"step": 10, "after": 1}
    assert summary["words"][-1] == "order: the fall of kappa; never: generalisation, the fall of CDNV"
