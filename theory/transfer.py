"""Features collapsed onto super-classes hold nothing else of the fine classes: the ceiling of transfer (F3)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
import z3

from grokcore.collapse_limits import transfer_ceiling
from theory.numeric.finite_distributions import (
    Finite,
    Rows,
    best_accuracy,
    ceiling,
    dot,
    entropy_as_information,
    exact,
    heads,
    linear_accuracy,
    powers_of_information,
    random_masses,
    random_points,
    same_information,
    shares,
    split,
)
from theory.proof import Proof
from theory.statement import Statement

PAPER = '"Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022)'

TRANSFER_CEILING = Statement(
    "transfer_ceiling",
    label="F3",
    claim="Where h is independent of the fine class Y given the super-class S, as at exact collapse h = v_S, every "
    "head, randomised or not, has fine accuracy of at most sum_s P(s) max_y P(y|s), and at h = v_S with distinct "
    "vertices one has it. Where S = S(Y) it is the sum of the super-classes' largest fine shares; the linear head with "
    "w_y = 2 v_s, b_y = -||v_s||^2 for the most frequent fine class y of each s, all other biases low, attains it; for "
    "balanced fine classes it is #super/#fine whatever the sizes of the super-classes (1/5 for a two-way split of "
    "ten); and I(h;Y) = H(S).",
    latex=r"\max_g \Pr[g(h) = Y] = \sum_s P(s)\max_y P(y|s) = \sum_s \max_{y \in s} P(y),\quad I(h;Y) = H(S)",
    assumptions={
        "blind": "h is independent of Y given S: nearly collapsed is not enough",
        "sees_h_alone": "the head's decision is independent of Y given h",
        "shares": "P(y|s) are those of the distribution on which the accuracy is taken",
        "balanced": "for #super/#fine: equally frequent fine classes",
        "distinct": "for what is attained and for H(S): h = v_S at distinct vertices",
        "function": "for the sum of shares, #super/#fine, the linear head and H(S): S is a function of Y",
    },
    source=f"the setting is {PAPER}; ceiling, attainment and information are new",
    kind="upper",
)


Ceiling = Callable[[Finite], Fraction]


def _head_by_head(proof: Proof, share: Any) -> None:
    """One fine class after the other: what a head gets right at one feature, against share times the most."""
    gained, right, rate, slack, p = sympy.symbols("g a G s p", nonnegative=True)
    # Given h it decides for y with probability G_y, independent of Y; P(Y = y|h) = M - s_y.
    most = p + slack
    before, after = gained * share * most - right, (gained + rate) * share * most - (right + rate * p)
    text = "sum_y G_y (M - P(y|h)) grows with each fine class: Pr[right|h] <= M = max_y P(y|h), every number of them"
    proof.nonnegative(text, after - before)
    limit, chance, other = z3.Reals("M G p")
    output = [limit >= 0, chance >= 0, chance <= 1, other >= 0, other <= limit]
    ratio = z3.Q(sympy.Rational(share).p, sympy.Rational(share).q)
    proof.unsatisfiable("no class's part is above it", [*output, chance * other > chance * ratio * limit])
    proof.identity("deciding for the most frequent one loses nothing", (after - before).subs(slack, 0), 0)
    # h independent of Y given S, which h may leave open: P(y|h) = sum_s P(s|h) P(y|s), and P(s|h) averages to P(s).
    weight = sympy.Symbol("w", nonnegative=True)
    text = "each s adds at most P(s|h) max_y P(y|s) to P(y|h), so on average M is at most the ceiling"
    proof.nonnegative(text, weight * most - weight * p)


def _attained(proof: Proof) -> None:
    vv, vw, ww = sympy.symbols("vv vw ww", real=True)
    # Logits at h = v of the rows of s (vertex v) and t (vertex w).
    own, other = 2 * vv - vv, 2 * vw - ww
    proof.identity("at v_s the logit of s leads that of t by ||v_s - v_t||^2", own - other, vv - 2 * vw + ww)
    count, classes, size = sympy.symbols("S F n", positive=True)
    per_super = (size / classes) * (1 / size)
    proof.identity("balanced: P(s) max_y P(y|s) = (n_s/F)(1/n_s) whatever n_s", count * per_super, count / classes)
    proof.identity("two of ten", (count / classes).subs({count: 2, classes: 10}), sympy.Rational(1, 5))


def _information(proof: Proof) -> None:
    """I(h;Y), class by class: every y of s adds P(y) log (P(y)/(P(s) P(y))), h being v_s."""
    y, s, rest = sympy.symbols("p_y P_s r", positive=True)
    proof.identity("each class's term is -P(y) log P(s)", y * sympy.log(y / (s * y)), -y * sympy.log(s))
    # Sum over y in s: one class more of share p_y to those of share r.
    joined = -(rest + y) * sympy.log(s) - (-rest * sympy.log(s) - y * sympy.log(s))
    proof.identity("they add up to -P(s) log P(s) over the classes of s", joined, 0)


@TRANSFER_CEILING.certificate("symbolic", covers="every number of classes, shares, head", relies_on="sympy", whole=True)
def _ceiling_symbolic(proof: Proof) -> None:
    """The head's decisions class by class by induction, the linear head that attains it, and the information."""
    _head_by_head(proof, sympy.Integer(1))
    _attained(proof)
    _information(proof)


