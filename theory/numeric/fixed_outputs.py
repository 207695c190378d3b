"""Heads whose softmax outputs are exactly the collapsed ones: built, measured, attacked, classified. Float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokcore.flatness import relative_flatness
from theory.formulas import kappa_at_collapse
from theory.numeric.collapse_spectrum import softmax_curvatures
from theory.numeric.configurations import Head, collapsed, generator_of, normal
from theory.numeric.descent import lbfgs


def head_with_outputs(gap: float, labels: Tensor, weight: Tensor, bias: Tensor, free: Tensor) -> Head:
    """The head (K, m), m >= K - 1, with these biases (K,) and features that give the collapsed outputs exactly.

    The features (n, m) are the least-norm solutions of W~ h + beta = Delta u_y plus the part of `free` (n, m)
    that no centred row sees. Differentiable in weight, bias and free.
    """
    classes = weight.shape[0]
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    # Scale is free: at norm sqrt(K-1) the matrix to invert stays well conditioned.
    weight = centring @ weight
    weight = weight * math.sqrt(classes - 1) / weight.norm()
    inverse = torch.linalg.solve(weight @ weight.T + 1 / classes, weight)
    features = (gap * centring[labels] - centring @ bias) @ inverse + free - (free @ weight.T) @ inverse
    return Head(features, weight, bias, labels)


def excess(head: Head, gap: float) -> float:
    """What kappa is above the bound of B6, as its sum of squares; the head has the outputs of that gap, balanced."""
    features, weight, bias, labels = head
    classes, n = len(weight), len(labels) // len(weight)
    b, c = softmax_curvatures(gap, classes)
    rows, beta = weight - weight.mean(0), bias - bias.mean()
    means = torch.stack([features[labels == k].mean(0) for k in range(classes)])
    centre = means.mean(0)
    size, own = rows.square().sum(), rows[labels]
    scattered = (features - means[labels]).square().sum() + len(labels) * centre.square().sum()
    spread = size * (means - centre).square().sum() - (rows * (means - centre)).sum() ** 2
    aligned = features.square().sum(1) * own.square().sum(1) - (features * own).sum(1).square()
    value = b * (size * scattered + n * spread)
    value += c * (aligned.sum() + n * beta.square().sum())
    return float(value) / len(labels)


def attack(seed: int, *, K: int, m: int, n: int, gap: float, steps: int = 200) -> Head:
    """The flattest head that LBFGS finds from a random start, over head, biases and features with fixed outputs."""
    generator = generator_of(seed)
    labels = torch.arange(K).repeat_interleave(n)
    starts = [normal(generator, K, m), normal(generator, K), normal(generator, K * n, m) / 2]
    scale = float(kappa_at_collapse(gap, K))

    def excess_of(weight: Tensor, bias: Tensor, free: Tensor) -> Tensor:
        head = head_with_outputs(gap, labels, weight, bias, free)
        return torch.log(relative_flatness(head.features, head.weight, head.bias) / scale)

    return head_with_outputs(gap, labels, *lbfgs(excess_of, starts, steps=steps))


def one_point_a_class(head: Head) -> bool:
    """NC1: the features of a class coincide."""
    return all(
        bool((h - head.features[head.labels == y][0]).norm() < 1e-9)
        for h, y in zip(head.features, head.labels, strict=True)
    )


def has_centred_features(head: Head) -> bool:
    """mu_G = 0 (balanced classes)."""
    return bool(head.features.mean(0).norm() < 1e-9 * head.features.norm())


def self_dual(head: Head) -> bool:
    """NC3 with mu_G = 0: the features are one multiple of the centred rows."""
    rows = (head.weight - head.weight.mean(0))[head.labels]
    factor = float((rows * head.features).sum() / rows.square().sum())
    return bool((head.features - factor * rows).norm() < 1e-9 * head.features.norm())


def simplex_rows(head: Head) -> bool:
    """The centred rows form a simplex."""
    rows = head.weight - head.weight.mean(0)
    centring = torch.eye(len(rows), dtype=torch.float64) - 1 / len(rows)
    return bool((rows @ rows.T / rows.square().sum() - centring / (len(rows) - 1)).norm() < 1e-9)


def heads_with_collapsed_outputs(gap: float) -> list[Head]:
    """Collapsed ones (rotated, shifted rows, shifted biases) and ones that lack exactly some part of collapse."""
    classes, m, n = 4, 5, 2
    plain = collapsed(1, K=classes, m=m, gap=gap, counts=n)
    generator = generator_of(5)
    null = torch.linalg.svd(plain.weight)[2][classes - 1 :]
    hidden = normal(generator, len(plain.labels), len(null)) @ null
    # K = 4 with rows (+-1, +-1, +-1): stretching axes keeps mu_G = 0 and gives rows and features of other shapes.
    cube = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    none, zero = torch.zeros(classes, dtype=torch.float64), torch.zeros(len(plain.labels), 3, dtype=torch.float64)
    stretched = cube * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    bias = torch.tensor([0.5, -0.5, 0.0, 0.0], dtype=torch.float64)
    return [
        plain,
        plain._replace(weight=plain.weight + normal(generator, m), bias=plain.bias + 0.7),
        collapsed(2, K=classes, m=m, gap=gap, gamma=0.8, counts=n),
        plain._replace(features=plain.features + hidden),
        head_with_outputs(gap, plain.labels, stretched, none, zero),
        head_with_outputs(gap, plain.labels, cube, bias, zero),
    ]
