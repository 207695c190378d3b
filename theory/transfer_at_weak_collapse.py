"""Features of few values, whatever decides which one: the ceiling of transfer where test data err (F3').

On test data a collapsed network puts some inputs on a wrong super-class's vertex, and which ones may depend on the
fine class: the ceiling of F3 can then be passed, this one cannot.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
import torch
import z3

from grokcore.collapse_limits import transfer_ceiling
from theory.numeric.finite_distributions import (
    Finite,
    best_accuracy,
    exact,
    heads,
    powers_of_information,
    random_joint,
    random_points,
    shares,
)
from theory.numeric.vertex_hits import tensor_of
from theory.proof import Proof
from theory.statement import Statement

FEW_VALUES = Statement(
    "few_values_ceiling",
    label="F3'",
    claim="Where h takes at most m values v_j, whatever it depends on, every head has fine accuracy of at most "
    "sum_j max_y P(y, h = v_j), which one attains, and this is at most the sum of the m largest fine shares: "
    "min(1, m/#fine) where they are balanced (1/5 for two values and ten classes, test errors included), attained by "
    "features that give the m most frequent classes a value each. I(h;Y) <= log m.",
    latex=r"\max_g \Pr[g(h)=Y] = \sum_j \max_y P(y, h=v_j) \le \sum_{i \le m} P_{(i)}(y),\quad I(h;Y) \le \log m",
    assumptions={
        "few_values": "h takes at most m values on the distribution on which the accuracy is taken",
        "sees_h_alone": "the head's decision is independent of Y given h",
    },
    source="new",
    kind="upper",
)


def _largest(found: Finite, count: int) -> Fraction:
    return sum(sorted(shares(found), reverse=True)[:count], Fraction(0))


def m_largest(found: Finite) -> Fraction:
    """The sum of the m largest fine shares, m the number of different features."""
    return _largest(found, len(set(found.features)))


def _by_duality(proof: Proof, values: Any) -> None:
    """sum_j max_y P(y, j) <= values tau + sum_y (P(y) - tau)^+, tau the m-th largest share, 0 where m > #fine."""
    # Class y is the most frequent at n_y >= 1 values, with P(y, h in them) <= P(y); or at none, and adds nothing.
    tau, share, part, excess, count = z3.Reals("tau P J x n")
    output = [tau >= 0, share >= 0, part >= 0, part <= share, excess >= 0, excess >= share - tau, count >= 1]
    text = "a class that n >= 1 values go to has at most n tau + (P(y) - tau)^+ there"
    proof.unsatisfiable(text, [*output, part > count * tau + excess])
    # The n_y add up to m: at most m tau + sum_y (P(y) - tau)^+.
    positive = [tau >= 0, share >= 0, excess == z3.If(share > tau, share - tau, 0)]
    largest = [*positive, share >= tau, share != tau + excess]
    proof.unsatisfiable("each of the m largest shares is tau + its excess", largest)
    proof.unsatisfiable("... and the others have none", [*positive, share <= tau, excess != 0])
    t, m, X = sympy.symbols("tau m X", nonnegative=True)
    proof.identity("m tau + the excesses: the sum of the m largest", m * t + X, values * t + X)


def _small_by_smt(proof: Proof, fewer: int) -> None:
    """Every head on m values and F classes with P(0) >= P(1) >= ...: nothing above the `m - fewer` largest."""
    for m, F in ((1, 3), (2, 3), (3, 3), (2, 4)):
        joint = [[z3.Real(f"J{y}{j}") for j in range(m)] for y in range(F)]
        fine = [z3.Sum(row) for row in joint]
        output = [entry >= 0 for row in joint for entry in row]
        output += [z3.Sum(fine) == 1, *(fine[y] >= fine[y + 1] for y in range(F - 1))]
        above = [
            z3.Sum([joint[y][j] for j, y in enumerate(head)]) > z3.Sum([*fine[: m - fewer], z3.RealVal(0)])
            for head in itertools.product(range(F), repeat=m)
        ]
        proof.unsatisfiable(f"m = {m}, {F} fine classes: every deterministic head", [*output, z3.Or(above)])


