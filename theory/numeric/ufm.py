"""The unconstrained-features model on explicit sizes: its objective, a real optimiser, its joint Hessian.

    F(W, H, b) = mean loss over all samples + (l_W/2) ||W||_F^2 + (l_H/2) ||H||_F^2,     H free, m x N.

Nothing here knows an optimum: `minimise` starts from random numbers, `joint_hessian` differentiates F twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from theory.numeric.configurations import Head, generator_of, normal
from theory.numeric.descent import lbfgs


@dataclass(frozen=True)
class FreeFeatures:
    """One model.

    Attributes:
        counts: samples in each class; K is their number.
        m: width.
        l_W, l_H: weight decay of the head and of the features.
        bias: whether there is a head bias (without decay).
        smoothing: a, targets (1 - a) e_y + a/K.
        loss: "squared" is (1/2)||z - t||^2.
        features: how the free variable becomes the feature; the identity, or a constraint to be put in.
        labels, targets: (N,) and (N, K).
    """

    counts: tuple[int, ...]
    m: int
    l_W: float  # noqa: N815
    l_H: float  # noqa: N815
    bias: bool = False
    smoothing: float = 0.0
    loss: Literal["cross_entropy", "squared"] = "cross_entropy"
    features: Callable[[Tensor], Tensor] = lambda free: free
    labels: Tensor = field(init=False, repr=False, compare=False)
    targets: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels = torch.arange(self.K).repeat_interleave(torch.tensor(self.counts))
        one_hot = torch.nn.functional.one_hot(labels, self.K).to(torch.float64)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "targets", (1 - self.smoothing) * one_hot + self.smoothing / self.K)

    @property
    def K(self) -> int:  # noqa: N802
        """Classes."""
        return len(self.counts)

    @property
    def L(self) -> float:  # noqa: N802
        """sqrt(n l_W l_H), where balanced."""
        return math.sqrt(self.counts[0] * self.l_W * self.l_H)

    @property
    def size(self) -> int:
        """How many numbers there are to optimise: W, H, b."""
        return self.m * (self.K + sum(self.counts)) + (self.K if self.bias else 0)

    def head(self, point: Tensor) -> Head:
        """The head and features at a point (size,): W row by row, then the samples' features, then b."""
        K, m, N = self.K, self.m, sum(self.counts)
        weight, free = point[: K * m].reshape(K, m), point[K * m : (K + N) * m].reshape(N, m)
        bias = point[(K + N) * m :] if self.bias else point.new_zeros(K)
        return Head(self.features(free), weight, bias, self.labels)

    def point(self, head: Head) -> Tensor:
        """The point (size,) of a head and features, where the features are the free variable."""
        parts = [head.weight.reshape(-1), head.features.reshape(-1)]
        return torch.cat([*parts, head.bias] if self.bias else parts)

    def objective(self, point: Tensor) -> Tensor:
        """F at a point."""
        head = self.head(point)
        logits, targets = head.features @ head.weight.T + head.bias, self.targets
        if self.loss == "squared":
            fit = (logits - targets).square().sum(dim=1).mean() / 2
        else:
            fit = -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
        return fit + self.l_W / 2 * head.weight.square().sum() + self.l_H / 2 * head.features.square().sum()

    def gradient(self, point: Tensor) -> Tensor:
        """Its gradient, (size,)."""
        gradient: Tensor = torch.func.grad(self.objective)(point)
        return gradient

    def joint_hessian(self, point: Tensor) -> Tensor:
        """The exact Hessian of F in all its variables together, (size, size)."""
        hessian: Tensor = torch.func.hessian(self.objective)(point)
        return hessian

    def spectrum(self, point: Tensor) -> Tensor:
        """Its eigenvalues, ascending."""
        values: Tensor = torch.linalg.eigvalsh(self.joint_hessian(point))
        return values

    def minimise(self, seed: int, *, start: float = 1.0) -> Tensor:
        """A minimiser from normal numbers times `start`: L-BFGS, then Newton steps across the flat directions."""
        (found,) = lbfgs(self.objective, [start * normal(generator_of(seed), self.size)], tolerance=1e-7)
        for _ in range(3):
            if float(self.gradient(found).norm()) < 1e-13:
                break
            found = found - torch.linalg.pinv(self.joint_hessian(found), rtol=1e-7, hermitian=True) @ self.gradient(
                found
            )
        return found


def balanced(
    K: int, n: int, m: int, l_W: float, l_H: float, *, bias: bool = False, smoothing: float = 0.0
) -> FreeFeatures:
    """The model of K classes with n samples each, cross-entropy."""
    return FreeFeatures((n,) * K, m, l_W, l_H, bias, smoothing)
