"""Heads with chosen logits, and the two sides of B8 and its sharper forms on explicit heads. Float64.

The formulas are written out as the statements have them, without the library's :mod:`grokcore.stability`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from theory.formulas import softmax_impurity
from theory.numeric.configurations import (
    Head,
    collapsed,
    generator_of,
    nearly_collapsed,
    normal,
    random_head,
    rows,
    simplex,
)
from theory.numeric.oracle import kappa_by_hessian


class Sides(NamedTuple):
    """A lower and an upper bound of kappa."""

    lower: float
    upper: float


class Case(NamedTuple):
    """A head and the gap Delta that it is compared with, nats."""

    text: str
    head: Head
    gap: float


Growth = Callable[[Tensor], Tensor]
Average = Callable[..., Tensor]


def logits(head: Head) -> Tensor:
    """W h + b, (n, K)."""
    return head.features @ head.weight.T + head.bias


def oscillation(z: Tensor, labels: Tensor, gap: float) -> Tensor:
    """max - min over classes of z_i - Delta e_{y_i}, (n,); z is (n, K)."""
    deviation = z - gap * torch.nn.functional.one_hot(labels, z.shape[1]).to(z)
    return deviation.amax(dim=1) - deviation.amin(dim=1)


def errors(head: Head) -> Tensor:
    """x_i = 1 - p_iy, (n,)."""
    mine = torch.nn.functional.one_hot(head.labels, len(head.weight)).bool()
    return head.probabilities.masked_fill(mine, 0.0).sum(dim=1)


def squared_distances(weight: Tensor) -> Tensor:
    """||w_s - w_t||^2 of the pairs s < t."""
    return torch.pdist(weight).square()


def impurity(gap: Tensor, classes: int) -> Tensor:
    """U of each gap."""
    return torch.from_numpy(softmax_impurity(gap.numpy(), classes))


def exponential(
    case: Case, growth: Growth = torch.exp, least: Average = torch.amin, most: Average = torch.amax
) -> Sides:
    """(D^2/2) U(Delta) mean(||h||^2 growth(omega)), with 1/growth below; D^2 by `least` and `most` of the pairs."""
    _, head, gap = case
    factor = growth(oscillation(logits(head), head.labels, gap))
    squared, norms = squared_distances(head.weight), head.features.square().sum(dim=1)
    half = float(softmax_impurity(gap, len(head.weight))) / 2
    low, high = half * least(squared) * (norms / factor).mean(), half * most(squared) * (norms * factor).mean()
    return Sides(float(low), float(high))


def at_logits(z: Tensor, weight: Tensor, features: Tensor, label: int = 0) -> Head:
    """One sample of the logits z (K,) on any weight (K, m) and features (m,): the biases make up the difference."""
    return Head(features[None], weight, z - weight @ features, torch.tensor([label]))


def raised(K: int, gap: float, classes: Tensor, by: float, label: int = 0) -> Tensor:
    """Delta e_label with the logits of some classes raised by `by`, (K,)."""
    z = torch.zeros(K, dtype=torch.float64)
    z[label] = gap
    return z.index_add(0, classes, torch.full((len(classes),), by, dtype=torch.float64))


ON_A_LINE = Case(
    "rows on a line",
    at_logits(raised(3, 4.0, torch.arange(0), 0.0), rows([0.0], [1.0], [2.0]), torch.ones(1).double()),
    4.0,
)
"""Collapsed outputs, rows 0, 1 and 2: neighbouring rows are at the distance 1, the farthest at 2."""


def lengthened(seed: int, K: int, gap: float, by: float) -> Head:
    """K samples at collapse, and as many with features, so logits, shorter or longer by the factor `by`; no bias."""
    head = collapsed(seed, K=K, m=K, gap=gap)
    features = torch.cat([head.features, by * head.features])
    return head._replace(features=features, labels=head.labels.repeat(2))


def uneven_rows(K: int) -> Tensor:
    """A weight (K, K): a simplex with its last row four times as long."""
    weight = simplex(K, K, 1.0, seed=K)
    weight[-1] = 4 * weight[-1]
    return weight


def cases(random: int) -> list[Case]:
    """Random heads, heads near collapse, chosen deviations up and down, uneven rows at no deviation, long features."""
    found = []
    for seed in range(random):
        K = 2 + seed % 4
        head = random_head(seed, K=K, m=1 + seed % 3, n=1 + seed % 5)
        found += [Case(f"random head {seed}, Delta = {gap:g}", head, gap) for gap in (-1.0, 0.0, 3.0)]
        near = nearly_collapsed(seed, K=K, m=K + 1, noise=0.05, gap=6.0, gamma=0.5, counts=2)
        found.append(Case(f"near collapse {seed}", near, 6.0))
    for K in (2, 3, 6):
        h = normal(generator_of(K), K)
        for gap, by in ((9.0, 3.0), (9.0, -3.0), (1.0, 0.5), (0.0, 2.0)):
            z = raised(K, gap, torch.arange(1), -by)
            found.append(Case(f"K = {K}, Delta = {gap:g}, {-by:g} on y", at_logits(z, simplex(K, K), h), gap))
        for label in (0, K - 1):
            head = at_logits(raised(K, 4.0, torch.arange(0), 0.0, label), uneven_rows(K), h, label)
            found.append(Case(f"K = {K}, row {label} of uneven rows", head, 4.0))
        found.append(Case(f"K = {K}, half of the features halved", lengthened(K, K, 10.0, 0.5), 10.0))
    return found


@cache
def measured(random: int) -> list[tuple[Case, float]]:
    """The cases with their kappa by exact Hessians, which no claim about them changes."""
    return with_kappa(cases(random))


def with_kappa(found: list[Case]) -> list[tuple[Case, float]]:
    """Cases with their kappa by exact Hessians."""
    return [(case, kappa_by_hessian(case.head)) for case in found]


def far_cases() -> list[Case]:
    """Outputs far from collapse and sure, doubtful or wrong: one rival of the true class, or all."""
    found = []
    for classes in (3, 5):
        for gap in (8.0, 1.0, -3.0):
            for rivals in (1, classes - 1):
                z = raised(classes, gap + 6, torch.arange(1, 1 + rivals), 6.0)
                for name, weight in (
                    ("a simplex", simplex(classes, classes)),
                    ("any rows", torch.eye(classes).double()),
                ):
                    weight = weight if name == "a simplex" else weight + normal(generator_of(classes), *weight.shape)
                    head = at_logits(z, weight, torch.ones(classes).double())
                    found.append(Case(f"K = {classes}, {name}, {rivals} rivals at margin {gap:g}", head, gap))
    return found


@cache
def far_measured() -> list[tuple[Case, float]]:
    """The same with their kappa."""
    return with_kappa(far_cases())
