"""Explicit heads that are flat without being collapsed, or flatter than collapse at its loss (B7, B6r).

Each is an exact configuration, not a limit: numbers in, a :class:`theory.numeric.configurations.Head` out.
"""

from __future__ import annotations

import math

import torch

from grokcore.collapse import CollapseReport, collapse_report
from grokcore.geometry import ClassMoments
from theory.formulas import gap_of_loss
from theory.numeric.configurations import Head, collapsed


def with_silent_noise(head: Head, sigma: float) -> Head:
    """Features moved by +- sigma M along one direction orthogonal to every row of W; even counts, m >= K.

    The samples of a class must come in a row, as :func:`theory.numeric.configurations.collapsed` makes them.
    """
    direction = torch.linalg.svd(head.weight).Vh[-1]
    return head._replace(features=head.features + sigma * _radius(head) * _signs(head) * direction)


def with_noise_in_span(head: Head, sigma: float) -> Head:
    """Features moved by +- sigma M straight towards the boundary with the next class; even counts, any m >= K - 1."""
    towards = head.weight.roll(-1, dims=0) - head.weight
    direction = (towards / towards.norm(dim=1, keepdim=True))[head.labels]
    return head._replace(features=head.features + sigma * _radius(head) * _signs(head) * direction)


def with_idle_samples(K: int, m: int, loss: float, *, idle: int, count: int) -> Head:
    """A head of mean loss `loss`: `idle` of each class's `count` samples at h = 0, the others collapsed; no bias.

    Needs loss > (idle/count) log K, the loss of the idle samples. The class means are still a simplex to which
    the head is aligned; only NC1 is lost.
    """
    share = idle / count
    gap = float(gap_of_loss((loss - share * math.log(K)) / (1 - share), K))
    head = collapsed(K=K, m=m, gap=gap, counts=count)
    active = torch.arange(K * count) % count >= idle
    return head._replace(features=head.features * active[:, None])


def _radius(head: Head) -> float:
    moments = _moments(head)
    return float(moments.centred_means().square().sum(dim=1).mean().sqrt())


def _signs(head: Head) -> torch.Tensor:
    return 1.0 - 2.0 * (torch.arange(len(head.labels)) % 2)[:, None].to(head.features.dtype)


def _moments(head: Head) -> ClassMoments:
    return ClassMoments(*head.weight.shape).update(head.features, head.labels)


def collapse_of(head: Head) -> CollapseReport:
    """grokcore's collapse metrics of the head's features."""
    return collapse_report(_moments(head), head.weight, head.bias)


def product_of_two(loss: float, wide_gap: float) -> Head:
    """Four classes in the plane, the product of two binary heads, of loss `loss` < log 2 on every sample; no bias.

    Class (i, j) has the feature s (-1)^i e_1 + t (-1)^j e_2, so NC1 holds and mu_G = 0. The first factor has the
    logit gap `wide_gap` and features so short (s^2/t^2 = e^(-wide_gap/4)) that they cost little; the second
    makes up the loss. As `wide_gap` grows kappa falls to that of the second factor alone.
    """
    # r_1 r_2 = e^-loss in each sample.
    rest = loss - math.log1p(math.exp(-wide_gap))
    if rest <= 0 or loss >= math.log(2):
        raise ValueError(f"no product with loss {loss} and a gap of {wide_gap}")
    gaps, lengths = (wide_gap, -math.log(math.expm1(rest))), (math.exp(-wide_gap / 8), 1.0)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    length = torch.tensor(lengths, dtype=torch.float64)
    rows = torch.tensor(gaps, dtype=torch.float64) / (2 * length)
    return Head(signs * length, signs * rows, torch.zeros(4, dtype=torch.float64), torch.arange(4))
