"""Hypothesis strategies: collapsed, nearly collapsed and random heads.

Profiles (tests/conftest.py): quick by default, `pytest tests/theory --hypothesis-profile=thorough` for 20 times
the examples.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from theory.numeric.configurations import Head, collapsed, generator_of, nearly_collapsed, normal, random_head

seeds = st.integers(0, 10_000)
class_counts = st.integers(2, 12)


@st.composite
def collapsed_heads(
    draw: st.DrawFn,
    *,
    classes: st.SearchStrategy[int] = class_counts,
    gaps: st.SearchStrategy[float] = st.floats(0.05, 12),
    gammas: st.SearchStrategy[float] = st.one_of(st.just(0.0), st.floats(0.05, 3)),
    counts: st.SearchStrategy[int] = st.integers(1, 3),
) -> tuple[Head, int, float, float]:
    """A collapsed head in a random rotation with its K, gap and gamma; m from K - 1 (K where gamma > 0) up."""
    K, gap, gamma = draw(classes), draw(gaps), draw(gammas)
    m = K - (0 if gamma else 1) + draw(st.integers(0, 3))
    radius = draw(st.floats(0.2, 5))
    head = collapsed(draw(seeds), K=K, m=m, gap=gap, radius=radius, gamma=gamma, counts=draw(counts))
    return head, K, gap, gamma


@st.composite
def nearly_collapsed_heads(draw: st.DrawFn, *, classes: st.SearchStrategy[int] = class_counts) -> Head:
    """A collapsed head with noise of a relative size from 1e-4 to 0.3 on everything."""
    K = draw(classes)
    return nearly_collapsed(
        draw(seeds), K=K, m=K + draw(st.integers(0, 3)), noise=draw(st.floats(1e-4, 0.3)), gap=draw(st.floats(0.5, 8))
    )


@st.composite
def random_heads(
    draw: st.DrawFn,
    *,
    classes: st.SearchStrategy[int] = st.integers(2, 6),
    widths: st.SearchStrategy[int] = st.integers(1, 6),
    samples: st.SearchStrategy[int] = st.integers(1, 8),
) -> Head:
    """Any head on any features: normal, scaled, or with rows that nearly coincide."""
    K, m, n = draw(classes), draw(widths), draw(samples)
    head = random_head(draw(seeds), K=K, m=m, n=n, scale=draw(st.floats(0.05, 3)))
    if draw(st.booleans()):
        return head
    near = head.weight[:1] + 1e-3 * normal(generator_of(draw(seeds)), K, m)
    return Head(head.features, near, torch.zeros(K, dtype=torch.float64), head.labels)
