"""Events read off curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grokcore.training.milestones import Passing, half_fall, last_height, passes, steepest_fall, summarise, value_at

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


def test_a_dip_is_no_fall_that_lasts() -> None:
    """The maximum stands first; after the dip the curve comes back to at least half of it, or to less."""
    back, low = np.array([100, 1, 50, 9, 1.0]), np.array([100, 1, 49, 9, 1.0])
    assert half_fall(STEPS, back) == half_fall(STEPS, low, lasting=True) == Passing(1, 0)
    assert half_fall(STEPS, back, lasting=True) == Passing(100, 10)
    assert (last_height(back), last_height(low)) == (2, 0)


@given(st.lists(st.floats(0.05, 0.99), min_size=4, max_size=4))
@example([0.75] * 4)  # the half of a fall to a third is done above half the maximum
def test_on_falling_curves_lasting_changes_nothing(factors: list[float]) -> None:
    values = np.cumprod([1.0, *factors])
    assert half_fall(STEPS, values, lasting=True) == half_fall(STEPS, values)
    assert (values[last_height(values) + 1 :] < 0.5).all()


def test_the_steepest_fall() -> None:
    steps = np.array([0, 10, 20, 40, 80, 160])
    assert steepest_fall(steps, np.array([1, 1, 0.9, 0.3, 0.01, 0.005])) == Passing(80, 40)
    assert steepest_fall(steps, np.array([1, 1, 1, 1, 1, 1.0])) is None
    assert steepest_fall(steps, np.array([1, 1, 1, 0.0, 1, 1.0])) is None
    assert steepest_fall(steps, np.array([1, math.nan, 1, 1, 0.1, 0.1])) is None
    # Per log step, not per row: 100 to 101 is noise, and 400 the first step a fifth later.
    close = np.array([1, 100, 101, 400, 1600])
    falling = np.array([1, 1, 0.45, 0.4, 0.005])
    assert steepest_fall(close, falling) == Passing(1600, 400)
    assert steepest_fall(close, falling, ratio=1.005) == Passing(101, 100)
    # A dip before the fall that lasts does not count.
    assert steepest_fall(steps, np.array([1, 1e-9, 1, 1, 0.5, 0.1])) == Passing(160, 80)


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
