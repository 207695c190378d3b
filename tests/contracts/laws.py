"""The laws of the metrics' contract: each changes a cloud in a way that a right metric answers by a known power.

A law returns the changed cloud and its factor a; a metric of degree d under the law is multiplied by a^d.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from tests.contracts.clouds import Cloud
from theory.numeric.configurations import normal, rotation

Law = Callable[[Cloud, torch.Generator], tuple[Cloud, float]]


def _factor(generator: torch.Generator) -> float:
    return math.exp(1.5 * float(normal(generator, 1)))


def rotate(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """H R, W R."""
    turn = rotation(int(torch.randint(10_000, (1,), generator=generator)), cloud.features.shape[1])
    return replace(cloud, features=cloud.features @ turn, weight=cloud.weight @ turn), 1.0


def widen(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """Features that are always zero are added, where a simplex fits already (else a NaN turns into a number)."""
    if cloud.features.shape[1] < cloud.K - 1:
        return cloud, 1.0
    pad = torch.nn.functional.pad
    return replace(cloud, features=pad(cloud.features, (0, 3)), weight=pad(cloud.weight, (0, 3))), 1.0


def scale_features(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """H -> a H, the head left as it is."""
    a = _factor(generator)
    return replace(cloud, features=a * cloud.features), a


def scale_head(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """W, b -> a W, a b: the logits times a."""
    a = _factor(generator)
    return replace(cloud, weight=a * cloud.weight, bias=a * cloud.bias), a


def scale_both(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """H -> a H, W -> W / a: the same logits."""
    a = _factor(generator)
    return replace(cloud, features=a * cloud.features, weight=cloud.weight / a), a


def translate(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """H -> H + 1 v^T, b -> b - W v: the same logits."""
    shift = 3 * normal(generator, cloud.features.shape[1])
    return replace(cloud, features=cloud.features + shift, bias=cloud.bias - cloud.weight @ shift), 1.0


def shift_rows(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """W -> W + 1 v^T, b -> b + c: the same softmax."""
    v = normal(generator, 1, cloud.features.shape[1])
    return replace(cloud, weight=cloud.weight + v, bias=cloud.bias + normal(generator, 1)), 1.0


def permute_classes(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """The classes renamed, in the labels and the head."""
    order = torch.randperm(cloud.K, generator=generator)
    return replace(cloud, labels=order.argsort()[cloud.labels], weight=cloud.weight[order], bias=cloud.bias[order]), 1.0


def permute_samples(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """The samples in another order."""
    return cloud.pick(torch.randperm(len(cloud.labels), generator=generator)), 1.0


def split(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """The samples in another order and in batches of random sizes, empty ones among them."""
    n = len(cloud.labels)
    cuts = torch.randint(n + 1, (5,), generator=generator).sort().values
    return replace(cloud, parts=torch.randperm(n, generator=generator).tensor_split(cuts)), 1.0


def repeat(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """Every sample three times."""
    return cloud.pick(torch.arange(len(cloud.labels)).repeat(3)), 1.0


def repeat_class(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """The samples of class 0 three times: class means and variances stay, the classes' shares do not."""
    rows = torch.arange(len(cloud.labels))
    return cloud.pick(torch.cat([rows, rows[cloud.labels == 0].repeat(2)])), 1.0


def shuffle_labels(cloud: Cloud, generator: torch.Generator) -> tuple[Cloud, float]:
    """The labels dealt out anew: only what does not look at them stays."""
    return replace(cloud, labels=cloud.labels[torch.randperm(len(cloud.labels), generator=generator)]), 1.0


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        rotate,
        widen,
        scale_features,
        scale_head,
        scale_both,
        translate,
        shift_rows,
        permute_classes,
        permute_samples,
        split,
        repeat,
        repeat_class,
        shuffle_labels,
    )
}
