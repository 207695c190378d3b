"""Features that the bounds of RNC1 are tried on: clouds, rays, outliers, and means that attain the constant."""

from __future__ import annotations

import torch
from torch import Tensor

from grokcore.collapse import CollapseReport, collapse_report
from grokcore.geometry import ClassMoments
from theory.numeric.configurations import generator_of, normal


def report(features: Tensor, labels: Tensor) -> CollapseReport:
    """The library's metrics."""
    return collapse_report(ClassMoments(int(labels.max()) + 1, features.shape[1]).update(features, labels))


def clouds(count: int) -> list[tuple[str, Tensor, Tensor]]:
    """Balanced features: offset clouds of random sizes, and clouds along the rays of their class means."""
    found = []
    for seed in range(count):
        generator, classes, m, n = generator_of(seed), 2 + seed % 4, 1 + seed % 3, 3 + seed % 5
        size = torch.rand(classes, 1, generator=generator, dtype=torch.float64) ** 3
        means = size * normal(generator, classes, m) + (seed % 3) * normal(generator, m)
        labels = torch.arange(classes).repeat_interleave(n)
        noise = normal(generator, classes * n, m) * (0.1 + seed % 4)
        found.append((f"cloud {seed}", means[labels] + noise, labels))
        found.append((f"rays {seed}", *along_rays(means, 1 + seed % 5)))
    return found


def along_rays(means: Tensor, spread: int) -> tuple[Tensor, Tensor]:
    """Each class once at (1 + spread) mu_c and `spread` times at 0, so that E||h|| = mean ||mu_c||."""
    stretch = torch.zeros(1 + spread, dtype=torch.float64)
    stretch[0] = 1.0 + spread
    labels = torch.arange(len(means)).repeat_interleave(1 + spread)
    return means[labels] * stretch.repeat(len(means))[:, None], labels


def extremal(classes: int, ratio: float) -> Tensor:
    """Means that attain C: (K, 1). ratio in [-1, 0]: a, -b, 0, ... with b = -ratio; in (0, 1]: b = 1 - ratio."""
    if ratio <= 0:
        return torch.tensor([[1.0], [ratio], *[[0.0]] * (classes - 2)], dtype=torch.float64)
    b = 1 - ratio
    return torch.tensor([[1 + (classes - 1) * b], *[[1 - b]] * (classes - 1)], dtype=torch.float64)


def one_pair(far: int) -> tuple[Tensor, Tensor]:
    """Means +-1 and far^4 samples of each class at +-1 of theirs; one more pair each, of one class at +-far of it."""
    side = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(far**4 // 2)
    pair = torch.tensor([1.0, -1.0], dtype=torch.float64)
    features = torch.cat([1 + side, 1 + far * pair, -1 + side, -1 + pair])[:, None]
    return features, torch.arange(2).repeat_interleave(far**4 + 2)