def _cases(proof: Proof) -> list[tuple[list[Fraction], list[int], Rows]]:
    source, found = random.Random(5), []
    for number in range(proof.cases(30, 300)):
        fine = 2 + number % 4
        supers = 1 + source.randrange(min(fine, 3))
        of = [*range(supers), *(source.randrange(supers) for _ in range(fine - supers))]
        masses = list(random_masses(source, fine)) if number % 3 else [Fraction(1, fine)] * fine
        found.append((masses, of, random_points(source, supers, 1 + number % 3, distinct=True)))
    return found


def _on_finite(proof: Proof, claimed: Ceiling, information: Callable[[Finite], tuple[Fraction, int]]) -> None:
    for number, (fine, of, vertices) in enumerate(_cases(proof)):
        found = split(fine, of, vertices)
        text = f"case {number}, {len(vertices)} super of {len(fine)} fine"
        proof.require(f"{text}: every head", best_accuracy(found) <= claimed(found))
        known = powers_of_information(list(heads(found).values()))
        proof.require(f"{text}: I(h;Y)", same_information(known, information(found)))
    # Six animals and four vehicles, equally frequent.
    ten = split([Fraction(1, 10)] * 10, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0], exact([[0], [1]]))
    proof.require("ten classes, six and four", best_accuracy(ten) <= claimed(ten))


def _entropy(found: Finite) -> tuple[Fraction, int]:
    return entropy_as_information([sum(row, Fraction(0)) for row in found.joint])


@TRANSFER_CEILING.certificate(
    "sampled", covers="random shares, at most 5 fine in 3 super-classes", relies_on="rational arithmetic"
)
def _ceiling_on_finite(proof: Proof) -> None:
    """Every deterministic head tried, random randomised ones, and information, all without rounding."""
    _on_finite(proof, ceiling, _entropy)
    source = random.Random(6)
    for number, (fine, of, vertices) in enumerate(_cases(proof)):
        found, text = split(fine, of, vertices), f"case {number}"
        best = ceiling(found)
        proof.require(f"{text}: attained", best_accuracy(found) == best == linear_accuracy(found))
        drawn = [random_masses(source, len(fine)) for _ in vertices]
        right = sum((dot(row, rates) for row, rates in zip(found.joint, drawn, strict=True)), Fraction(0))
        proof.require(f"{text}: a randomised head", right <= best)
        # Noise that does not know Y: each vertex becomes two points, in other parts for each super-class.
        parts = [Fraction(source.randint(0, 4), 4) for _ in vertices]
        blurred = Finite(
            tuple(
                tuple(w * x for x in row)
                for part, row in zip(parts, found.joint, strict=True)
                for w in (part, 1 - part)
            ),
            random_points(source, 2 * len(vertices), 1),
        )
        proof.require(f"{text}: noisy features", best_accuracy(blurred) <= best)
        of_shares = sum((max(p for p, s in zip(fine, of, strict=True) if s == j) for j in set(of)), Fraction(0))
        proof.require(f"{text}: sum of the largest shares", of_shares == best)
        if len(set(fine)) == 1:
            proof.require(f"{text}: balanced", best == Fraction(len(vertices), len(fine)))