def _information(proof: Proof) -> None:
    """I(h;Y) <= H(h) <= log m: each by log x <= x - 1."""
    p, ratio, m = sympy.symbols("p x m", positive=True)
    # H(h) - I(h;Y) = H(h|Y) = sum P(y) sum_j -q log q, no term negative; log m - H(h) = -sum p_j log(1/(m p_j)).
    u = sympy.Symbol("u", positive=True)
    proof.nonnegative("-q log q = q log(1 + u) >= 0 for q = 1/(1+u): its slope in u", sympy.diff(sympy.log(1 + u), u))
    proof.identity("... from 0", sympy.log(1 + u).subs(u, 0), 0)
    slope = sympy.diff(ratio - 1 - sympy.log(ratio), ratio)
    proof.nonnegative("x - 1 - log x rises above x = 1", slope.subs(ratio, 1 + u))
    proof.nonnegative("... and falls below", -slope.subs(ratio, 1 / (1 + u)))
    proof.identity("... from 0", (ratio - 1 - sympy.log(ratio)).subs(ratio, 1), 0)
    # So log m - H(h) >= -sum p_j (1/(m p_j) - 1) over m values, = 1 - m/m.
    one = -p * (1 / (m * p) - 1)
    proof.identity("the sum of the m terms p_j - 1/m is 0", m * (one - p) + 1, 0)


@FEW_VALUES.certificate("symbolic", covers="every m, shares, dependence and head", relies_on="sympy, z3", whole=True)
def _few_symbolic(proof: Proof) -> None:
    """The m-th largest share as a linear program's multiplier, class by class; information by log x <= x - 1."""
    gained, right, rate, slack, part = sympy.symbols("g a G s p", nonnegative=True)
    # At the value v_j: P(y, v_j) = M - s_y, the head decides for y with probability G_y.
    most = part + slack
    growth = (gained + rate) * most - (right + rate * part) - (gained * most - right)
    proof.nonnegative("at each value no head beats max_y P(y, v_j): class by class, sum_y G_y = 1", growth)
    proof.identity("... and deciding for that class reaches it", growth.subs(slack, 0), 0)
    _by_duality(proof, sympy.Symbol("m", nonnegative=True))
    _information(proof)
    m, F = sympy.symbols("m F", positive=True)
    proof.identity("balanced, m <= F: m shares of 1/F", m * (1 / F), m / F)


Ceiling = Callable[[Finite], Fraction]


def _cases(count: int) -> list[Finite]:
    source, found = random.Random(7), []
    for number in range(count):
        fine, values = 2 + number % 4, 1 + number % 3
        # Several inputs may share a value; every second time the fine classes are balanced.
        joint = random_joint(source, values + number % 2, fine)
        if number % 2:
            sums = [sum(column, Fraction(0)) for column in zip(*joint, strict=True)]
            if all(sums):
                joint = tuple(tuple(p / (fine * s) for p, s in zip(row, sums, strict=True)) for row in joint)
        points = random_points(source, values, 1, distinct=True)
        features = [points[i] if i < values else points[source.randrange(values)] for i in range(len(joint))]
        found.append(Finite(joint, tuple(features)))
    return found


# Test errors that know the fine class: y = 2 of super-class {0, 1, 2} is always on the other one's vertex {3}.
ERRING = Finite(exact([["0.25", "0.25", 0, 0], [0, 0, "0.4", "0.1"]]), exact([[0], [1]]))


def of_the_super_classes(found: Finite) -> Fraction:
    """F3's ceiling for ERRING, as if every input were on its own super-class's vertex."""
    fine = shares(found)
    return max(fine[:-1]) + fine[-1]


def _on_finite(proof: Proof, claimed: Ceiling) -> None:
    for number, found in enumerate(_cases(proof.cases(30, 150))):
        text = f"case {number}, {len(set(found.features))} values, {len(found.joint[0])} classes"
        proof.require(f"{text}: every head", best_accuracy(found) <= claimed(found))
    # The m most frequent classes have a value each.
    best = Finite(exact([["0.4", 0, "0.1", "0.1"], [0, "0.4", 0, 0]]), exact([[0], [1]]))
    proof.require("the two most frequent classes apart", best_accuracy(best) <= claimed(best))


