"""The machinery itself: each kind of step holds where it should, and can fail."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import sympy
import torch
import z3

from theory.algebra.class_symmetry import CENTRING, IDENTITY, K, OneClass, diagonal, outer, softmax_hessian
from theory.proof import Proof
from theory.statement import Certificate, Statement, status_of
from theory.status import run

x, y = sympy.symbols("x y", positive=True)


def last(proof: Proof) -> bool | None:
    return proof.steps[-1].holds


class TestSymbolic:
    def test_identity_of_rational_functions(self) -> None:
        proof = Proof()
        proof.identity("holds", 1 / x + 1 / y, (x + y) / (x * y))
        assert last(proof) is True
        proof.identity("fails", 1 / x + 1 / y, (x + y) / (x * y) + sympy.Rational(1, 10**12))
        assert last(proof) is False

    def test_identity_of_matrices_looks_at_every_entry(self) -> None:
        proof = Proof()
        a = sympy.Matrix([[x, 1], [0, y]])
        proof.identity("holds", a * a, sympy.Matrix([[x**2, x + y], [0, y**2]]))
        assert last(proof) is True
        proof.identity("fails", a * a, sympy.Matrix([[x**2, x + y], [0, y]]))
        assert last(proof) is False

    def test_nonnegative_by_coefficients(self) -> None:
        proof = Proof()
        proof.nonnegative("holds", (x**2 + 3 * x * y) / (1 + y))
        assert last(proof) is True
        proof.nonnegative("negative throughout", -(x**2) / (1 + y))
        assert last(proof) is False

    def test_nonnegative_does_not_decide_mixed_signs(self) -> None:
        proof = Proof()
        proof.nonnegative("true, but not by coefficients", (x - 1) ** 2)
        assert last(proof) is None

    def test_zero_is_nonnegative_and_not_positive(self) -> None:
        proof = Proof()
        proof.nonnegative("zero", x - x)
        assert last(proof) is True
        proof.nonnegative("zero, strictly", x - x, strictly=True)
        assert last(proof) is False


class TestRigorous:
    def test_enclosed_needs_bisection(self) -> None:
        proof = Proof()
        proof.enclosed("x^2 - x + 0.26 > 0", lambda b: b * b - b + flint.arb("0.26"), [(0.0, 1.0)])
        assert last(proof) is True

    def test_enclosed_finds_a_point_below(self) -> None:
        proof = Proof()
        proof.enclosed("x^2 - x + 0.24 > 0", lambda b: b * b - b + flint.arb("0.24"), [(0.0, 1.0)])
        assert last(proof) is False

    def test_enclosed_does_not_decide_a_zero(self) -> None:
        proof = Proof()
        proof.enclosed("x^2 > 0 up to 0", lambda b: b * b, [(-0.3, 1.0)], depth=10)
        assert last(proof) is not True

    def test_enclosed_covers_two_dimensions(self) -> None:
        proof = Proof()
        proof.enclosed("e^x > x y on a square", lambda a, b: a.exp() - a * b, [(0.0, 2.0), (0.0, 2.0)])
        assert last(proof) is True
        proof.enclosed("... but not with y to 3", lambda a, b: a.exp() - a * b, [(0.0, 2.0), (0.0, 3.0)])
        assert last(proof) is False

    def test_root_to_the_last_printed_digit(self) -> None:
        proof = Proof()
        proof.root("sqrt 2", lambda b: b * b - 2, "1.41421356237")
        assert last(proof) is True
        proof.root("sqrt 2, last digit off", lambda b: b * b - 2, "1.41421356238")
        assert last(proof) is False

    def test_unsatisfiable(self) -> None:
        a, b = z3.Reals("a b")
        proof = Proof()
        proof.unsatisfiable("2ab <= a^2 + b^2", [2 * a * b > a * a + b * b])
        assert last(proof) is True
        proof.unsatisfiable("2ab < a^2 + b^2", [2 * a * b >= a * a + b * b])
        assert last(proof) is False


class TestNumbers:
    def test_close_keeps_the_worst_residual(self) -> None:
        proof = Proof()
        proof.close("two numbers", [1.0, 2.0 + 2e-11], [1.0, 2.0])
        assert proof.steps[-1].holds
        assert proof.steps[-1].residual == pytest.approx(1e-11, rel=1e-3)

    @pytest.mark.parametrize("found", [math.nan, math.inf, 1.0 + 1e-9, [1.0, 1.0, 1.0]])
    def test_close_fails(self, found: object) -> None:
        proof = Proof()
        proof.close("not close", found, 1.0 if not isinstance(found, list) else [1.0, 1.0])
        assert last(proof) is False

    def test_close_takes_tensors_with_gradients(self) -> None:
        proof = Proof()
        proof.close("tensor", torch.ones(2, requires_grad=True) * 3, np.array([3.0, 3.0]))
        assert last(proof) is True

    def test_at_most_is_elementwise(self) -> None:
        proof = Proof()
        proof.at_most("holds", [1.0, 2.0], [1.0, 3.0])
        assert last(proof) is True
        proof.at_most("fails in one place", [1.0, 3.1], [9.0, 3.0])
        assert last(proof) is False

    def test_nan_is_at_most_nothing(self) -> None:
        proof = Proof()
        proof.at_most("nan", math.nan, 1.0)
        assert last(proof) is False

    def test_a_counterexample_must_be_clear(self) -> None:
        proof = Proof()
        proof.differ("clear", 1.0, 1.1)
        assert last(proof) is True
        proof.differ("rounding", 1.0, 1.0 + 1e-12)
        assert last(proof) is False
        proof.exceeds("clear", 1.1, 1.0)
        assert last(proof) is True
        proof.exceeds("below", 0.9, 1.0)
        assert last(proof) is False


class TestOneClassAlgebra:
    """Matrices for symbolic K against the same matrices written out."""

    @pytest.mark.parametrize("classes", [2, 3, 5])
    def test_products_sums_and_traces(self, classes: int) -> None:
        a = OneClass(x, sympy.Matrix([[1, y], [2, x]]))
        b = diagonal((y, x)) + outer((1, 2), (x, y))
        written = [m.explicit(classes) for m in (a, b, a @ b, a + b)]
        assert sympy.simplify(written[2] - written[0] * written[1]) == sympy.zeros(classes)
        assert sympy.simplify(written[3] - written[0] - written[1]) == sympy.zeros(classes)
        assert sympy.simplify((a @ b).trace().subs(K, classes) - written[2].trace()) == 0

    def test_centring_is_a_projection(self) -> None:
        assert sympy.simplify((CENTRING @ CENTRING).corner - CENTRING.corner) == sympy.zeros(2)
        assert (IDENTITY @ CENTRING).corner == CENTRING.corner

    def test_a_hessian_of_unnormalised_probabilities_does_not_sum_to_zero(self) -> None:
        rows = softmax_hessian(x, y) @ outer((0, 1), (0, 1))
        assert sympy.simplify(rows.corner) != sympy.zeros(2)


def made(status: str = "proved", *, holds: bool = True, whole: bool = True) -> Statement:
    """A statement about nothing, with one certificate in each of two channels."""
    statement = Statement(
        "made_up",
        label="Z1",
        claim="x = x",
        latex="x = x",
        assumptions={"real": "x is a number"},
        source="nobody",
        kind="equality",
        status=status,  # type: ignore[arg-type]
    )

    @statement.certificate("symbolic", covers="x", relies_on="sympy", whole=whole)
    def _symbolic(proof: Proof) -> None:
        """x is x."""
        proof.identity("x", x, x)

    @statement.certificate("numeric", covers="1", relies_on="float64")
    def _numeric(proof: Proof) -> None:
        """1 is 1."""
        proof.close("1", 1.0 if holds else 2.0, 1.0)

    @statement.without("real")
    def _nan(proof: Proof) -> None:
        """Not a number."""
        proof.require("nan differs from itself", math.nan != float("nan"))

    @statement.sibling
    def _wrong(proof: Proof) -> None:
        """x = 2x."""
        proof.identity("x = 2x", x, 2 * x)

    return statement


class TestStatement:
    def test_agrees_with_its_record(self) -> None:
        assert run(made()).contradictions == []

    def test_a_failing_certificate_contradicts(self) -> None:
        assert "fails at" in run(made(holds=False)).contradictions[0]

    def test_evidence_for_a_part_does_not_prove_the_whole(self) -> None:
        assert "carry checked" in run(made(whole=False)).contradictions[0]

    def test_an_open_statement_may_fail_its_certificates(self) -> None:
        assert run(made("open", holds=False)).contradictions == []

    def test_a_sibling_that_is_not_refuted_contradicts(self) -> None:
        statement = made()

        @statement.sibling
        def _true(proof: Proof) -> None:
            """x = x, again."""
            proof.identity("x", x, x)

        assert "not refuted" in run(statement).contradictions[0]

    def test_an_undecided_step_refutes_nothing(self) -> None:
        statement = made()

        @statement.sibling
        def _undecided(proof: Proof) -> None:
            """A claim the method cannot decide."""
            proof.nonnegative("mixed signs", (x - 1) ** 2)

        assert not statement.siblings()[-1].refuted

    def test_an_exception_is_a_step_that_decides_nothing(self) -> None:
        statement = made()

        @statement.certificate("numeric", covers="2", relies_on="nothing")
        def _broken(proof: Proof) -> None:
            """Divides by zero."""
            proof.close("never reached", 1 / 0, 1.0)

        broken = statement.certify()[-1]
        assert not broken.holds
        assert broken.steps[-1].text == "raised ZeroDivisionError: division by zero"

    def test_no_steps_are_no_evidence(self) -> None:
        assert not Certificate("empty", (), 0.0, "symbolic", "all", True, "sympy").holds
        assert status_of([]) is None

    def test_an_assumption_nobody_made_cannot_be_dropped(self) -> None:
        with pytest.raises(ValueError, match="does not assume"):
            made().without("complex")

    def test_one_channel_alone_proves_nothing(self) -> None:
        assert status_of(made().certify()[:1]) == "checked"

    def test_the_thorough_profile_takes_more_cases(self) -> None:
        assert Proof().cases(3, 20) == 3
        assert Proof(thorough=True).cases(3, 20) == 20