@TRANSFER_CEILING.certificate(
    "numeric", covers="the same cases; every two-way split of ten", relies_on="grokcore.collapse_limits, float64"
)
def _ceiling_computed(proof: Proof) -> None:
    """grokcore's ceiling and the information in float64; every two-way split of ten balanced classes gives 1/5."""
    for number, (fine, of, vertices) in enumerate(_cases(proof)):
        found = split(fine, of, vertices)
        computed = transfer_ceiling([float(p) for p in fine], of)
        proof.close(f"case {number}", computed, float(best_accuracy(found)), rel=1e-12)
        joint = [[float(p) for p in row] for row in found.joint]
        entropy = -sum(sum(row) * math.log(sum(row)) for row in joint if sum(row))
        proof.close(f"case {number}: I(h;Y) in nats", _mutual_information(joint), entropy, scale=1.0)
    splits = [[0, *(bits >> k & 1 for k in range(9))] for bits in range(1, 2**9)]
    found_of = {transfer_ceiling([1] * 10, of) for of in splits}
    proof.require(f"1/5 for each of the {len(splits)} two-way splits of ten", found_of == {0.2})


def _mutual_information(joint: list[list[float]]) -> float:
    """By its definition, nats."""
    columns = [sum(column) for column in zip(*joint, strict=True)]
    return sum(
        p * math.log(p / (sum(row) * column)) for row in joint for p, column in zip(row, columns, strict=True) if p
    )


def _above(proof: Proof, text: str, found: Fraction, claimed: Fraction) -> None:
    proof.require(f"{text}: {found} > {claimed}", found > claimed)


HALF = Fraction(1, 2)


@TRANSFER_CEILING.without("blind")
def _nearly_collapsed(proof: Proof) -> None:
    """Two fine classes of one super-class a billionth apart: a head tells them apart."""
    found = Finite(exact([["0.5", 0], [0, "0.5"]]), exact([[0], ["0.000000001"]]))
    _above(proof, "accuracy", best_accuracy(found), ceiling(split([HALF, HALF], [0, 0], exact([[0]]))))


@TRANSFER_CEILING.without("sees_h_alone")
def _reads_an_earlier_layer(proof: Proof) -> None:
    """Two fine classes on one vertex and a head that also sees an earlier layer, where they are apart."""
    found = Finite(exact([["0.5", 0], [0, "0.5"]]), exact([[0, 1], [0, 2]]))
    _above(proof, "accuracy", best_accuracy(found), ceiling(split([HALF, HALF], [0, 0], exact([[0]]))))


@TRANSFER_CEILING.without("shares")
def _other_shares(proof: Proof) -> None:
    """Two of four classes are frequent on the test data: the ceiling of balanced training data."""
    of, vertices = [0, 0, 1, 1], exact([[0], [1]])
    test = split([HALF, Fraction(0), HALF, Fraction(0)], of, vertices)
    _above(proof, "accuracy", best_accuracy(test), ceiling(split([HALF / 2] * 4, of, vertices)))


