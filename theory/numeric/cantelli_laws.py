"""Laws that attain Cantelli's bounds, random ones, and how a claimed bound is held against their exact errors."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

from theory.numeric.cantelli import (
    CANTELLI,
    Atom,
    Combine,
    Law,
    Rule,
    Variance,
    bound,
    combination,
    own_trace,
    vector,
)
from theory.numeric.finite_distributions import Vector
from theory.proof import Proof


class Claim(NamedTuple):
    """A bound to be checked: what a pair adds, which variance, how the pairs of a class combine, margins at what."""

    rule: Rule = CANTELLI
    variance: Variance = own_trace
    combine: Combine = sum
    global_mean: bool = False

    def of(self, law: Law, **other: Any) -> Fraction:
        """The bound of this law."""
        centre = law.global_mean if self.global_mean else None
        return bound(law, self.rule, variance=self.variance, combine=self.combine, centre=centre, **other)


def two_points(gap: Any, variance: Any, share: Any, *, other: Any = -1000) -> Law:
    """K = 2, m = 1, rows +-1/2: class 0 at 0 (a tie) or beyond, with this margin and variance; class 1 at `other`."""
    gap, variance, share = Fraction(gap), Fraction(variance), Fraction(share)
    tied = variance / (variance + gap**2)
    atoms = [
        Atom(share * tied, 0, vector(0)),
        Atom(share * (1 - tied), 0, vector(gap + variance / gap)),
        Atom(1 - share, 1, vector(other)),
    ]
    return Law([a for a in atoms if a.mass], [vector(Fraction(1, 2)), vector(Fraction(-1, 2))], vector(0, 0))


def disjoint_errors(tied: list[Fraction], margins: list[Fraction], *, share: Any) -> Law:
    """K = 1 + len(tied), m = K - 1, w_0 = 0, w_k = -e_k: class 0 ties with class k alone, with probability tied[k].

    Its margins are the given ones; every other class never errs.
    """
    n, share = len(tied), Fraction(share)
    beyond = [m / (1 - p) for m, p in zip(margins, tied, strict=True)]
    atoms = [Atom(share * (1 - sum(tied)), 0, tuple(beyond))]
    for k in range(n):
        atoms.append(Atom(share * tied[k], 0, tuple(Fraction(0) if j == k else x for j, x in enumerate(beyond))))
        atoms.append(Atom((1 - share) / n, k + 1, vector(*(-(j == k) for j in range(n)))))
    weight = [vector(*[0] * n), *(vector(*(-(j == k) for j in range(n))) for k in range(n))]
    return Law([a for a in atoms if a.mass], weight, vector(*[0] * (n + 1)))


def around_the_centre(classes: int, radius: Any, tied: Any, *, share: Any) -> Law:
    """K >= 3, m = K - 1, boundaries at `radius` around mean 0: class 0 at their nearest points with probability `tied`.

    Its rows w_0 - w_k are the centred unit vectors, which sum to 0; radius^2 (K-1)/(K-2) is the squared margin.
    """
    n, offset, tied, share = classes - 1, Fraction(radius), Fraction(tied), Fraction(share)
    normals = [tuple(Fraction(j == k) - Fraction(1, n) for j in range(n)) for k in range(n)]
    length = 1 - Fraction(1, n)
    atoms = [Atom(share * (1 - tied), 0, vector(*[0] * n))]
    for k, normal in enumerate(normals):
        atoms.append(Atom(share * tied / n, 0, combination((-offset / length, normal))))
        atoms.append(Atom((1 - share) / n, k + 1, combination((-2 * offset / length, normal))))
    weight = [vector(*[0] * n), *(combination((-1, normal)) for normal in normals)]
    return Law([a for a in atoms if a.mass], weight, (Fraction(0), *[-offset] * n))


@cache
def random_law(seed: int) -> Law:
    """K = 2 to 4, m = 1 to 3, up to four atoms a class, small integers: equal rows, ties and points without variance.

    In two thirds of them the points lie near a multiple of their class's own row, where a head is mostly right.
    """
    draw = random.Random(seed)
    classes, width = draw.randint(2, 4), draw.randint(1, 3)

    def integers(n: int) -> Vector:
        return vector(*(draw.randint(-3, 3) for _ in range(n)))

    weight, pull = [integers(width) for _ in range(classes)], draw.choice((0, 2, 4))
    if draw.random() < 0.2:
        weight[-1] = weight[0]
    drawn = []
    for c in range(classes):
        for _ in range(draw.randint(1, 4)):
            drawn.append((draw.randint(1, 5), c, combination((1, integers(width)), (pull, weight[c]))))
    total = sum(count for count, _, _ in drawn)
    return Law([Atom(Fraction(count, total), c, h) for count, c, h in drawn], weight, integers(classes))


@cache
def two_point_laws() -> list[tuple[str, Law]]:
    """K = 2 at margins and variances of all sizes, the other class right or wrong."""
    sizes = ((1, 1, "9/10"), (3, 3, "1/2"), (1, "1/1000", "9/10"), ("1/1000", 5, "1/3"), (1000, 7, "2/5"))
    found = [(f"two points, m = {m}, V = {v}, P = {share}", two_points(m, v, share)) for m, v, share in sizes]
    return [*found, ("two points, the other class beyond them and wrong", two_points(3, 3, "1/2", other=1000))]


@cache
def disjoint_laws() -> list[tuple[str, Law]]:
    """K = 3 to 6, errors at other places for every other class."""
    found = []
    for n in (2, 3, 5):
        tied = [Fraction(1, 2 + n + k) for k in range(n)]
        margins = [Fraction(1 + k, 3) for k in range(n)]
        found.append((f"K = {n + 1}, disjoint errors", disjoint_errors(tied, margins, share=Fraction(3, 4))))
    return found


@cache
def centred_laws() -> list[tuple[str, Law]]:
    """K = 3 to 6, errors at the boundaries' nearest points."""
    return [
        (f"K = {k}, boundaries all around, P = {tied}", around_the_centre(k, 2, tied, share=Fraction(2, 3)))
        for k in (3, 4, 6)
        for tied in (Fraction(1, 7), Fraction(1))
    ]


