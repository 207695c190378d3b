"""I(Z;A|G) of finite distributions with features in R, enclosed by ball arithmetic, and once more in float64.

A distribution is a list of atoms: values of (x, y, s) with their probability and their feature h. Z = h + noise * scale
* N(0,1). The balls come from the log ratio of two mixtures, integrated over each atom's noise with its tails bounded;
the float64 number from differences of differential entropies on a grid.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import flint
import numpy as np

Number = Fraction | int

_ERROR = 2.0**-42
"""What the integrals stop at; they enclose their own error."""

_REACH = 10
"""Standard deviations that are integrated; the bound of what lies beyond is about 1e-21."""


class Atom(NamedTuple):
    """One value of (x, y, s), its probability and its feature; `scale` is its noise's, 1 as in the statements."""

    share: Number
    feature: Number
    x: int
    y: int
    s: int = 0
    scale: Number = 1


def ball(value: Number | str) -> Any:
    """The ball of a rational number."""
    exact = Fraction(value)
    return flint.arb(flint.fmpq(exact.numerator, exact.denominator))


def classes(atoms: Sequence[Atom], names: str) -> dict[tuple[int, ...], list[Atom]]:
    """The atoms by their values of the variables `names`, such as "y" or "xy"; no names put all in one class."""
    found: defaultdict[tuple[int, ...], list[Atom]] = defaultdict(list)
    for atom in atoms:
        if atom.share:
            found[tuple(getattr(atom, name) for name in names)].append(atom)
    return dict(found)


def information(atoms: Sequence[Atom], of: str, given: str, noise: Number | str) -> Any:
    """I(Z; of | given) in nats, as a ball. `of` and `given` name variables; "" gives no condition."""
    total, outer, size = flint.arb(0), classes(atoms, given), Fraction(noise)
    for key, members in classes(atoms, "".join(dict.fromkeys(given + of))).items():
        group = outer[key[: len(given)]]
        for atom in members:
            place = (Fraction(atom.feature), Fraction(atom.scale))
            logs = [_mean_log(place, _mixture(own), size, flint.ctx.prec) for own in (members, group)]
            total += ball(atom.share) * (logs[0] - logs[1])
    return total


Place = tuple[Fraction, Fraction]
"""A feature with the scale of its noise."""

Mixture = tuple[tuple[Place, Fraction], ...]


def _mixture(members: Sequence[Atom]) -> Mixture:
    """The weights of the different places: what p(z|members) depends on."""
    weights: defaultdict[Place, Fraction] = defaultdict(Fraction)
    whole = sum((Fraction(atom.share) for atom in members), Fraction(0))
    for atom in members:
        weights[Fraction(atom.feature), Fraction(atom.scale)] += atom.share / whole
    return tuple(sorted(weights.items()))


@cache
def _mean_log(place: Place, mixture: Mixture, noise: Fraction, precision: int) -> Any:
    """E log p(z|mixture)/p(z|place), z from one of the mixture's own places."""
    if len(mixture) == 1:
        return flint.arb(0)
    terms = _terms(place, mixture, ball(noise))
    reach, root = flint.acb(_REACH), (2 * flint.acb.pi()).sqrt()

    def integrand(z: Any, analytic: bool) -> Any:
        ratio = sum((factor * (z * z / 2 - (slope * z + shift) ** 2 / 2).exp() for factor, slope, shift in terms))
        return (-z * z / 2).exp() / root * ratio.log(analytic=analytic)

    inside = flint.acb.integral(integrand, -reach, reach, abs_tol=_ERROR).real
    # The ratio is at least the place's own weight, and at most the sum of the factors times e^(z^2/2).
    weight = ball(dict(mixture)[place])
    largest = sum((factor.real for factor, _, _ in terms), flint.arb(1))
    edge = flint.arb(_REACH)
    outside = (edge / flint.arb(2).sqrt()).erfc()
    density = (-edge * edge / 2).exp() / (2 * flint.arb.pi()).sqrt()
    tails = (largest.log() - weight.log()) * outside + edge * density + outside / 2
    return inside + flint.arb(0, float(tails.upper()) * 1.01)


def _terms(place: Place, mixture: Mixture, noise: Any) -> list[tuple[Any, Any, Any]]:
    """p(z|mixture)/p(z|place) = sum of factor exp(n^2/2 - (slope n + shift)^2/2), n the place's standardised noise."""
    found = []
    for (feature, scale), weight in mixture:
        slope, shift = ball(place[1] / scale), ball((place[0] - feature) / scale) / noise
        found.append((flint.acb(ball(weight) * slope), flint.acb(slope), flint.acb(shift)))
    return found


class Bounds(NamedTuple):
    """Bounds of I(Z;X|given), nats, as balls: (1/2) E log det, (1/2) log det of the mean, and the trace."""

    log_det: Any
    pooled: Any
    trace: Any


def variances(atoms: Sequence[Atom], given: str) -> list[tuple[Fraction, Fraction]]:
    """The probability of each class and the variance of its features, exactly."""
    found = []
    for members in classes(atoms, given).values():
        share = sum((Fraction(a.share) for a in members), Fraction(0))
        mean = sum((Fraction(a.share) * a.feature for a in members), Fraction(0)) / share
        found.append((share, sum((a.share * (a.feature - mean) ** 2 for a in members), Fraction(0)) / share))
    return found


def bounds(atoms: Sequence[Atom], given: str, noise: Number | str) -> Bounds:
    """The three bounds at noise of scale 1."""
    found, square = variances(atoms, given), Fraction(noise) ** 2
    within = sum((share * value for share, value in found), Fraction(0))
    log_det = sum((ball(share) * (1 + ball(value / square)).log() / 2 for share, value in found), flint.arb(0))
    return Bounds(log_det, (1 + ball(within / square)).log() / 2, ball(within / square) / 2)


def information_by_entropies(atoms: Sequence[Atom], of: str, given: str, noise: float, points: int = 40_001) -> float:
    """h(Z|given) - h(Z|given, of) by the trapezoidal rule, nats: ends are 0."""
    joint = "".join(dict.fromkeys(given + of))
    return _entropy(atoms, given, noise, points) - _entropy(atoms, joint, noise, points)


def _entropy(atoms: Sequence[Atom], names: str, noise: float, points: int) -> float:
    total = 0.0
    for members in classes(atoms, names).values():
        share = np.array([float(a.share) for a in members])
        centre, size = (
            np.array([float(a.feature) for a in members]),
            noise * np.array([float(a.scale) for a in members]),
        )
        z = np.linspace((centre - 12 * size).min(), (centre + 12 * size).max(), points)
        each = share / share.sum() / (size * math.sqrt(2 * math.pi))
        density = (each * np.exp(-(((z[:, None] - centre) / size) ** 2) / 2)).sum(axis=1)
        logs = np.log(density, out=np.zeros_like(density), where=density > 0)
        total -= share.sum() * float((density * logs).sum() * (z[1] - z[0]))
    return total
