"""Weak collapse on test data: features that take vertex values only have the variance of their errors (F2).

Vertices are the points that collapse would put the classes on; as measured, the class means of the training data.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch

from grokcore.accumulate import variance_ratio
from grokcore.collapse_limits import VarianceFloor, variance_floor
from grokcore.geometry import ClassMoments
from theory.algebra.vertex_variance import moments_of_errors, no_violation, only_there, pair_sum
from theory.numeric.finite_distributions import (
    Finite,
    class_means,
    exact,
    largest_squared_distance,
    least_squared_distance,
    mean_squared_distance,
    squared_distance,
)
from theory.numeric.vertex_hits import (
    ATTAINED,
    Floor,
    Hits,
    error_rates_floor,
    hits_of,
    least_distance_floor,
    random_hits,
    samples,
    tensor_of,
    variance,
    variance_about_vertices,
    vertex_floor,
)
from theory.proof import Proof
from theory.statement import Statement

PAPER = '"Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022)'

TEST_VARIANCE_FLOOR = Statement(
    "test_variance_floor",
    label="F2",
    claim="h takes vertex values only, class c, of share P(c), landing on v_j with probability q_cj; e_c = 1 - q_cc, "
    "d_c the distance from v_c to the nearest other vertex, D the least d_c. The variance about the class means is "
    "sum_c P(c) sum_(j<k) q_cj q_ck ||v_j - v_k||^2 >= sum_c P(c) e_c (1-e_c) d_c^2 >= sum_c P(c) e_c (1-e_c) D^2. "
    "Distinct vertices attain the first bound iff each class of positive share with 0 < e_c < 1 has all its errors on "
    "one vertex at distance d_c and each with e_c = 1 on one vertex: it is the best for these vertices and rates, and "
    "nothing larger can stand for e (1-e). Given the confusion, the variance lies between (D^2/2) sum_c P(c) "
    "(1 - sum_j q_cj^2) and the same with the largest distance: equal at a simplex. About the class's own vertex it is "
    "sum_c P(c) sum_j q_cj ||v_j - v_c||^2 >= sum_c P(c) e_c d_c^2, about the hit vertex 0.",
    latex=r"\mathbb E\|h-\mathbb E[h|y]\|^2 = \sum_c P(c)\sum_{j<k} q_{cj}q_{ck}\|v_j-v_k\|^2"
    r" \ge \sum_c P(c)\,e_c(1-e_c)\,d_c^2 \ge D^2\sum_c P(c)\,e_c(1-e_c)",
    assumptions={
        "on_vertices": "h takes vertex values only (weak collapse)",
        "hits": "e_c is the rate at which class c is not on its own vertex; a head may err at another rate",
        "per_class": "e_c is each class's own; the mean error rate is not enough",
        "shares": "P(c) are the shares of the distribution on which the variance is taken",
    },
    source=f"the floor, for a plateau of {PAPER}; the exact value, d_c and the sharpness are new",
    kind="lower",
)

Checks = dict[str, tuple[Callable[[Hits], Fraction], Floor]]
"""By name: what is measured, and the floor that it is held against."""

CHECKS: Checks = {
    "the class means, by D": (variance, least_distance_floor),
    "the class means, by d_c": (variance, error_rates_floor),
    "the class means, by the confusion": (variance, lambda h: h.impurity * least_squared_distance(h.vertices) / 2),
    "the vertices": (variance_about_vertices, vertex_floor),
}


def _right(e: Any) -> Any:
    return e * (1 - e)


def _every(e: Any) -> Any:
    return e


@TEST_VARIANCE_FLOOR.certificate(
    "symbolic", covers="every K, m, vertices, shares and confusion", relies_on="sympy", whole=True
)
def _floor_symbolic(proof: Proof) -> None:
    """The pair sum by induction over vertices; the floors and where they are attained by moments of the errors."""
    pair_sum(proof)
    moments_of_errors(proof, _right, _every)
    only_there(proof)


@TEST_VARIANCE_FLOOR.certificate("rigorous", covers="the floors by e_c, as moments of the errors", relies_on="z3")
def _floor_by_smt(proof: Proof) -> None:
    """No error rate, mean squared distance and variance of the errors violate a floor."""
    no_violation(proof, _right, _every)


def _cases(proof: Proof) -> list[Hits]:
    return [*ATTAINED, *random_hits(proof.cases(25, 400))]


def _on_finite(proof: Proof, checks: Checks) -> None:
    for number, hits in enumerate(_cases(proof)):
        for name, (measured, floor) in checks.items():
            text = f"case {number}, K = {len(hits.shares)}, about {name}"
            proof.require(text, measured(hits) >= floor(hits))


def _attains(hits: Hits, c: int) -> bool:
    wrong = [j for j, q in enumerate(hits.rates[c]) if q and j != c]
    if len(wrong) != 1 or not hits.rates[c][c]:
        return len(wrong) < 2
    return squared_distance(hits.vertices[c], hits.vertices[wrong[0]]) == hits.nearest_other(c)


@TEST_VARIANCE_FLOOR.certificate(
    "sampled", covers="random confusions and vertices, K = 2..5, m = 1, 2, 3", relies_on="rational arithmetic"
)
def _floor_on_finite(proof: Proof) -> None:
    """Both variances by their definitions, without rounding, against every floor; equality where it is claimed."""
    _on_finite(proof, CHECKS)
    reached = {True: 0, False: 0}
    for number, hits in enumerate(_cases(proof)):
        most = hits.impurity * largest_squared_distance(hits.vertices) / 2
        proof.require(f"case {number}: at most as with the largest distance", variance(hits) <= most)
        pairs = sum_of_pairs(hits)
        proof.require(f"case {number}: the pair sum", variance(hits) == pairs)
        K = len(hits.shares)
        even = hits._replace(vertices=exact([[int(j == c) for j in range(K)] for c in range(K)]))
        proof.require(f"case {number} on a simplex, D^2 = 2: exactly", variance(even) == even.impurity)
        if len(set(hits.vertices)) < K:
            continue
        attained = all(_attains(hits, c) for c in range(K) if hits.shares[c])
        reached[attained] += 1
        equal = variance(hits) == error_rates_floor(hits)
        proof.require(f"case {number}: attained iff as claimed ({attained})", attained == equal)
    proof.require("cases that attain it and that do not", min(reached.values()) > 3)
    for number, hits in enumerate(ATTAINED[:2]):
        proof.require(f"attained {number}: by D too", variance(hits) == least_distance_floor(hits))


def sum_of_pairs(hits: Hits) -> Fraction:
    """sum_c P(c) sum_(j<k) q_cj q_ck ||v_j - v_k||^2."""
    K, total = len(hits.shares), Fraction(0)
    for j in range(K):
        for k in range(j):
            square = squared_distance(hits.vertices[j], hits.vertices[k])
            total += square * sum(
                (share * row[j] * row[k] for share, row in zip(hits.shares, hits.rates, strict=True)), Fraction(0)
            )
    return total


def computed(hits: Hits) -> tuple[VarianceFloor, VarianceFloor]:
    """grokcore's floors of the case about the class means, divided by their spread, and about the vertices."""
    rates, vertices = tensor_of(hits.rates), tensor_of(hits.vertices)
    shares = tensor_of((hits.shares,))[0]
    means = ClassMoments(len(vertices), vertices.shape[1]).update(*samples(hits)).means
    own = variance_floor(rates, vertices, shares, spread_of=means)
    return own, variance_floor(rates, vertices, shares, about="vertices")


