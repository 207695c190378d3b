"""Clouds: labelled features with a head, drawn with a known conditioning, for the contracts over the metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from hypothesis import strategies as st
from torch import Tensor

from theory.numeric.configurations import collapsed, generator_of, nearly_collapsed, normal, rotation, simplex


@dataclass(frozen=True, eq=False)
class Cloud:
    """Features (n, m) and labels (n,) that enter a head (K, m), (K,); `parts` says in which batches they arrive."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    parts: tuple[Tensor, ...] = ()

    @property
    def K(self) -> int:  # noqa: N802, the field's name
        return len(self.weight)

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        rows = self.parts or (torch.arange(len(self.labels)),)
        return [(self.features[r], self.labels[r]) for r in rows]

    def pick(self, rows: Tensor) -> Cloud:
        """These samples, in this order, as one batch."""
        return replace(self, features=self.features[rows], labels=self.labels[rows], parts=())

    def to(self, dtype: torch.dtype) -> Cloud:
        """Features and head rounded to `dtype`."""
        return replace(
            self, features=self.features.to(dtype), weight=self.weight.to(dtype), bias=self.bias.to(dtype), parts=()
        )


def random_cloud(
    seed: int,
    *,
    K: int,
    m: int,
    largest: int = 6,
    noise: float = 0.5,
    offset: float = 0.0,
    along: float = 1.0,
    sizes: Tensor | None = None,
) -> Cloud:
    """A cloud with every class present, 1 to `largest` samples each.

    Args:
        seed: of everything.
        K: classes.
        m: features.
        largest: most samples of one class.
        noise: standard deviation of a feature within its class; class means are of order 1.
        offset: size of a shift common to all features; the bias takes it out of the logits.
        along: factor on the noise inside the span of the centred class means.
        sizes: singular values of the centred class means, min(K - 1, m) of them; by default in [0.3, 1].
    """
    generator = generator_of(seed)
    rank = min(K - 1, m)
    if sizes is None:
        sizes = 0.3 + 0.7 * torch.rand(rank, generator=generator, dtype=torch.float64)
    directions = rotation(seed + 1, m)[:rank]
    # The simplex of this radius has orthonormal columns, so `sizes` are the singular values.
    means = (simplex(K, K - 1, math.sqrt((K - 1) / K), seed)[:, :rank] * sizes) @ directions
    labels = torch.arange(K).repeat_interleave(torch.randint(1, largest + 1, (K,), generator=generator))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    spread = noise * normal(generator, len(labels), m)
    spread = spread + (along - 1) * (spread @ directions.T) @ directions
    shift = offset * normal(generator, m)
    weight = 2 * means + 0.5 * normal(generator, K, m)
    return Cloud(means[labels] + spread + shift, labels, weight, 0.5 * normal(generator, K) - weight @ shift)


@lru_cache(maxsize=2)
def collapsed_cloud(*, K: int, m: int, gap: float, radius: float, gamma: float) -> Cloud:
    """Exact collapse (NC1 to NC4), two samples a class."""
    features, weight, bias, labels = collapsed(K=K, m=m, gap=gap, radius=radius, gamma=gamma, counts=2)
    return Cloud(features, labels, weight, bias)


@lru_cache(maxsize=2)
def nearly_collapsed_cloud(*, K: int, m: int, noise: float) -> Cloud:
    """Collapse with gap 4 and radius 1.3 but for noise of a relative size `noise` on everything."""
    features, weight, bias, labels = nearly_collapsed(K=K, m=m, noise=noise)
    return Cloud(features, labels, weight, bias)


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    """Any cloud: 2 to 12 classes, unbalanced, one sample in a class, no simplex (m < K - 1), fewer samples than m."""
    K = draw(st.integers(2, 12))
    m = draw(st.one_of(st.integers(K - 1, K + 3), st.just(40), st.integers(1, K)))
    return random_cloud(
        draw(st.integers(0, 10_000)),
        K=K,
        m=m,
        largest=draw(st.integers(1, 6)),
        noise=draw(st.sampled_from([1e-3, 0.1, 1.0])),
        offset=draw(st.sampled_from([0.0, 1.0, 100.0])),
    )
