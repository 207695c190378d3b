"""The CDNV penalty of a minibatch, forward and backward, beside the published form: a loop over samples in Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.row import Row
from benchmarks.timing import interleaved, require_same, stopwatch
from grokcore import cdnv

SAMPLES, FEATURES, CLASSES = 64, 512, 10


def run(device: torch.device) -> list[Row]:
    """Times of one forward and backward pass of each."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(SAMPLES, FEATURES, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(SAMPLES) % CLASSES).to(device)

    def ours() -> tuple[Tensor, Tensor]:
        return with_gradient(lambda: cdnv(features, labels, CLASSES), features)

    def looped() -> tuple[Tensor, Tensor]:
        return with_gradient(lambda: looped_cdnv(features, labels), features)

    for what, found, wanted in zip(("CDNV", "its gradient"), ours(), looped(), strict=True):
        require_same(what, float(found.norm()), float(wanted.norm()))
        require_same(f"{what}, difference from the baseline's", 1 + float((found - wanted).norm() / wanted.norm()), 1)
    fast, slow = interleaved(stopwatch(ours, device), stopwatch(looped, device))
    return [
        Row(f"cdnv: penalty, forward and backward ({SAMPLES} x {FEATURES}, K = {CLASSES})", fast),
        Row("cdnv: the published loop over samples; over ours", slow, ratio=slow / fast, at_least=10),
    ]


def with_gradient(penalty: Callable[[], Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
    """The penalty and its gradient in the features."""
    value = penalty()
    (gradient,) = torch.autograd.grad(value, features)
    return value.detach(), gradient


def looped_cdnv(features: Tensor, labels: Tensor) -> Tensor:
    """CDNV of the classes of a batch: each sample to its class, then each class, then each pair; 0 of one class."""
    groups: dict[int, list[Tensor]] = {}
    for row, label in zip(features, labels, strict=True):
        groups.setdefault(int(label), []).append(row)
    means = {c: torch.stack(rows).mean(dim=0) for c, rows in groups.items()}
    variances = {}
    for c, rows in groups.items():
        squares = [(row - means[c]).square().sum() for row in rows]
        variances[c] = torch.stack(squares).mean()
    # Half of the ordered pairs suffice: the two of a pair are equal.
    pairs = list(itertools.combinations(groups, 2))
    terms = [(variances[c] + variances[d]) / (2 * (means[c] - means[d]).square().sum()) for c, d in pairs]
    return torch.stack(terms).mean() if terms else features.new_zeros(())