@TEST_VARIANCE_FLOOR.certificate(
    "numeric", covers="explicit and random confusions", relies_on="grokcore.ClassMoments, grokcore.collapse_limits"
)
def _floor_measured(proof: Proof) -> None:
    """Samples measured as a test set is: paper C's V about either means, less the floor of the confusion, is 0."""
    reached = 0
    for number, hits in enumerate([*ATTAINED, *random_hits(proof.cases(120, 400))]):
        K, m = len(hits.vertices), len(hits.vertices[0])
        if len(set(hits.vertices)) < K or not all(hits.shares) or hits.samples > 3000:
            continue
        reached += 1
        features, labels = samples(hits)
        test = ClassMoments(K, m).update(features, labels)
        train = ClassMoments(K, m).update(tensor_of(hits.vertices), torch.arange(K))
        own, other = computed(hits)
        if own.spread:
            proof.close(f"case {number}: V about the test means", variance_ratio(test, test), own.confusion_ratio)
        proof.close(f"case {number}: V about the train means", variance_ratio(test, train), other.confusion_ratio)
        proof.close(f"case {number}: by d_c", own.error_rates, float(error_rates_floor(hits)))
        proof.close(f"case {number}: by D", own.least_distance, float(least_distance_floor(hits)))
        proof.close(f"case {number}: about the vertices, by d_c", other.error_rates, float(vertex_floor(hits)))
    proof.require("cases reached", reached > 10)


def _below(proof: Proof, text: str, found: Fraction, floor: Fraction) -> None:
    proof.require(f"{text}: {found} < {floor}", found < floor)


