"""What the dynamics experiment logs about information, with `--information`: estimates, each with its null and error.

For train and test (their first SAMPLES samples), features in eval mode, B their root mean square norm, s each noise:

- ``*_information_given_label_<s>`` (``_error``, ``_null``): I(Z;X|Y), Z = h + sB N(0, I), beside E2's two bounds; the
  null pairs z with another sample of its class, and lies below zero as far as the channel tells anything.
- ``*_information_label_<s>`` (``_error``, ``_null``): I(Z;Y) = I(Z;X) - I(Z;X|Y); the null shuffles the labels.
- ``*_nhsic_inputs``, ``*_nhsic_labels`` (``_null``, ``_null_std``): nHSIC of the features; the null shuffles pairs.
- ``*_ksg_information`` (``_error``, ``_null``): of KSG_DIMENSIONS principal components of inputs and features.
- ``*_entropies_information`` (``_unpaired``): what paper B's public code estimates, of PUBLISHED_DIMENSIONS principal
  components (its inputs go through an autoencoder), paired, and from two shuffles as it reads them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokcore import (
    ClassMoments,
    Estimate,
    information_bounds,
    ksg_information,
    noisy_information,
    normalised_hsic,
)
from grokcore.neighbour_entropy import entropies_information

NOISES = (0.1, 1.0)
"""Standard deviations s of the noise of E2, in units of the features' root mean square norm B."""
SAMPLES, SHUFFLES, DRAWS = 1_000, 20, 8
KSG_DIMENSIONS, PUBLISHED_DIMENSIONS = 4, 8


@torch.no_grad()
def information_columns(features: Tensor, inputs: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """The columns of one set: features (n, m), inputs (n, ...), labels (n,) in [0, classes)."""
    h, labels = features[:SAMPLES].double(), labels[:SAMPLES]
    x, order = inputs[:SAMPLES].flatten(1).double(), torch.randperm(len(h), generator=_generator()).to(h.device)
    row, size = dict[str, float](), math.sqrt(float(h.square().sum(dim=1).mean()))
    for s in NOISES:
        noise = s * size
        given, null = (
            noisy_information(h, labels, noise=noise, draws=DRAWS, shuffled=shuffled) for shuffled in (False, True)
        )
        row |= _estimate(f"information_given_label_{s:g}", given, null.value)
        whole, shuffled_given = (
            noisy_information(h, noise=noise, draws=DRAWS),
            noisy_information(h, labels[order], noise=noise, draws=DRAWS),
        )
        row |= {
            f"information_label_{s:g}": whole.value - given.value,
            f"information_label_{s:g}_error": math.hypot(whole.stderr, given.stderr),
            f"information_label_{s:g}_null": whole.value - shuffled_given.value,
        }
    for name, other in (("inputs", x), ("labels", torch.nn.functional.one_hot(labels, classes).double())):
        found = normalised_hsic(h, other, shuffles=SHUFFLES)
        row |= {
            f"nhsic_{name}": found.value,
            f"nhsic_{name}_null": found.null_mean,
            f"nhsic_{name}_null_std": found.null_std,
        }
    few_x, few_h = (principal_components(each, KSG_DIMENSIONS) for each in (x, h))
    ksg = ksg_information(few_x, few_h)
    row |= _estimate("ksg_information", ksg, ksg_information(few_x, few_h[order]).value)
    few_x, few_h = (principal_components(each, PUBLISHED_DIMENSIONS) for each in (x, h))
    return row | {
        "entropies_information": entropies_information(few_x, few_h),
        "entropies_information_unpaired": entropies_information(few_x, few_h[order]),
    }


def bound_columns(moments: ClassMoments) -> dict[str, float]:
    """E2's bounds of I(Z;X|Y), nats, at each noise: ``information_trace_<s>`` and ``information_logdet_<s>``; where the
    classes are super-classes, F4's of I(Z;Y|S)."""
    row = dict[str, float]()
    for noise in NOISES:
        found = information_bounds(moments, noise=noise)
        row |= {f"information_trace_{noise:g}": found.trace, f"information_logdet_{noise:g}": found.log_det}
    return row


def principal_components(x: Tensor, count: int) -> Tensor:
    """The first principal components (n, count) of rows (n, m), or all of them."""
    centred = x - x.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -count:]


def _estimate(name: str, found: Estimate, null: float) -> dict[str, float]:
    return {name: found.value, f"{name}_error": found.stderr, f"{name}_null": null}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