@TRANSFER_CEILING.without("balanced")
def _unbalanced(proof: Proof) -> None:
    """Shares of 0.7, 0.1, 0.1, 0.1 in two super-classes: #super/#fine = 1/2."""
    found = split(list(exact([["0.7", "0.1", "0.1", "0.1"]])[0]), [0, 0, 1, 1], exact([[0], [1]]))
    _above(proof, "accuracy", best_accuracy(found), HALF)


@TRANSFER_CEILING.without("distinct")
def _merged(proof: Proof) -> None:
    """Two super-classes of one fine class each on one vertex: less is reached, and nothing is known."""
    found = split([HALF, HALF], [0, 1], exact([[0], [0]]))
    _above(proof, "ceiling against the best accuracy", ceiling(found), best_accuracy(found))
    known = powers_of_information(list(heads(found).values()))
    proof.require("I(h;Y) = 0 < H(S)", known[0] == 1 < _entropy(found)[0])


@TRANSFER_CEILING.without("function")
def _coin(proof: Proof) -> None:
    """S a coin that does not know Y: I(h;Y) = 0, accuracy 1/2; one class on both ends of a line: no linear head."""
    found = Finite(exact([["0.25", "0.25"], ["0.25", "0.25"]]), exact([[0], [1]]))
    known = powers_of_information(list(heads(found).values()))
    proof.require("I(h;Y) = 0 < H(S)", known[0] == 1 < _entropy(found)[0])
    proof.require("the ceiling", best_accuracy(found) == ceiling(found))
    proof.require("... below #super/#fine and the sum of the largest shares", ceiling(found) < 1)
    outer = Finite(exact([["0.3", 0], [0, "0.4"], ["0.3", 0]]), exact([[0], [1], [2]]))
    proof.require("class 0 on 0 and 2, class 1 on 1: one head is right on all", best_accuracy(outer) == 1)
    # The logit of class 0 less that of class 1 is a h + b.
    a, b = z3.Reals("a b")
    proof.unsatisfiable("... and no linear one", [b > 0, 2 * a + b > 0, a + b < 0])


@TRANSFER_CEILING.sibling
def _chance(proof: Proof) -> None:
    """The ceiling is chance, max_y P(y)."""
    _on_finite(proof, lambda found: max(shares(found)), _entropy)


@TRANSFER_CEILING.sibling
def _one_in_each(proof: Proof) -> None:
    """The ceiling is 1/#super."""
    _on_finite(proof, lambda found: Fraction(1, len(found.joint)), _entropy)


@TRANSFER_CEILING.sibling
def _as_if_balanced(proof: Proof) -> None:
    """The ceiling is #super/#fine whatever the shares."""
    _on_finite(proof, lambda found: Fraction(len(found.joint), len(found.joint[0])), _entropy)


@TRANSFER_CEILING.sibling
def _by_sizes(proof: Proof) -> None:
    """The ceiling is sum_s P(s)/n_s, n_s the number of fine classes of s."""
    _on_finite(
        proof,
        lambda found: sum((sum(row, Fraction(0)) / max(1, sum(map(bool, row))) for row in found.joint), Fraction(0)),
        _entropy,
    )


@TRANSFER_CEILING.sibling
def _best_super_class(proof: Proof) -> None:
    """The ceiling is that of the best super-class alone, max_s P(s) max_y P(y|s)."""
    _on_finite(proof, lambda found: max(max(row) for row in found.joint), _entropy)


@TRANSFER_CEILING.sibling
def _a_little_less(proof: Proof) -> None:
    """0.999 of the ceiling."""
    _head_by_head(proof, sympy.Rational(999, 1000))
    _on_finite(proof, lambda found: Fraction(999, 1000) * ceiling(found), _entropy)


@TRANSFER_CEILING.sibling
def _log_of_the_number(proof: Proof) -> None:
    """I(h;Y) = log #super whatever the shares."""
    _on_finite(proof, ceiling, lambda found: (Fraction(len(found.joint)), 1))
