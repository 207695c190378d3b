"""Metrics that are plausible and wrong, each with the check of the contract that must refute it.

Every one is written from a fault seen in the field; every one is right often enough to be believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grokcore import nearest_mean_agreement, relative_flatness
from grokcore.distances import squared_distances
from tests.contracts.clouds import Cloud
from tests.contracts.instruments import Value, measured, moments_of
from tests.contracts.metrics import Metric, row


def _rows_of(cloud: Cloud) -> list[Tensor]:
    return [cloud.features[cloud.labels == c] for c in range(cloud.K)]


def _means(cloud: Cloud) -> Tensor:
    return torch.stack([rows.mean(dim=0) for rows in _rows_of(cloud)])


def _centred(cloud: Cloud) -> Tensor:
    return _means(cloud) - _means(cloud).mean(dim=0)


def _pairs(cloud: Cloud) -> Tensor:
    return ~torch.eye(cloud.K, dtype=torch.bool)


def _cdnv(variances: Tensor, means: Tensor) -> Tensor:
    """The K x K matrix of (V_c + V_c') / (2 d^2), without its diagonal."""
    distances = squared_distances(means) + torch.eye(len(means))
    return (variances[:, None] + variances[None, :]) / (2 * distances)


def one_pass_variance(cloud: Cloud) -> float:
    """V_c = E||h||^2 - ||mu_c||^2, in the features' own dtype."""
    variances = [r.square().sum(dim=1).mean() - r.mean(dim=0).square().sum() for r in _rows_of(cloud)]
    return float(_cdnv(torch.stack(variances), _means(cloud))[_pairs(cloud)].mean())


def sum_over_unordered_pairs(cloud: Cloud) -> float:
    """CDNV summed over c < c', not averaged."""
    variances = torch.stack([r.var(dim=0, correction=0).sum() for r in _rows_of(cloud)])
    return float(_cdnv(variances, _means(cloud)).triu(1).sum())


def variance_with_correction(cloud: Cloud) -> float:
    """Within-class variance divided by n_c - 1."""
    spread = [(r - r.mean(dim=0)).square().sum() / max(len(r) - 1, 1) for r in _rows_of(cloud)]
    return float(torch.stack(spread).mean())


def weighted_classes(cloud: Cloud) -> float:
    """Within-class variance as the mean over samples, not over classes."""
    return float(sum((r - r.mean(dim=0)).square().sum() for r in _rows_of(cloud)) / len(cloud.labels))


def largest_norm_for_mean_norm(cloud: Cloud) -> float:
    """The supremum of ||h|| under the name of its mean."""
    return measured(cloud)["rnc1_sup"]


def std_with_correction(cloud: Cloud) -> float:
    """NC2's std divided by K - 1."""
    norms = _centred(cloud).norm(dim=1)
    return float(norms.std(correction=1) / norms.mean())


def uncentred_angles(cloud: Cloud) -> float:
    """Cosines of the class means themselves."""
    means = torch.nn.functional.normalize(_means(cloud), dim=1)
    return float(((means @ means.T)[_pairs(cloud)] + 1 / (cloud.K - 1)).abs().mean())


def largest_angle(cloud: Cloud) -> float:
    """The largest deviation of a cosine, not the mean."""
    means = torch.nn.functional.normalize(_centred(cloud), dim=1)
    return float(((means @ means.T)[_pairs(cloud)] + 1 / (cloud.K - 1)).abs().max())


def mean_of_samples(cloud: Cloud) -> float:
    """The global mean over samples, not over classes."""
    centred = _means(cloud) - cloud.features.mean(dim=0)
    return float(cloud.features.mean(dim=0).norm() / centred.square().sum(dim=1).mean().sqrt())


def duality_of_grams(cloud: Cloud) -> float:
    """Zero for a head that is not dual: it does not see W turned against the means."""
    w, mc = cloud.weight @ cloud.weight.T, _centred(cloud) @ _centred(cloud).T
    return float((w / w.norm() - mc / mc.norm()).norm())


def every_direction(cloud: Cloud) -> float:
    """Papyan's NC1 with the direction kept whose singular value is rounding."""
    moments = moments_of(cloud)
    _, singular, right = torch.linalg.svd(moments.centred_means(), full_matrices=False)
    return float((((right @ moments.within_covariance()) * right).sum(dim=1) / singular.square()).sum())


def uncentred_between(cloud: Cloud) -> float:
    """Tr Sigma_W / Tr Sigma_B with Sigma_B about zero."""
    moments = moments_of(cloud)
    return float(moments.within.sum() / moments.counts.sum() / moments.means.square().sum(dim=1).mean())


def no_bias(cloud: Cloud) -> float:
    """NC4 from W h."""
    return nearest_mean_agreement(cloud.features, cloud.weight, None, _means(cloud))


def nearest_class_accuracy(cloud: Cloud) -> float:
    """NC4 taken for the accuracy of the nearest class mean."""
    return float((torch.cdist(cloud.features, _means(cloud)).argmin(dim=1) == cloud.labels).double().mean())


def mean_over_batches(cloud: Cloud) -> float:
    """The loss averaged over batches, whatever their sizes."""
    losses = [
        torch.nn.functional.cross_entropy(torch.nn.functional.linear(h, cloud.weight, cloud.bias), labels)
        for h, labels in cloud.batches
        if len(labels)
    ]
    return float(sum(losses) / len(losses))


def largest_other_logit(cloud: Cloud) -> float:
    """The margin, under the name of the logit gap."""
    logits = torch.nn.functional.linear(cloud.features, cloud.weight, cloud.bias)
    own = logits.gather(1, cloud.labels[:, None])
    rest = logits.scatter(1, cloud.labels[:, None], -math.inf)
    return float((own.squeeze(1) - rest.max(dim=1).values).mean())


def surrogate_for_kappa(cloud: Cloud) -> float:
    """What published code logs as relative flatness."""
    return measured(cloud)["frobenius_surrogate"]


def kappa_of_centred_features(cloud: Cloud) -> float:
    """kappa with the features' mean taken out of the squared norm."""
    centred = replace(cloud, features=cloud.features - cloud.features.mean(dim=0))
    bias = cloud.bias + cloud.weight @ cloud.features.mean(dim=0)
    return float(relative_flatness(centred.features, cloud.weight, bias))


@dataclass(frozen=True)
class Wrong:
    """A wrong metric and what refutes it: a law, "definition" or "collapse"."""

    metric: Metric
    refuted_by: str


def _wrong(value: Value, like: str, refuted_by: str) -> Wrong:
    return Wrong(row(value.__name__, value, like), refuted_by)


always_collapsed = row("always_collapsed", lambda cloud: 0.0, "nc1_papyan")
one_pass = row("one_pass_variance", one_pass_variance, "cdnv")
WRONG = (
    _wrong(sum_over_unordered_pairs, "cdnv", "definition"),
    _wrong(variance_with_correction, "within_class_variance", "repeat"),
    _wrong(weighted_classes, "within_class_variance", "repeat_class"),
    _wrong(largest_norm_for_mean_norm, "rnc1_mean", "definition"),
    _wrong(std_with_correction, "nc2_equinorm", "definition"),
    _wrong(uncentred_angles, "nc2_equiangle", "translate"),
    _wrong(uncentred_angles, "nc2_equiangle", "collapse"),
    _wrong(largest_angle, "nc2_equiangle", "definition"),
    _wrong(mean_of_samples, "global_mean_ratio", "repeat_class"),
    _wrong(duality_of_grams, "nc3_duality", "definition"),
    _wrong(every_direction, "nc1_papyan", "definition"),
    _wrong(uncentred_between, "nc1_trace_ratio", "translate"),
    _wrong(no_bias, "nc4", "translate"),
    _wrong(nearest_class_accuracy, "nc4", "definition"),
    _wrong(mean_over_batches, "loss", "split"),
    _wrong(largest_other_logit, "logit_gap", "definition"),
    _wrong(surrogate_for_kappa, "kappa", "shift_rows"),
    _wrong(surrogate_for_kappa, "kappa", "collapse"),
    _wrong(kappa_of_centred_features, "kappa", "definition"),
    _wrong(kappa_of_centred_features, "kappa", "collapse"),
)
