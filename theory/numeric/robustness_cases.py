"""Heads on which E4 is measured, and how a claimed bound is held against their rises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from theory.numeric.configurations import Head, generator_of, normal, random_head
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.robustness import Bounds, bounds, confident, haar_matrices, rise_on_spheres, rises
from theory.proof import Proof

Proxy = Callable[[Any], Any]
Upper = Callable[[Bounds], float]


def heads(width: int) -> Iterator[tuple[str, Head]]:
    """Random, sure and idle heads on m = `width` features."""
    for seed, scale in enumerate((0.3, 1.0, 2.0)):
        yield f"random head, scale {scale}", random_head(seed + 10 * width, K=2 + seed, m=width, n=4, scale=scale)
    yield "a sure head", confident(width)
    yield "a sure head, nine idle samples", confident(width, idle=9)
    yield "no features", confident(width)._replace(features=torch.zeros(1, width, dtype=torch.float64))


class Case(NamedTuple):
    """A head with the exact mean rise at d and its kappa, by the dense Hessian."""

    text: str
    head: Head
    d: float
    rise: float
    kappa: float


@cache
def cases(width: int) -> list[Case]:
    """Heads on m = `width` <= 3 features at three sizes."""
    found = []
    for text, head in heads(width):
        kappa = kappa_by_hessian(head)
        for d in (0.05, 0.5, 1.5):
            found.append(Case(f"m = {width}, {text}, d = {d}", head, d, rise_on_spheres(head, d), kappa))
    return found


def one_over(width: Any) -> Any:
    """1/m, of a number or a ball."""
    return 1 / width


def exact(proof: Proof, upper: Upper, proxy: Proxy = one_over) -> None:
    """Exact rises against `upper` of the bounds with this sub-Gaussian variance."""
    for width in (1, 2, 3):
        for text, head, d, rise, kappa in cases(width):
            found = bounds(head, d, kappa=kappa, proxy=proxy(width))
            proof.at_most(f"{text}: 0 <= rise", -1e-14, rise)
            proof.at_most(f"{text}: rise", rise, upper(found) + 1e-14)


def exponential_bound(found: Bounds) -> float:
    """E4's first bound."""
    return found.exponential


def flatness_bound(found: Bounds) -> float:
    """E4's second bound."""
    return found.flatness


def sampled(proof: Proof, upper: Upper, proxy: Proxy = one_over) -> None:
    """Sampled rises at m = 3 and 5, d = 1, against `upper`: Haar, signs and normal numbers."""
    for width in (3, 5):
        count = proof.cases(4000, 100_000)
        laws = {"Haar": haar_matrices(width, width, count)}
        drawn = normal(generator_of(width), count, width, width)
        laws |= {"signs": drawn.sign() / math.sqrt(width), "normal": drawn / math.sqrt(width)}
        for name, head in (("random", random_head(width, K=4, m=width, n=5)), ("sure", confident(width, length=3.0))):
            limit = upper(bounds(head, 1.0, proxy=proxy(width)))
            for law, matrices in laws.items():
                # Both signs of each matrix: the linear part is gone.
                values = (rises(head, 1.0, matrices) + rises(head, 1.0, -matrices)) / 2
                mean, error = values.mean().item(), (values.std() / math.sqrt(count)).item()
                text = f"m = {width}, {name} head, {law}"
                proof.at_most(f"{text}: rise less five standard errors", mean - 5 * error, limit)
                proof.at_most(f"{text}: an error bar of use", 5 * error, limit / 3)


def signed_axes(width: int) -> Tensor:
    """Matrices that send e_1 to each of +-e_j, (2m, m, m): of a group with Haar's second moments."""
    eye = torch.eye(width, dtype=torch.float64)
    cycles = torch.stack([eye.roll(shift, dims=0) for shift in range(width)])
    return torch.cat([cycles, -cycles])