@TEST_VARIANCE_FLOOR.without("on_vertices")
def _across_the_boundary(proof: Proof) -> None:
    """K = 2, vertices 0 and 1, every feature within 1/100 of the middle, a quarter of each class on the wrong side."""
    found = Finite(exact([["0.375", "0.125"], ["0.125", "0.375"]]), exact([["0.49"], ["0.51"]]))
    _below(proof, "variance", mean_squared_distance(found, class_means(found)), Fraction(1, 4) * Fraction(3, 4))


@TEST_VARIANCE_FLOOR.without("hits")
def _head_errs(proof: Proof) -> None:
    """K = 2, every feature on its own vertex and a head that errs on half of them."""
    hits = hits_of(["0.5", "0.5"], [[1, 0], [0, 1]], [[0], [1]])
    _below(proof, "variance", variance(hits), Fraction(1, 4) * least_squared_distance(hits.vertices))


def _mean_rate_floor(hits: Hits) -> Fraction:
    rate = hits.mean(lambda c: hits.errors[c])
    return rate * (1 - rate) * least_squared_distance(hits.vertices)


@TEST_VARIANCE_FLOOR.without("per_class")
def _mean_error_rate(proof: Proof) -> None:
    """K = 2, one class never wrong and the other always: error rate 1/2, no variance."""
    hits = hits_of(["0.5", "0.5"], [[1, 0], [1, 0]], [[0], [1]])
    _below(proof, "variance", variance(hits), _mean_rate_floor(hits))


@TEST_VARIANCE_FLOOR.without("shares")
def _equal_shares(proof: Proof) -> None:
    """K = 2, nine samples in ten from the class that is never wrong: equal shares for P(c)."""
    hits = hits_of(["0.9", "0.1"], [[1, 0], ["0.5", "0.5"]], [[0], [1]])
    equal = hits._replace(shares=(Fraction(1, 2), Fraction(1, 2)))
    _below(proof, "variance", variance(hits), least_distance_floor(equal))


def _about_the_hit_vertex(hits: Hits) -> Fraction:
    found = hits.distribution()
    masses = zip(found.joint, found.features, hits.vertices, strict=True)
    return sum((sum(row, Fraction(0)) * squared_distance(h, v) for row, h, v in masses), Fraction(0))


@TEST_VARIANCE_FLOOR.sibling
def _hit_vertex(proof: Proof) -> None:
    """The floor also holds about the hit vertex."""
    _on_finite(proof, {"the hit vertex": (_about_the_hit_vertex, least_distance_floor)})


@TEST_VARIANCE_FLOOR.sibling
def _twice(proof: Proof) -> None:
    """2 e (1-e) for e (1-e)."""
    no_violation(proof, lambda e: 2 * e * (1 - e), _every)
    _on_finite(proof, {"the class means": (variance, lambda hits: 2 * least_distance_floor(hits))})


@TEST_VARIANCE_FLOOR.sibling
def _error_rate_alone(proof: Proof) -> None:
    """e for e (1-e), which is right about the vertices only."""
    no_violation(proof, _every, _every)
    _on_finite(proof, {"the class means": (variance, vertex_floor)})


@TEST_VARIANCE_FLOOR.sibling
def _a_tenth_more(proof: Proof) -> None:
    """e (1-e) (1 + e/10): a little larger."""
    moments_of_errors(proof, lambda e: e * (1 - e) * (1 + e / 10), _every)
    no_violation(proof, lambda e: e * (1 - e) * (1 + e / 10), _every)
    _on_finite(
        proof,
        {"the class means": (variance, lambda h: _scaled(h, lambda e: e * (1 - e) * (1 + e / 10)))},
    )


def _scaled(hits: Hits, rate: Callable[[Fraction], Fraction]) -> Fraction:
    return hits.mean(lambda c: rate(hits.errors[c])) * least_squared_distance(hits.vertices)


@TEST_VARIANCE_FLOOR.sibling
def _largest_distance(proof: Proof) -> None:
    """The largest distance for D."""

    def floor(hits: Hits) -> Fraction:
        return hits.mean(lambda c: hits.errors[c] * (1 - hits.errors[c])) * largest_squared_distance(hits.vertices)

    _on_finite(proof, {"the class means": (variance, floor)})


@TEST_VARIANCE_FLOOR.sibling
def _of_the_mean_rate(proof: Proof) -> None:
    """e (1-e) D^2 with the mean error rate of all classes."""
    _on_finite(proof, {"the class means": (variance, _mean_rate_floor)})


@TEST_VARIANCE_FLOOR.sibling
def _twice_about_the_vertices(proof: Proof) -> None:
    """About the vertices, twice e d^2."""
    no_violation(proof, _right, lambda e: 2 * e)
    _on_finite(proof, {"the vertices": (variance_about_vertices, lambda hits: 2 * vertex_floor(hits))})
