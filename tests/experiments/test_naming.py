"""Names of runs: short for round numbers, and never the same for two settings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.naming import variant
from grokcore import Intervention


@dataclass(frozen=True)
class Setting:
    rate: float = 7.0
    augment: bool = False


def rate_named(value: float) -> list[str]:
    return variant(Setting(rate=value), Setting())


@pytest.mark.parametrize(
    ("value", "name"),
    [(0.25, "0.25"), (1e-5, "1e-5"), (1e-1, "0.1"), (-2.5e-4, "-2.5e-4"), (1 / 3, "0.3333333333333333"), (1e6, "1e6")],
)
def test_numbers(value: float, name: str) -> None:
    assert rate_named(value) == [f"rate{name}"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_two_numbers_have_two_names(first: float, second: float) -> None:
    assert (rate_named(first) == rate_named(second)) == (first == second)


@given(st.floats(1e-6, 1e6), st.integers(1, 4))
def test_neighbours_have_two_names(value: float, ulps: int) -> None:
    other = value * (1 + ulps * 2**-52)
    assert (rate_named(value) == rate_named(other)) == (value == other)


def test_switches_and_the_papers_lambda() -> None:
    assert variant(Setting(augment=True), Setting()) == ["augment"]
    assert variant(Setting(), Setting(augment=True)) == ["noaugment"]
    for weight, name in ((-1e-4, "lambda1e-4"), (0.5, "lambda-0.5"), (0.0, "lambda0")):
        assert variant(Intervention(cdnv_weight=weight), Intervention(cdnv_weight=-1e-3)) == [name]