Laws = Callable[[], list[tuple[str, Law]]]


def enumerated(proof: Proof, claim: Claim, attained: tuple[Laws, ...] = ()) -> None:
    """Exact errors against a claimed bound: random laws, and those of which the `attained` have it as their error."""
    said = wrong = 0
    for seed in range(proof.cases(60, 600)):
        law = random_law(seed)
        value, error = claim.of(law), law.error
        said, wrong = said + (value < 1), wrong + (error > 0 and value < 1)
        proof.require(f"random law {seed}: {float(error):.4g} <= {float(value):.4g}", error <= value)
    if attained:  # A certificate has to say something; no claim is false for saying little.
        proof.require(f"{said} of these bounds are below 1, {wrong} where there are errors", said > 20 and wrong > 8)
    for laws in (two_point_laws, disjoint_laws, centred_laws):
        for text, law in laws():
            value, error = claim.of(law), law.error
            proof.require(f"{text}: {float(error):.4g} <= {float(value):.4g}", error <= value)
            if laws in attained:
                proof.require(f"{text}: equal, below 1", error == value < 1)


def computed(proof: Proof, claim: Claim, *, directional: bool) -> None:
    """The library's float64 bound against the rational one."""
    laws = [*two_point_laws(), *disjoint_laws(), *centred_laws()]
    laws += [(f"random law {seed}", random_law(seed)) for seed in range(proof.cases(40, 400))]
    for text, law in laws:
        if law.samples <= 50_000:
            proof.close(f"{text}: float64", law.computed(directional=directional), float(claim.of(law)), rel=1e-11)
