"""Distributions that the information bounds are tried on, and the comparison of balls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from theory.numeric.information_quadrature import Atom
from theory.numeric.information_sampled import Component
from theory.proof import Proof, Step

HALF = Fraction(1, 2)
SIGN = [Atom(HALF, 1, 0, 0), Atom(HALF, -1, 1, 0)]
"""One class, h = +-1."""


def cases(random: int) -> list[tuple[str, list[Atom]]]:
    """Distributions in one dimension: four by hand, then random rationals."""
    wide = [Atom(Fraction(9, 20), 2, 0, 0), Atom(Fraction(9, 20), -1, 1, 0), Atom(Fraction(1, 10), 5, 2, 1)]
    rare = [Atom(Fraction(1, 50), 3, 0, 0), Atom(Fraction(24, 50), 0, 1, 0), Atom(HALF, 1, 2, 1), Atom(0, 0, 3, 1)]
    three = [Atom(Fraction(1, 6), h, i, 0) for i, h in enumerate((-1, 0, 3))]
    found = [
        ("h = +-1", SIGN),
        ("one class of two collapsed", wide),
        ("an outlier", rare),
        ("two classes of three", [*three, *(Atom(Fraction(1, 6), Fraction(h, 2), 3 + h, 1) for h in range(3))]),
    ]
    rng = np.random.default_rng(7)
    for i in range(random):
        shares = rng.integers(1, 9, 5)
        whole = int(shares.sum())
        features = rng.integers(-6, 7, 5)
        atoms = [
            Atom(Fraction(int(p), whole), Fraction(int(h), 2), x, int(x > 2))
            for x, (p, h) in enumerate(zip(shares, features, strict=True))
        ]
        found.append((f"random {i}", atoms))
    return found


def below(proof: Proof, text: str, smaller: Any, larger: Any) -> None:
    """smaller < larger for balls: true or false only where they do not overlap."""
    decided = True if bool(smaller < larger) else False if bool(smaller > larger) else None
    proof.steps.append(Step(text, decided))


Links = list[tuple[str, Any]]
"""Named numbers, each below the next."""
Chain = Callable[[list[Atom], Fraction], Links]
"""From a distribution and s to its links."""


def in_order(proof: Proof, named: Sequence[tuple[str, list[Atom]]], chain: Chain, noises: Sequence[Fraction]) -> None:
    """Each distribution's links at each noise, pair by pair."""
    for name, atoms in named:
        for noise in noises:
            for (left, smaller), (right, larger) in pairwise(chain(atoms, noise)):
                below(proof, f"{name}, s = {noise}: {left} < {right}", smaller, larger)


def normal_mixture(seed: int, m: int, classes_: int, parts: int) -> list[Component]:
    """A mixture of `parts` random normals in each class, their means spread along a direction of R^m."""
    rng = np.random.default_rng(seed)
    shares, spread = rng.dirichlet(np.full(classes_ * parts, 5.0)), rng.standard_normal((classes_, m))
    found = []
    for i, share in enumerate(shares):
        part, y = divmod(i, classes_)
        root, along = rng.standard_normal((m, m)) / math.sqrt(2 * m), spread[y] / np.linalg.norm(spread[y])
        found.append(Component(float(share), 6 * part * along + rng.standard_normal(m), root @ root.T, y))
    return found


def families(random: int) -> list[tuple[str, list[Atom]]]:
    """Distributions with super-classes S(Y): fine classes of points, fine collapse, noisy labels, random rationals."""
    pairs = [(-3, 0), (-2, 0), (0, 1), (1, 1), (4, 2)]
    spread = [Atom(Fraction(1, 5), h, x, y, int(y > 1)) for x, (h, y) in enumerate(pairs)]
    collapsed = [Atom(Fraction(y + 1, 10), 2 * y, y, y, y % 2) for y in range(4)]
    noisy = [Atom(Fraction(1 + 8 * (x == y), 20), 3 * x, x, y, 0) for x in (0, 1) for y in (0, 1)]
    found = [("fine classes of two", spread), ("fine collapse", collapsed), ("noisy labels", noisy)]
    rng = np.random.default_rng(11)
    for i in range(random):
        shares = rng.integers(1, 9, 6)
        features = rng.integers(-6, 7, 6)
        whole = int(shares.sum())
        parts = zip(shares, features, strict=True)
        atoms = [
            Atom(Fraction(int(p), whole), Fraction(int(h), 2), x, x // 2, x // 4) for x, (p, h) in enumerate(parts)
        ]
        found.append((f"random {i}", atoms))
    return found
