"""What the contract measures with: the public functions, each as a number of a cloud."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache

import torch
from torch import Tensor

from grokcore import (
    ClassMoments,
    cdnv,
    collapse_report,
    frobenius_surrogate,
    measure,
    nearest_mean_agreement,
    relative_flatness,
)
from tests.contracts.clouds import Cloud

Value = Callable[[Cloud], float]
STRETCH = 1.7
"""The reference's features about its global mean, in units of the cloud's."""


def moments_of(cloud: Cloud) -> ClassMoments:
    """Batches dealt to three workers, each of which takes its own in turn; then the workers merge."""
    workers = [ClassMoments(cloud.K, cloud.features.shape[1]) for _ in range(3)]
    for number, (features, labels) in enumerate(cloud.batches):
        workers[number % 3].update(features, labels)
    return workers[2].merge(workers[0].merge(workers[1]))


def reference_of(cloud: Cloud) -> Cloud:
    """Another set that moves along with the cloud under every law: the cloud stretched about its global mean."""
    features = cloud.features.double()
    means = torch.stack([features[cloud.labels == c].mean(dim=0) for c in range(cloud.K)])
    return replace(cloud, features=means.mean(dim=0) + STRETCH * (features - means.mean(dim=0)), parts=())


def model_of(cloud: Cloud) -> torch.nn.Module:
    """A classifier whose head's inputs are the cloud's features."""
    head = torch.nn.Linear(cloud.features.shape[1], cloud.K, dtype=cloud.weight.dtype)
    with torch.no_grad():
        head.weight.copy_(cloud.weight)
        head.bias.copy_(cloud.bias)
    return torch.nn.Sequential(torch.nn.Identity(), head)


@lru_cache(maxsize=32)
def measured(cloud: Cloud) -> dict[str, float]:
    """Every field of the reports of a cloud, of measure and of collapse_report."""
    report = measure(model_of(cloud), cloud.batches, "1")
    about = measure(model_of(cloud), cloud.batches, "1", reference=moments_of(reference_of(cloud)))
    collapse = collapse_report(moments_of(cloud), cloud.weight, cloud.bias)
    for found, reasons in ((asdict(collapse), collapse.reasons), (asdict(report.collapse), report.collapse.reasons)):
        nan = {name for name, value in found.items() if name != "reasons" and math.isnan(value)}
        assert nan == set(reasons), "NaN and its reason go together"
    own = {name: float(value) for name, value in report.to_dict().items() if isinstance(value, float)}
    reference = {"nc4_about_reference": about.nc4, "variance_ratio_about_reference": about.variance_ratio}
    streamed = {name: float(value) for name, value in asdict(collapse).items() if name != "reasons"}
    return own | reference | streamed | {f"measure.{name}": getattr(report.collapse, name) for name in streamed}


def summed(contribution: Callable[[Tensor, Cloud], float]) -> Value:
    """A mean over samples from its sums over the batches."""
    return lambda cloud: sum(contribution(h, cloud) for h, _ in cloud.batches if len(h)) / len(cloud.labels)


def agreement(cloud: Cloud) -> float:
    """nearest_mean_agreement with the cloud's own means, averaged over the batches by their sizes."""
    means = moments_of(cloud).means
    return summed(lambda h, c: len(h) * nearest_mean_agreement(h, c.weight, c.bias, means))(cloud)


def batch_cdnv(cloud: Cloud) -> float:
    """cdnv of all batches together: it does not stream, so only their order is left."""
    order = torch.cat([labels for _, labels in cloud.batches])
    return float(cdnv(torch.cat([features for features, _ in cloud.batches]), order, cloud.K))


def batch_flatness(cloud: Cloud) -> float:
    """relative_flatness, summed over the batches."""
    return summed(lambda h, c: float(relative_flatness(h, c.weight, c.bias, reduction="sum")))(cloud)


def batch_surrogate(cloud: Cloud) -> float:
    """frobenius_surrogate, averaged over the batches by their sizes."""
    return summed(lambda h, c: len(h) * float(frobenius_surrogate(h, c.weight, c.bias)))(cloud)
