"""Steps of a proof that must not hold, or not be called false: each of these once did, or could have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flint
import pytest
import sympy
import torch
import z3

from theory.proof import Proof

x, y = sympy.symbols("x y", positive=True)
z = sympy.Symbol("z")
edge = sympy.Symbol("e", nonnegative=True)
a = z3.Real("a")


def found(check: Callable[[Proof], None]) -> bool | None:
    proof = Proof()
    check(proof)
    (step,) = proof.steps
    return step.holds


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (sympy.sin(z) ** 2 + sympy.cos(z) ** 2, 1),
        (sympy.sqrt(5 + 2 * sympy.sqrt(6)), sympy.sqrt(2) + sympy.sqrt(3)),
        (sympy.Function("f")(x), x),
        (sympy.zoo, sympy.zoo),
    ],
)
def test_what_cancellation_cannot_decide_is_not_called_false(left: Any, right: Any) -> None:
    assert found(lambda proof: proof.identity("undecided", left, right)) is None


@pytest.mark.parametrize("right", [sympy.log(x) + sympy.Rational(1, 10**9), 2 * sympy.log(x), sympy.sqrt(x)])
def test_an_identity_that_is_not_rational_fails_where_numbers_show_it(right: Any) -> None:
    assert found(lambda proof: proof.identity("false", sympy.log(x), right)) is False


@pytest.mark.parametrize("symbol", [z, sympy.Symbol("r", real=True), sympy.Symbol("s", negative=True)])
def test_a_sign_needs_symbols_that_are_declared(symbol: sympy.Symbol) -> None:
    with pytest.raises(ValueError, match="not declared positive"):
        Proof().nonnegative("its own sign", symbol)


def test_the_edge_of_a_range_with_zero_belongs_to_it() -> None:
    assert found(lambda p: p.nonnegative("1 + e > 0", 1 + edge, strictly=True)) is True
    assert found(lambda p: p.nonnegative("e > 0", edge, strictly=True)) is None
    assert found(lambda p: p.nonnegative("e >= 0", edge)) is True
    assert found(lambda p: p.nonnegative("1/e", 1 / edge)) is None


@pytest.mark.parametrize("expression", [sympy.oo, sympy.nan, sympy.zoo * x, x + sympy.Function("f")(2)])
def test_the_sign_of_what_is_not_finite(expression: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Proof().nonnegative("no number", expression)


def test_a_function_that_leaves_the_balls_encloses_nothing() -> None:
    with pytest.raises(TypeError, match="not a ball"):
        Proof().enclosed("the middle's exponential", lambda b: math.exp(b) - 1.5, [(0.0, 1.0)])


def test_a_box_of_nan_is_undecided() -> None:
    assert found(lambda p: p.enclosed("nan", lambda b: b * b + 1, [(math.nan, 1.0)])) is None


def test_a_root_needs_a_change_of_sign_of_finite_numbers() -> None:
    assert found(lambda p: p.root("a pole", lambda b: 1 / (b - 1), "1.00")) is None
    assert found(lambda p: p.root("a double zero", lambda b: (b - 1) * (b - 1), "1.00")) is None
    assert found(lambda p: p.root("zero itself", lambda b: b, "0.00")) is True
    assert found(lambda p: p.root("none here", lambda b: b + flint.arb(1), "-0.9")) is False


def test_the_last_printed_digit_of_an_exponent_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="plain decimal"):
        Proof().root("off by 1e-5", lambda b: b - flint.arb("0.00151"), "1.5e-3")


def test_premises_that_contradict_each_other_prove_nothing() -> None:
    assert found(lambda p: p.unsatisfiable("vacuous", [a > 1, a < 0, a > 5])) is None
    assert found(lambda p: p.unsatisfiable("not so", [a > 1, a < 0])) is True


def test_a_solver_out_of_time_is_undecided() -> None:
    b, c, n = z3.Reals("b c n")
    hard = [b > 1, c > 1, b**n + c**n == (b + c) ** (n / 3), n > 7]
    assert found(lambda p: p.unsatisfiable("hard", hard, timeout_s=0.05)) is None


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan])
def test_nothing_is_close_by_a_scale_that_is_none(scale: float) -> None:
    assert found(lambda p: p.close("5 = 1", 5.0, 1.0, scale=scale)) is False


def test_close_to_zero_is_absolute() -> None:
    assert found(lambda p: p.close("small", 1e-11, 0.0)) is True
    assert found(lambda p: p.close("not small", 1e-9, 0.0)) is False


def test_close_does_not_spread_what_was_found() -> None:
    assert found(lambda p: p.close("one for two", 1.0, [1.0, 1.0])) is False
    assert found(lambda p: p.close("a row for a column", [[1.0], [1.0]], [1.0, 1.0])) is False


def test_an_imaginary_part_is_not_dropped() -> None:
    with pytest.raises(TypeError, match="complex"):
        Proof().close("1 + 5i = 1", torch.tensor([1 + 5j]), [1.0])


def test_infinity_does_not_widen_its_own_slack() -> None:
    assert found(lambda p: p.at_most("inf <= 1", math.inf, 1.0)) is False
    assert found(lambda p: p.at_most("1 <= inf", 1.0, math.inf)) is True
    assert found(lambda p: p.at_most("rounding", 1.0 + 1e-15, 1.0)) is True


@pytest.mark.parametrize(
    "check",
    [
        lambda p: p.at_most("empty", [], 1.0),
        lambda p: p.close("empty", [], []),
        lambda p: p.identity("empty", sympy.zeros(0, 0), sympy.zeros(0, 0)),
        lambda p: p.unsatisfiable("empty", []),
    ],
)
def test_nothing_to_compare_is_an_error(check: Callable[[Proof], None]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(Proof())