@FEW_VALUES.certificate("rigorous", covers="m <= 3 values, at most 4 fine classes", relies_on="z3")
def _few_by_smt(proof: Proof) -> None:
    """Every deterministic head on every joint distribution of small sizes, as linear inequalities."""
    _small_by_smt(proof, 0)


@FEW_VALUES.certificate(
    "sampled", covers="random distributions, m <= 3, at most 5 fine classes", relies_on="rational arithmetic"
)
def _few_on_finite(proof: Proof) -> None:
    """Every deterministic head tried on features that depend on Y in any way, without rounding; attained; log m."""
    _on_finite(proof, m_largest)
    for number, found in enumerate([*_cases(proof.cases(30, 150)), ERRING]):
        seen = list(heads(found).values())
        exactly = sum((max(row) for row in seen), Fraction(0))
        proof.require(f"case {number}: sum_j max_y P(y, v_j) is attained", best_accuracy(found) == exactly)
        power, scale = powers_of_information(seen)
        proof.require(f"case {number}: I(h;Y) <= log m", power <= Fraction(len(set(found.features))) ** scale)
    best = Finite(exact([["0.4", 0, "0.1", "0.1"], [0, "0.4", 0, 0]]), exact([[0], [1]]))
    proof.require("attained: 0.4 + 0.4", best_accuracy(best) == m_largest(best) == Fraction(4, 5))


@FEW_VALUES.certificate("numeric", covers="the same cases", relies_on="grokcore.collapse_limits, float64")
def _few_computed(proof: Proof) -> None:
    """grokcore's ceiling from the rates at which fine classes land on the values."""
    for number, found in enumerate([*_cases(proof.cases(30, 150)), ERRING]):
        rows = tensor_of(tuple(heads(found).values())).T
        computed = transfer_ceiling(rows.sum(dim=1), rows)
        proof.close(f"case {number}", computed, float(best_accuracy(found)))
        largest = float(torch.topk(rows.sum(dim=1), min(rows.shape)).values.sum())
        proof.at_most(f"case {number}: at most the m largest shares", computed, largest)


@FEW_VALUES.without("few_values")
def _one_value_more(proof: Proof) -> None:
    """Three classes, two vertices and a third point that only one class reaches."""
    found = Finite(exact([["0.4", 0, 0], [0, "0.3", 0], [0, 0, "0.3"]]), exact([[0], [1], ["1.001"]]))
    claimed = _largest(found, 2)
    proof.require(f"accuracy {best_accuracy(found)} > {claimed}", best_accuracy(found) > claimed)


@FEW_VALUES.without("sees_h_alone")
def _reads_an_earlier_layer(proof: Proof) -> None:
    """Two balanced classes on one vertex and a head that also sees an earlier layer, where they are apart."""
    blind = Finite(exact([["0.5", 0], [0, "0.5"]]), exact([[0], [0]]))
    seeing = blind._replace(features=exact([[0, 1], [0, 2]]))
    proof.require("accuracy 1 > 1/2", best_accuracy(seeing) == 1 > m_largest(blind) == Fraction(1, 2))


@FEW_VALUES.sibling
def _still_the_super_classes(proof: Proof) -> None:
    """F3's ceiling of the super-classes holds with test errors too."""
    found = ERRING
    proof.require("errors that know the fine class", best_accuracy(found) <= of_the_super_classes(found))


@FEW_VALUES.sibling
def _one_less(proof: Proof) -> None:
    """m - 1 of the largest shares are enough."""
    _by_duality(proof, sympy.Symbol("m", nonnegative=True) - 1)
    _small_by_smt(proof, 1)
    _on_finite(proof, lambda found: _largest(found, len(set(found.features)) - 1))


@FEW_VALUES.sibling
def _as_if_balanced(proof: Proof) -> None:
    """m/#fine whatever the shares."""
    _on_finite(proof, lambda found: Fraction(len(set(found.features)), len(found.joint[0])))
