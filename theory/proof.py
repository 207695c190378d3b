"""The steps a proof is made of: each is checked where it stands, and keeps what it found.

Symbolic steps go through sympy, enclosures through ball arithmetic (flint), inequalities without a
derivation through an SMT solver (z3). Comparisons of float64 numbers keep their worst relative residual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np
import sympy
import torch
import z3


@dataclass(frozen=True)
class Step:
    """One checked step.

    Attributes:
        text: what was checked.
        holds: True, False where it was found false, None where the method could not decide.
        residual: the relative residual of a comparison of two numbers.
    """

    text: str
    holds: bool | None
    residual: float | None = None


class Proof:
    """Collects checked steps.

    Attributes:
        steps: the steps so far, in order.
        thorough: whether to take more cases; see :meth:`cases`.
    """

    def __init__(self, *, thorough: bool = False) -> None:
        self.thorough = thorough
        self.steps: list[Step] = []

    def cases(self, quick: int, thorough: int) -> int:
        """How many cases to take: `quick`, or `thorough` in the thorough profile."""
        return thorough if self.thorough else quick

    def require(self, text: str, condition: bool) -> None:
        """A step that holds where `condition` is true."""
        self.steps.append(Step(text, bool(condition)))

    # Symbolic steps.

    def identity(self, text: str, left: Any, right: Any) -> None:
        """left = right as rational expressions in their symbols (scalars or matrices), for all their values.

        False where the difference is clearly not zero at some values; undecided where neither is found, as
        for expressions that are not rational and do not cancel.
        """
        difference = (
            sympy.Matrix(left) - sympy.Matrix(right) if hasattr(left, "shape") else sympy.Matrix([left - right])
        )
        if not len(difference):
            raise ValueError(f"{text}: there is nothing to compare")
        left_over = [entry for entry in difference if not _vanishes(entry)]
        self.steps.append(Step(text, not left_over or (False if any(map(_differs, left_over)) else None)))

    def nonnegative(self, text: str, expression: Any, *, strictly: bool = False) -> None:
        """expression >= 0 (> 0) for all positive values of its symbols: no coefficient is negative.

        The expression is rational; numerator and denominator are expanded after cancellation, and each must
        have coefficients of one sign. Substitute so that the range is the positive orthant (K = 2 + t; for q
        in (0, 1) put q = 1/(1 + r)); an end of the range, where a symbol is 0, is a step of its own. With
        `strictly` the expression must not vanish identically: then it is positive on the open orthant.
        Symbols must be declared positive, so that the orthant is the range they stand for, or nonnegative:
        then the face where those are 0 belongs to the range, and what must not vanish must not do so there.
        """
        expression = sympy.sympify(expression)
        free = sorted((s for s in expression.free_symbols if not s.is_nonnegative), key=str)
        if free:
            raise ValueError(f"{text}: not declared positive or nonnegative: {', '.join(map(str, free))}")
        numerator, denominator = sympy.fraction(sympy.cancel(sympy.together(expression)))
        signs = []
        for part in (numerator, denominator):
            coefficients = _coefficients(part)
            if not all(c.is_finite for c in coefficients):
                raise ValueError(f"{text}: {part} is not finite")
            signs.append(1 if all(c >= 0 for c in coefficients) else -1 if all(c <= 0 for c in coefficients) else None)
        face = {s: 0 for s in expression.free_symbols if not s.is_positive}
        bounded = denominator.subs(face) != 0
        if _vanishes(numerator):
            self.require(text, not strictly)
        else:
            # Mixed signs decide nothing; opposite ones say that the expression is negative.
            decided = None not in signs and bounded and not (strictly and numerator.subs(face) == 0)
            self.steps.append(Step(text, signs[0] == signs[1] if decided else None))

    # Rigorous steps.

    def enclosed(
        self,
        text: str,
        function: Callable[..., Any],
        boxes: Sequence[tuple[float, float]],
        *,
        above: float = 0.0,
        depth: int = 40,
    ) -> None:
        """function > above on a whole box, by ball arithmetic with adaptive bisection.

        `function` takes and returns `flint.arb` balls, one argument for each (low, high) of `boxes`. The step
        fails where the middle of a piece is at or below `above`, and is undecided after `depth` bisections a side.
        """
        pending = [(tuple(boxes), 0)]
        while pending:
            box, level = pending.pop()
            value = function(*(_ball(low, high) for low, high in box))
            if not isinstance(value, flint.arb):  # math.exp takes a ball too, and returns the middle's float.
                raise TypeError(f"{text}: the function returns a {type(value).__name__}, not a ball")
            if bool(value > above):
                continue
            below = bool(function(*(flint.arb((low + high) / 2) for low, high in box)) <= above)
            if below or level == depth * len(box):
                self.steps.append(Step(text, False if below else None))
                return
            widest = max(range(len(box)), key=lambda i: box[i][1] - box[i][0])
            low, high = box[widest]
            middle = (low + high) / 2
            for half in ((low, middle), (middle, high)):
                pending.append(((*box[:widest], half, *box[widest + 1 :]), level + 1))
        self.require(text, True)

    def root(self, text: str, function: Callable[[Any], Any], printed: str) -> None:
        """A zero of a continuous `function` (balls to balls) lies within half a unit of the last printed digit.

        By a change of sign, on a ball where the function is finite; false where the function has no zero there,
        undecided where it may have one without changing sign.
        """
        if not re.fullmatch(r"-?\d+(\.\d+)?", printed):
            raise ValueError(f"{text}: {printed!r} is no plain decimal number")
        half = flint.arb("0.5") * flint.arb(10) ** -(len(printed.partition(".")[2]))
        ends = flint.arb(printed) - half, flint.arb(printed) + half
        changes = bool(function(ends[0]) * function(ends[1]) < 0)
        whole = function(ends[0].union(ends[1]))
        none = bool(whole > 0) or bool(whole < 0)
        self.steps.append(Step(text, True if changes and whole.is_finite() else False if none else None))

    def unsatisfiable(self, text: str, constraints: Iterable[Any], *, timeout_s: float = 30.0) -> None:
        """No real numbers satisfy the constraints (z3), so the negated claim, the last, has no counterexample.

        Undecided after `timeout_s`, and where the constraints before the last contradict each other already.
        """
        solver, (*premises, negated) = z3.Solver(), constraints
        solver.set("timeout", int(timeout_s * 1000))
        solver.add(*premises)
        vacuous = solver.check() == z3.unsat
        solver.add(negated)
        answer = solver.check()
        self.steps.append(Step(text, None if vacuous or answer == z3.unknown else answer == z3.unsat))

    # Comparisons of float64 numbers.

    def close(self, text: str, found: Any, expected: Any, *, rel: float = 1e-10, scale: float | None = None) -> None:
        """found = expected to a relative `rel`, of the largest expected magnitude (or of `scale`).

        Where that is 0 the difference itself is held against `rel`. A single expected number is compared with
        every entry of `found`; other shapes must agree.
        """
        a, b = _array(found), _array(expected)
        size = float(np.abs(b).max() if scale is None else scale)
        if not 0 <= size < np.inf:
            error, size = np.inf, 1.0  # Against infinity, NaN or a negative scale nothing is close.
        else:
            error = float(np.abs(a - b).max()) if a.shape == b.shape or b.ndim == 0 else np.inf
        residual = error / size if size else error
        self.steps.append(Step(text, bool(residual <= rel), residual))

    def at_most(self, text: str, smaller: Any, larger: Any, *, slack: float = 1e-12) -> None:
        """smaller <= larger elementwise, up to a relative `slack` for rounding."""
        a, b = np.broadcast_arrays(_array(smaller), _array(larger))
        if not a.size:
            raise ValueError(f"{text}: there is nothing to compare")
        # An infinite entry must not widen its own slack.
        rounding = np.where(np.isfinite(a) & np.isfinite(b), slack * np.maximum(np.abs(a), np.abs(b)), 0.0)
        self.require(text, bool(np.all(a <= b + rounding)))

    def differ(self, text: str, found: float, claimed: float, *, by: float = 1e-3) -> None:
        """For counterexamples: found is off what is claimed by more than a relative `by`."""
        gap = abs(float(found) - float(claimed))
        fails = gap > by * max(abs(float(found)), abs(float(claimed)))
        self.require(f"{text}: {float(found):.6g} against {float(claimed):.6g}", fails)

    def exceeds(self, text: str, found: float, bound: float, *, by: float = 1e-3) -> None:
        """For counterexamples: found is above the claimed upper bound by more than a relative `by`."""
        fails = float(found) - float(bound) > by * max(abs(float(found)), abs(float(bound)))
        self.require(f"{text}: {float(found):.6g} > {float(bound):.6g}", fails)


def _vanishes(expression: Any) -> bool:
    expanded = sympy.expand(expression)
    return bool(expanded == 0 or sympy.cancel(sympy.together(expanded)) == 0)


def _differs(expression: Any) -> bool:
    """Whether the expression is clearly not 0 at some numbers that its symbols may stand for."""
    symbols = sorted(expression.free_symbols, key=str)
    for shift in range(3):
        values = {}
        for i, symbol in enumerate(symbols):
            size = sympy.prime(3 + shift + i)
            value = size if symbol.is_integer else sympy.Rational(size, sympy.prime(5 + shift + 2 * i))
            values[symbol] = -value if symbol.is_negative else value
        found = sympy.N(expression.subs(values), 30)
        if found.is_number and found.is_finite and abs(found) > 1e-15:
            return True
    return False


def _coefficients(polynomial: Any) -> list[Any]:
    symbols = sorted(polynomial.free_symbols, key=str)
    return list(sympy.Poly(polynomial, *symbols).coeffs()) if symbols else [polynomial]


def _ball(low: float, high: float) -> Any:
    return flint.arb(low).union(flint.arb(high))


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if np.iscomplexobj(value):
        raise TypeError("complex numbers are compared by their real and imaginary parts")
    return np.asarray(value, dtype=np.float64)
