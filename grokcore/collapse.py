"""Neural-collapse metrics: NC1 to NC4, RNC1, CDNV and the angles between class means.

Notation: mu_c the class means, mu_G their mean, Mc the K x m matrix of mu_c - mu_G, Sigma_W the mean over
samples of the within-class scatter, Sigma_B = Mc^T Mc / K. Features are raw, from a model in eval mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.distances import coincide, squared_distances
from grokcore.errors import NonFiniteError
from grokcore.geometry import ClassMoments

NAN = float("nan")


@dataclass(frozen=True)
class CollapseReport:
    """Every collapse metric of one set of features, in float64.

    A metric that the features do not define is NaN, and ``reasons`` says why under the metric's name.

    Fields:
        nc1_papyan: Tr(Sigma_W Sigma_B^+) / K (Papyan, Han, Donoho 2020); the pseudo-inverse keeps
            the at most K - 1 directions whose singular value exceeds eps max(K, m) times the largest.
        nc1_trace_ratio: Tr Sigma_W / Tr Sigma_B.
        rnc1_sup, rnc1_mean: Tr Sigma_W / B^2, B the largest, the mean uncentred ||h||.
        nc2_equinorm: std / mean of the rows' norms of Mc.
        nc2_equiangle: mean over pairs of |cos + 1/(K-1)|.
        nc2_etf: || Mc Mc^T / ||Mc Mc^T||_F - (I - 11^T/K) / sqrt(K-1) ||_F.
        nc3_duality: || W/||W||_F - Mc/||Mc||_F ||_F.
        cdnv: mean over ordered pairs of (V_c + V_c') / (2 ||mu_c - mu_c'||^2) (Galanti et al. 2022).
        within_class_variance, squared_mean_distance: its parts: mean over classes of V_c, and mean over
            pairs of ||mu_c - mu_c'||^2.
        global_mean_ratio: gamma = ||mu_G|| / root mean square row norm of Mc.
    """

    nc1_papyan: float
    nc1_trace_ratio: float
    rnc1_sup: float
    rnc1_mean: float
    nc2_equinorm: float
    nc2_equiangle: float
    nc2_etf: float
    nc3_duality: float
    cdnv: float
    within_class_variance: float
    squared_mean_distance: float
    global_mean_ratio: float
    reasons: dict[str, str] = field(default_factory=dict)


METRICS = tuple(name for name in CollapseReport.__dataclass_fields__ if name != "reasons")
_CLOSEST = 1e-6
_NEED_SIMPLEX = ("nc2_equiangle", "nc2_etf", "nc3_duality")


@torch.no_grad()
def collapse_report(
    moments: ClassMoments,
    weight: Float[Tensor, "K m"] | None = None,
    bias: Float[Tensor, " K"] | None = None,
) -> CollapseReport:
    """All collapse metrics from class moments.

    Args:
        moments: of the features that enter the head.
        weight: the head's weight (K, m), for ``nc3_duality``; without it that metric is NaN.
        bias: accepted for symmetry with the other functions; no metric here depends on it.

    Returns:
        CollapseReport. With an absent class every metric is NaN; with fewer than K - 1 features, where
        no simplex exists, the simplex metrics are.
    """
    if moments.absent:
        shown = ", ".join(map(str, moments.absent[:5])) + (", ..." if len(moments.absent) > 5 else "")
        reason = f"no samples of class {shown}"
        return CollapseReport(**dict.fromkeys(METRICS, NAN), reasons=dict.fromkeys(METRICS, reason))
    num_classes = moments.num_classes
    values: dict[str, float] = dict.fromkeys(METRICS, NAN)
    reasons: dict[str, str] = {}

    centred = moments.centred_means()
    variances = moments.within / moments.counts
    trace_within = float(moments.within.sum() / moments.counts.sum())
    trace_between = float(centred.square().sum() / num_classes)
    norm_mean = float(moments.norm_sum / moments.counts.sum())
    norm_sup = float(moments.norm_max)
    values["within_class_variance"] = float(variances.mean())
    if norm_sup > 0:
        values["rnc1_sup"] = trace_within / norm_sup**2
        values["rnc1_mean"] = trace_within / norm_mean**2
    else:
        reasons |= dict.fromkeys(("rnc1_sup", "rnc1_mean"), "all features are zero")

    distances = squared_distances(centred)
    pairs = num_classes * (num_classes - 1)
    floor = (8 * torch.finfo(torch.float64).eps) ** 2 * float(moments.means.square().sum(dim=1).max())
    values["squared_mean_distance"] = float(distances.sum()) / pairs
    if float(distances.fill_diagonal_(math.inf).min()) > floor:
        # Over ordered pairs the sum of (V_c + V_c') / (2 d^2) is the sum of V_c / d^2.
        values["cdnv"] = float(torch.dot(variances, distances.reciprocal_().sum(dim=1))) / pairs
    else:
        reasons["cdnv"] = "two class means coincide"

    if not coincide(moments.means):
        values["nc1_trace_ratio"] = trace_within / trace_between
        if moments.scatter == "trace":
            reasons["nc1_papyan"] = "moments with scatter='trace' keep no scatter matrix"
        else:
            values["nc1_papyan"] = _papyan(moments.within_covariance(), centred)
        values["global_mean_ratio"] = float(moments.means.mean(dim=0).norm()) / math.sqrt(trace_between)
        norms = centred.norm(dim=1)
        values["nc2_equinorm"] = float(norms.std(correction=0) / norms.mean())
        _simplex_metrics(centred, weight, values, reasons)
    else:
        lost = ("nc1_trace_ratio", "nc1_papyan", "global_mean_ratio", "nc2_equinorm", *_NEED_SIMPLEX)
        reasons |= dict.fromkeys(lost, "all class means coincide")
    return CollapseReport(**values, reasons=reasons)


def _simplex_metrics(centred: Tensor, weight: Tensor | None, values: dict[str, float], reasons: dict[str, str]) -> None:
    num_classes, num_features = centred.shape
    if num_features < num_classes - 1:
        reason = f"{num_features} features hold no simplex of {num_classes} classes"
        reasons |= dict.fromkeys(_NEED_SIMPLEX, reason)
        return
    gram = centred @ centred.T
    simplex = torch.eye(num_classes, dtype=gram.dtype, device=gram.device) - 1 / num_classes
    values["nc2_etf"] = float((gram / gram.norm() - simplex / math.sqrt(num_classes - 1)).norm())
    norms = centred.norm(dim=1)
    if float(norms.min()) > 0:
        cosines = (gram / (norms[:, None] * norms[None, :]))[_pair_mask(num_classes, gram.device)]
        values["nc2_equiangle"] = float((cosines + 1 / (num_classes - 1)).abs().mean())
    else:
        reasons["nc2_equiangle"] = "a class mean equals the global mean"
    if weight is None:
        reasons["nc3_duality"] = "no head weight given"
    elif not bool(torch.isfinite(weight).all()):
        reasons["nc3_duality"] = "the head's weight holds NaN or infinity"
    elif float(weight.norm()) == 0:
        reasons["nc3_duality"] = "the head's weight is zero"
    else:
        head = weight.to(centred)
        values["nc3_duality"] = float((head / head.norm() - centred / centred.norm()).norm())


def _papyan(within: Tensor, centred: Tensor) -> float:
    """Tr(Sigma_W Sigma_B^+) / K by the SVD of Mc: Sigma_B^+ = K sum_j v_j v_j^T / s_j^2."""
    tolerance, rank = torch.finfo(centred.dtype).eps * max(centred.shape), centred.shape[0] - 1
    if centred.shape[0] > centred.shape[1]:
        # More classes than features: the triangle R of Mc = QR has the same right singular vectors.
        centred = torch.linalg.qr(centred, mode="r")[1]
        inverse, failed = torch.linalg.inv_ex(centred)
        # ||R|| ||R^-1|| bounds the ratio of the singular values: all are kept, and Sigma_B^+ = K R^-1 R^-T.
        if not int(failed) and float(centred.norm() * inverse.norm()) * tolerance < 1:
            return float(((within @ inverse) * inverse).sum())
    _, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    sizes, right = sizes[:rank], right[:rank]
    keep = sizes > tolerance * sizes[0]
    along = ((right @ within) * right).sum(dim=1)
    return float((along[keep] / sizes[keep].square()).sum())


def cdnv(
    features: Float[Tensor, "n m"], labels: Int[Tensor, " n"], num_classes: int | None = None
) -> Float[Tensor, ""]:
    """Class-distance normalised variance of a batch, differentiable (Galanti, Gyorgy, Hutter 2022).

    Mean over the ordered pairs (c, c') of classes present in the batch of
    (V_c + V_c') / (2 ||mu_c - mu_c'||^2), V_c the mean squared distance to the batch's own mean mu_c. With
    n samples a class it saturates near (n - 1)/2 as the true means merge.

    Args:
        features: (n, m); half precision is computed in float32.
        labels: (n,) in [0, num_classes).
        num_classes: K; if not given it is read off the labels, which waits for the device.

    Returns:
        A scalar, 0 with zero gradient where fewer than two classes are present. Two means closer than 1e-6
        of the root mean square distance of the means count as that far apart and get no gradient from
        their distance, so that a batch in which two means coincide gives a large, finite number.
    """
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if labels.numel() else 2
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    labels = labels.long()
    counts = wide.new_zeros(num_classes).index_add_(0, labels, wide.new_ones(len(labels)))
    share = counts.clamp_min(1)
    # A common shift changes nothing and keeps float32 accurate.
    wide = wide - wide.detach().mean(dim=0)
    means = wide.new_zeros(num_classes, wide.shape[1]).index_add(0, labels, wide) / share[:, None]
    squares = (wide - means.index_select(0, labels)).square().sum(dim=1)
    variances = wide.new_zeros(num_classes).index_add(0, labels, squares).double() / share
    # Masks as numbers: boolean broadcasts cost more than everything else here.
    present = (counts > 0).double()
    pairs = torch.outer(present, present) * (1 - torch.eye(num_classes, dtype=torch.float64, device=wide.device))
    distances = squared_distances(means)
    # The floor keeps the value and its gradient finite where two means of the batch coincide.
    floor = _CLOSEST**2 * (distances.detach() * pairs).sum() / pairs.sum().clamp_min(1) + 1e-30
    inverse = pairs / torch.maximum(distances, floor)
    # Over ordered pairs the sum of (V_c + V_c') / (2 d^2) is the sum of V_c / d^2.
    return (torch.dot(variances, inverse.sum(dim=1)) / pairs.sum().clamp_min(1)).to(wide.dtype)


@torch.no_grad()
def nearest_mean_agreement(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None,
    means: Float[Tensor, "K m"],
) -> float:
    """NC4: share of samples on which argmax(W h + b) is the class of the nearest mean.

    Args:
        features: (n, m), n >= 1.
        weight, bias: the head, (K, m) and (K,) or None.
        means: (K, m) class means (train means on test data, as papers do).

    Source: Papyan, Han, Donoho 2020 (NC4).
    """
    if features.shape[0] == 0:
        raise ValueError("the agreement over no samples is undefined")
    if not all(bool(torch.isfinite(x).all()) for x in (features, weight, means)):
        raise NonFiniteError("the features, the head or the means hold NaN or infinity")
    predicted = torch.nn.functional.linear(features, weight, bias).argmax(dim=1)
    return float((predicted == nearest_mean(features, means)).double().mean())


def nearest_mean(features: Float[Tensor, "n m"], means: Float[Tensor, "K m"]) -> Int[Tensor, " n"]:
    """Index of the nearest class mean of each row, in float64."""
    means = means.double()
    # Only differences of the scores count, so the means may be centred and the features need not be.
    centred = means - means.mean(dim=0)
    offset = centred.square().sum(dim=1) / 2 + centred @ means.mean(dim=0)
    return torch.addmm(-offset, features.double(), centred.T).argmax(dim=1)


def _pair_mask(num_classes: int, device: torch.device) -> Tensor:
    return ~torch.eye(num_classes, dtype=torch.bool, device=device)
