"""Finite distributions in rational arithmetic: probabilities, means, distances and information without rounding."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

Vector = tuple[Fraction, ...]
Rows = tuple[Vector, ...]


class Finite(NamedTuple):
    """Inputs x_i with joint[i][c] = P(x_i, y = c) and features[i] = h(x_i)."""

    joint: Rows
    features: Rows


def exact(rows: Sequence[Sequence[int | str | Fraction]]) -> Rows:
    """The rows as fractions; decimals come as strings, such as "0.3"."""
    return tuple(tuple(Fraction(value) for value in row) for row in rows)


def shares(found: Finite) -> Vector:
    """P(y = c)."""
    return tuple(sum(column, Fraction(0)) for column in zip(*found.joint, strict=True))


def dot(a: Vector, b: Vector) -> Fraction:
    """<a, b>."""
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def squared_distance(a: Vector, b: Vector) -> Fraction:
    """||a - b||^2."""
    return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))


def least_squared_distance(vertices: Rows) -> Fraction:
    """D^2, over the pairs of different indices."""
    return min(squared_distance(a, b) for i, a in enumerate(vertices) for b in vertices[:i])


def largest_squared_distance(vertices: Rows) -> Fraction:
    """The square of the diameter."""
    return max(squared_distance(a, b) for a in vertices for b in vertices)


def nearest(point: Vector, centres: Sequence[Vector | None]) -> list[int]:
    """Every index whose centre is as near as any; a centre that is None is none."""
    apart = {k: squared_distance(point, centre) for k, centre in enumerate(centres) if centre is not None}
    return [k for k, distance in apart.items() if distance == min(apart.values())]


def bayes(found: Finite, last: bool = False) -> list[int]:
    """A Bayes classifier, one class for each x: the first of the most probable classes, or the last."""
    decided = []
    for row in found.joint:
        best = [c for c, value in enumerate(row) if value == max(row)]
        decided.append(best[-1 if last else 0])
    return decided


def accuracy(found: Finite, decided: Sequence[int]) -> Fraction:
    """P(decided = y)."""
    return sum((row[c] for row, c in zip(found.joint, decided, strict=True)), Fraction(0))


def nearest_worst(found: Finite, centres: Sequence[Vector | None], wanted: Sequence[int] | None = None) -> list[int]:
    """The nearest-centre rule with every tie broken for the least accuracy, or away from `wanted`."""
    decided = []
    for i, (row, point) in enumerate(zip(found.joint, found.features, strict=True)):
        tied = nearest(point, centres)
        decided.append(min(tied, key=lambda k: row[k] if wanted is None else Fraction(k == wanted[i])))
    return decided


def collapsed_on(joint: Rows, vertices: Rows, decided: Sequence[int]) -> Finite:
    """h(x_i) = the vertex of decided[i]."""
    return Finite(joint, tuple(vertices[c] for c in decided))


def excess_risk(found: Finite, centres: Sequence[Vector | None]) -> Fraction:
    """Of the nearest-centre rule over the Bayes risk, ties broken for the worst."""
    return accuracy(found, bayes(found)) - accuracy(found, nearest_worst(found, centres))


def class_means(found: Finite) -> list[Vector | None]:
    """E[h | y = c]; None for a class without mass."""
    means: list[Vector | None] = []
    for c, share in enumerate(shares(found)):
        columns = zip(*found.features, strict=True)
        sums = [
            sum((row[c] * x for row, x in zip(found.joint, column, strict=True)), Fraction(0)) for column in columns
        ]
        means.append(tuple(value / share for value in sums) if share else None)
    return means


def mean_squared_distance(found: Finite, centres: Sequence[Vector | None]) -> Fraction:
    """E ||h - centre_y||^2."""
    total = Fraction(0)
    for row, point in zip(found.joint, found.features, strict=True):
        total += sum((w * squared_distance(point, z) for w, z in zip(row, centres, strict=True) if z), Fraction(0))
    return total


def heads(found: Finite) -> dict[Vector, Vector]:
    """P(h = value, y = c) by the value of h: all that a head can see."""
    seen: dict[Vector, Vector] = {}
    for row, point in zip(found.joint, found.features, strict=True):
        before = seen.get(point, (Fraction(0),) * len(row))
        seen[point] = tuple(a + b for a, b in zip(before, row, strict=True))
    return seen


def split(fine: Sequence[Fraction], super_of_fine: Sequence[int], vertices: Rows) -> Finite:
    """Exact collapse: the inputs are the super-classes s, h = vertices[s]."""
    rows = [
        tuple(share if s == of else Fraction(0) for share, of in zip(fine, super_of_fine, strict=True))
        for s in range(len(vertices))
    ]
    return Finite(tuple(rows), vertices)


def best_accuracy(found: Finite) -> Fraction:
    """The most that any deterministic head of h gets right, by trying every one."""
    seen = list(heads(found).values())
    tried = itertools.product(range(len(seen[0])), repeat=len(seen))
    return max(sum((row[c] for row, c in zip(seen, head, strict=True)), Fraction(0)) for head in tried)


def ceiling(found: Finite) -> Fraction:
    """F3: sum_s P(s) max_y P(y|s) = sum_s max_y P(y, s), the inputs being the super-classes."""
    return sum((max(row) for row in found.joint), Fraction(0))


def linear_accuracy(found: Finite) -> Fraction:
    """Of the head w_y = 2 v_s, b_y = -||v_s||^2 for the most frequent y of each s with mass; a tie is an error."""
    pairs = zip(found.joint, found.features, strict=True)
    decides = [(row.index(max(row)), point) for row, point in pairs if any(row)]
    right = Fraction(0)
    for row, h in zip(found.joint, found.features, strict=True):
        logits = [(2 * dot(v, h) - dot(v, v), y) for y, v in decides]
        best = [y for value, y in logits if value == max(logits)[0]]
        right += row[best[0]] if len(best) == 1 else 0
    return right


def powers_of_information(joint: Sequence[Vector]) -> tuple[Fraction, int]:
    """(z, n) with I = log(z)/n nats, of a joint distribution as rows: entropies compare without a logarithm."""
    columns = [sum(column, Fraction(0)) for column in zip(*joint, strict=True)]
    scale = math.lcm(*(value.denominator for row in joint for value in row))
    product = Fraction(1)
    for row in joint:
        for value, column in zip(row, columns, strict=True):
            if value:
                product *= (value / (sum(row) * column)) ** int(value * scale)
    return product, scale


def same_information(first: tuple[Fraction, int], second: tuple[Fraction, int]) -> bool:
    """Whether log(z)/n is the same number of nats, exactly."""
    return first[0] ** second[1] == second[0] ** first[1]


def entropy_as_information(masses: Sequence[Fraction]) -> tuple[Fraction, int]:
    """H = I(S; S), as :func:`powers_of_information`."""
    diagonal = [tuple(mass if i == j else Fraction(0) for j in range(len(masses))) for i, mass in enumerate(masses)]
    return powers_of_information(diagonal)


def random_masses(source: random.Random, size: int, *, largest: int = 5) -> Vector:
    """Random fractions that sum to 1; some are 0, seldom all but one."""
    weights = [source.randint(0, largest) for _ in range(size)]
    weights[source.randrange(size)] += 1
    return tuple(Fraction(weight, sum(weights)) for weight in weights)


def random_points(source: random.Random, size: int, width: int, *, distinct: bool = False) -> Rows:
    """Integer points of a small grid, so that ties and equal points occur; (size, width)."""
    reach = 2 if width > 1 else size
    while True:
        drawn = exact([[source.randint(-reach, reach) for _ in range(width)] for _ in range(size)])
        if not distinct or len(set(drawn)) == size:
            return drawn


def random_joint(source: random.Random, inputs: int, classes: int) -> Rows:
    """A random joint distribution of x and y."""
    flat = random_masses(source, inputs * classes)
    return tuple(flat[i * classes : (i + 1) * classes] for i in range(inputs))
