"""Weakly collapsed test data in rational arithmetic: which class lands on which vertex, and what that costs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from theory.numeric.finite_distributions import (
    Finite,
    Rows,
    Vector,
    class_means,
    exact,
    least_squared_distance,
    mean_squared_distance,
    random_masses,
    random_points,
    squared_distance,
)


class Hits(NamedTuple):
    """Class c, of share shares[c], lands on vertices[j] with probability rates[c][j]."""

    shares: Vector
    rates: Rows
    vertices: Rows

    @property
    def errors(self) -> Vector:
        """e_c."""
        return tuple(1 - row[c] for c, row in enumerate(self.rates))

    @property
    def impurity(self) -> Fraction:
        """sum_c P(c) (1 - sum_j q_cj^2)."""
        return self.mean(lambda c: 1 - sum((q * q for q in self.rates[c]), Fraction(0)))

    def mean(self, value: Callable[[int], Fraction]) -> Fraction:
        """sum_c P(c) value(c)."""
        return sum((share * value(c) for c, share in enumerate(self.shares)), Fraction(0))

    def nearest_other(self, c: int) -> Fraction:
        """d_c^2."""
        return min(squared_distance(self.vertices[c], v) for k, v in enumerate(self.vertices) if k != c)

    @property
    def samples(self) -> int:
        """The least number of samples in exactly these proportions."""
        return math.lcm(*(mass.denominator for row in self.distribution().joint for mass in row))

    def distribution(self) -> Finite:
        """The vertices as inputs, with the mass of each class on them."""
        joint = zip(
            *([share * q for q in row] for share, row in zip(self.shares, self.rates, strict=True)), strict=True
        )
        return Finite(tuple(joint), self.vertices)


Floor = Callable[[Hits], Fraction]


def variance(hits: Hits) -> Fraction:
    """E||h - E[h|y]||^2 by its definition."""
    found = hits.distribution()
    return mean_squared_distance(found, class_means(found))


def variance_about_vertices(hits: Hits) -> Fraction:
    """E||h - v_y||^2 by its definition."""
    return mean_squared_distance(hits.distribution(), hits.vertices)


def least_distance_floor(hits: Hits) -> Fraction:
    """sum_c P(c) e_c (1 - e_c) D^2."""
    return hits.mean(lambda c: hits.errors[c] * (1 - hits.errors[c])) * least_squared_distance(hits.vertices)


def error_rates_floor(hits: Hits) -> Fraction:
    """sum_c P(c) e_c (1 - e_c) d_c^2."""
    return hits.mean(lambda c: hits.errors[c] * (1 - hits.errors[c]) * hits.nearest_other(c))


def vertex_floor(hits: Hits) -> Fraction:
    """sum_c P(c) e_c d_c^2."""
    return hits.mean(lambda c: hits.errors[c] * hits.nearest_other(c))


def hits_of(shares: list[Any], rates: list[list[Any]], vertices: list[list[Any]]) -> Hits:
    """From integers and decimal strings."""
    return Hits(exact([shares])[0], exact(rates), exact(vertices))


# All errors of a class on one vertex at its least distance; in the last, some classes are never or always wrong, one
# has no mass, and the least distances differ.
ATTAINED = [
    hits_of(["0.5", "0.5"], [["0.8", "0.2"], ["0.5", "0.5"]], [[0], [1]]),
    hits_of(["0.2", "0.3", "0.5"], [["0.7", "0.3", 0], ["0.4", "0.6", 0], [0, 0, 1]], [[0, 0], [1, 0], [4, 4]]),
    hits_of(
        ["0.4", "0.1", "0.5", 0],
        [["0.9", "0.1", 0, 0], [0, 0, 1, 0], [0, "0.3", "0.7", 0], ["0.5", 0, "0.5", 0]],
        [[0], [1], [3], [9]],
    ),
]


def random_hits(count: int) -> list[Hits]:
    """Random cases of K = 2..5, m = 1..3: absent classes, classes never and always wrong, equal vertices."""
    source, found = random.Random(4), []
    for number in range(count):
        K = 2 + number % 4
        rates = [list(random_masses(source, K)) for _ in range(K)]
        if number % 2:  # Mostly right, as on test data.
            rates = [[(q + 4 * (j == c)) / 5 for j, q in enumerate(row)] for c, row in enumerate(rates)]
        vertices = random_points(source, K, 1 + number % 3, distinct=number % 5 > 0)
        found.append(Hits(random_masses(source, K), exact(rates), vertices))
    return found


def samples(hits: Hits) -> tuple[Tensor, Tensor]:
    """Features (n, m) and labels (n,) in exactly these proportions, class by class; float64."""
    found, n = hits.distribution(), hits.samples
    features, labels = [], []
    for point, row in zip(found.features, found.joint, strict=True):
        for c, mass in enumerate(row):
            features += [[float(x) for x in point]] * int(mass * n)
            labels += [c] * int(mass * n)
    return torch.tensor(features, dtype=torch.float64), torch.tensor(labels)


def tensor_of(rows: Rows) -> Tensor:
    """The rows in float64."""
    return torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)
