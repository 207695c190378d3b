"""Finite laws in rational arithmetic: the exact share of errors of a linear head, and bounds of it by moments.

Nothing is rounded: probabilities, class means, variances and squared margins are fractions, so an inequality between
them is decided, at ties too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any, NamedTuple

import torch

from grokcore.bounds import margin_error_bound
from grokcore.geometry import ClassMoments
from theory.numeric.finite_distributions import Vector, dot


def vector(*entries: Any) -> Vector:
    """The exact vector of these numbers."""
    return tuple(map(Fraction, entries))


def combination(*terms: tuple[Any, Vector]) -> Vector:
    """The sum of factor * vector over the terms."""
    return tuple(sum((Fraction(f) * v[i] for f, v in terms), Fraction(0)) for i in range(len(terms[0][1])))


class Atom(NamedTuple):
    """A point h of a class with its probability."""

    mass: Fraction
    label: int
    point: Vector


class Rule(NamedTuple):
    """What a pair of classes adds, from its squared margin m^2 and a variance V: fractions or symbols of any kind."""

    ahead: Callable[[Any, Any], Any] = lambda square, variance: variance / (variance + square)
    """m > 0; the variance is positive."""
    behind: Callable[[Any, Any], Any] = lambda square, variance: 1
    """m < 0."""
    tie: Any = 1
    """m = 0."""
    still: Any = 0
    """m > 0 and V = 0, or the two rows equal and b_c > b_k."""


CANTELLI = Rule()


class Pair(NamedTuple):
    """Class c against class k.

    Attributes:
        gap: <w_c - w_k, mu> + b_c - b_k.
        length: ||w_c - w_k||^2.
        trace: V_c.
        along: the variance along w_c - w_k.
        own_row: the variance along w_c.
        pooled: the mean of V_c over the samples.
        width: m.
    """

    gap: Fraction
    length: Fraction
    trace: Fraction
    along: Fraction
    own_row: Fraction
    pooled: Fraction
    width: int

    @property
    def square(self) -> Fraction:
        """m_ck^2; the rows are not equal."""
        return self.gap**2 / self.length

    def term(self, rule: Rule, variance: Fraction) -> Any:
        """The pair's term with every convention at the edges."""
        if self.gap == 0:
            return rule.tie
        if self.length == 0:
            return rule.still if self.gap > 0 else 1
        if self.gap < 0:
            return rule.behind(self.square, variance)
        return rule.ahead(self.square, variance) if variance else rule.still


class Law:
    """A law of (h, Y) with finitely many values, and a linear head on it."""

    def __init__(self, atoms: list[Atom], weight: list[Vector], bias: Vector) -> None:
        if sum(a.mass for a in atoms) != 1 or any(a.mass <= 0 for a in atoms):
            raise ValueError("the probabilities must be positive and sum to 1")
        self.atoms, self.weight, self.bias = atoms, weight, bias

    @cached_property
    def shares(self) -> dict[int, Fraction]:
        """P(c) of the classes that occur."""
        labels = sorted({a.label for a in self.atoms})
        return {c: sum((a.mass for a in self.atoms if a.label == c), Fraction(0)) for c in labels}

    @cached_property
    def means(self) -> dict[int, Vector]:
        """E[h | c]."""
        return {
            c: combination(*((a.mass / share, a.point) for a in self.atoms if a.label == c))
            for c, share in self.shares.items()
        }

    def variance(self, c: int, direction: Vector | None = None) -> Fraction:
        """E[||h - mu_c||^2 | c], or E[<direction, h - mu_c>^2 | c]."""
        total = Fraction(0)
        for atom in self.atoms:
            if atom.label == c:
                off = combination((1, atom.point), (-1, self.means[c]))
                total += atom.mass * (dot(off, off) if direction is None else dot(off, direction) ** 2)
        return total / self.shares[c]

    def _along(self, c: int, direction: Vector) -> Fraction:
        length = dot(direction, direction)
        return self.variance(c, direction) / length if length else Fraction(0)

    @cached_property
    def error(self) -> Fraction:
        """The probability that another class's logit is as large as the true class's."""
        wrong = Fraction(0)
        for mass, label, point in self.atoms:
            logits = [dot(w, point) + b for w, b in zip(self.weight, self.bias, strict=True)]
            wrong += mass * any(z >= logits[label] for k, z in enumerate(logits) if k != label)
        return wrong

    def pairs(self, *, centre: Vector | None = None, bias: bool = True) -> Iterator[tuple[int, list[Pair]]]:
        """Each class with its pairs; `centre` in place of every class mean, `bias` False for a margin without it."""
        pooled = sum((share * self.variance(c) for c, share in self.shares.items()), Fraction(0))
        for c in self.shares:
            found, mean, trace = [], self.means[c] if centre is None else centre, self.variance(c)
            own_row = self._along(c, self.weight[c])
            for k, row in enumerate(self.weight):
                if k != c:
                    apart = combination((1, self.weight[c]), (-1, row))
                    length = dot(apart, apart)
                    gap = dot(apart, mean) + (self.bias[c] - self.bias[k] if bias else 0)
                    found.append(Pair(gap, length, trace, self._along(c, apart), own_row, pooled, len(mean)))
            yield c, found

    @cached_property
    def own_pairs(self) -> list[tuple[int, list[Pair]]]:
        """Each class with its pairs."""
        return list(self.pairs())

    @cached_property
    def global_mean(self) -> Vector:
        """E h."""
        return combination(*((share, self.means[c]) for c, share in self.shares.items()))

    @property
    def samples(self) -> int:
        """The least number of equally weighted samples that are this law."""
        return lcm(*(a.mass.denominator for a in self.atoms))

    def computed(self, *, directional: bool = False) -> float:
        """grokcore's float64 bound from these samples, in an order of no meaning."""
        counts = torch.tensor([int(a.mass * self.samples) for a in self.atoms])
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(0))
        points = torch.tensor([[float(x) for x in a.point] for a in self.atoms], dtype=torch.float64)
        labels = torch.tensor([a.label for a in self.atoms])
        weight = torch.tensor([[float(x) for x in row] for row in self.weight], dtype=torch.float64)
        moments = ClassMoments(*weight.shape, scatter="per_class" if directional else "pooled")
        moments.update(points.repeat_interleave(counts, dim=0)[order], labels.repeat_interleave(counts)[order])
        bias = torch.tensor([float(b) for b in self.bias], dtype=torch.float64)
        return margin_error_bound(moments, weight, bias, directional=directional)


Combine = Callable[[list[Any]], Any]
Variance = Callable[[list[Pair], Pair], Fraction]


def own_trace(pairs: list[Pair], pair: Pair) -> Fraction:
    """V_c."""
    return pair.trace


def own_direction(pairs: list[Pair], pair: Pair) -> Fraction:
    """The variance along w_c - w_k."""
    return pair.along


def bound(
    law: Law,
    rule: Rule = CANTELLI,
    *,
    variance: Variance = own_trace,
    combine: Combine = sum,
    centre: Vector | None = None,
    bias: bool = True,
    shares: dict[int, Fraction] | None = None,
) -> Fraction:
    """sum_c P(c) combine_k term(m_ck, variance), clipped at 1."""
    total = Fraction(0)
    plain = centre is None and bias
    for c, pairs in law.own_pairs if plain else law.pairs(centre=centre, bias=bias):
        terms = [pair.term(rule, variance(pairs, pair)) for pair in pairs]
        total += (law.shares if shares is None else shares)[c] * combine(terms)
    return min(total, Fraction(1))
