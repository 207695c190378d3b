"""Neural-collapse metrics of class moments: NC1 to NC3, RNC1, CDNV and the angles between class means.

Notation: mu_c the class means, mu_G their mean, Mc the K x m matrix of mu_c - mu_G, Sigma_W the mean over
samples of the within-class scatter, Sigma_B = Mc^T Mc / K. Features are raw, from a model in eval mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import coincide, squared_distances
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
        nc2_equiangle: mean over pairs of ``|cos + 1/(K-1)|``.
        nc2_etf: ``|| Mc Mc^T / ||Mc Mc^T||_F - (I - 11^T/K) / sqrt(K-1) ||_F``.
        nc3_duality: ``|| W/||W||_F - Mc/||Mc||_F ||_F``.
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


@dataclass(frozen=True)
class LayerReport(CollapseReport):
    """The collapse metrics of one layer's outputs, and two that look at the class means of a reference.

    Fields:
        variance_ratio: paper C's V, mean over samples of ||h - mu_y||^2 over the mean over classes of
            ||mu_c - mu_G||^2, with the reference's means; without one with the samples' own, where it is
            ``nc1_trace_ratio``.
        nearest_mean_accuracy: share of samples whose nearest class mean of the reference is that of their label; NaN
            without one.
        nc3_duality: NaN, as only the head has a dual.
    """

    variance_ratio: float = NAN
    nearest_mean_accuracy: float = NAN


METRICS = tuple(name for name in CollapseReport.__dataclass_fields__ if name != "reasons")
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

    Raises:
        ValueError: a weight whose shape does not fit the moments.
    """
    if moments.absent:
        shown = ", ".join(map(str, moments.absent[:5])) + (", ..." if len(moments.absent) > 5 else "")
        reason = f"no samples of class {shown}"
        return CollapseReport(**dict.fromkeys(METRICS, NAN), reasons=dict.fromkeys(METRICS, reason))
    num_classes = moments.num_classes
    if weight is not None and weight.shape != (num_classes, moments.num_features):
        wanted = (num_classes, moments.num_features)
        raise ValueError(f"the weight must be {wanted} as the moments are, got {tuple(weight.shape)}")
    values: dict[str, float] = dict.fromkeys(METRICS, NAN)
    reasons: dict[str, str] = {}

    centred, means, within = moments.centred_means(), moments.means, moments.within
    variances = within / moments.counts
    trace_within = float(within.sum() / moments.counts.sum())
    trace_between = float(centred.square().sum() / num_classes)
    norm_mean = float(moments.norm_sum / moments.counts.sum())
    norm_sup = float(moments.norm_max)
    values["within_class_variance"] = float(variances.mean())
    if norm_sup**2 > 0:
        values["rnc1_sup"] = trace_within / norm_sup**2
        values["rnc1_mean"] = trace_within / norm_mean**2
    else:
        reasons |= dict.fromkeys(("rnc1_sup", "rnc1_mean"), "all features are zero, or their squares are")

    distances = squared_distances(centred)
    pairs = num_classes * (num_classes - 1)
    # What the rounding of the features leaves between two means that are equal.
    floor = (8 * torch.finfo(torch.float64).eps * max(float(means.norm(dim=1).max()), norm_mean)) ** 2
    values["squared_mean_distance"] = float(distances.sum()) / pairs
    if float(distances.fill_diagonal_(math.inf).min()) > floor:
        # Over ordered pairs the sum of (V_c + V_c') / (2 d^2) is the sum of V_c / d^2.
        values["cdnv"] = float(torch.dot(variances, distances.reciprocal_().sum(dim=1))) / pairs
    else:
        reasons["cdnv"] = "two class means coincide"

    if not coincide(means, norm_mean):
        values["nc1_trace_ratio"] = trace_within / trace_between
        if moments.scatter == "trace":
            reasons["nc1_papyan"] = "moments with scatter='trace' keep no scatter matrix"
        else:
            values["nc1_papyan"] = _papyan(moments.within_covariance(), centred)
        values["global_mean_ratio"] = float(means.mean(dim=0).norm()) / math.sqrt(trace_between)
        norms = centred.norm(dim=1)
        values["nc2_equinorm"] = float(norms.std(correction=0) / norms.mean())
        _simplex_metrics(centred, weight, values, reasons)
    else:
        lost = ("nc1_trace_ratio", "nc1_papyan", "global_mean_ratio", "nc2_equinorm", *_NEED_SIMPLEX)
        reasons |= dict.fromkeys(lost, "all class means coincide")
    return CollapseReport(**values, reasons=reasons)


@torch.no_grad()
def class_mean_cosines(moments: ClassMoments) -> Float[Tensor, " pairs"]:
    """Cosines of the centred class means, float64, pairs (c, c') with c < c' row by row.

    At a simplex each is -1/(K-1). All are NaN where a class is absent, a mean equals the global mean or all coincide.
    """
    count, means = moments.num_classes, moments.means
    rows, columns = torch.triu_indices(count, count, 1, device=means.device)
    if moments.absent or coincide(means, float(moments.norm_sum) / max(moments.total, 1)):
        return torch.full((len(rows),), NAN, dtype=torch.float64, device=means.device)
    unit = torch.nn.functional.normalize(moments.centred_means(), dim=1, eps=0.0)
    return (
        (unit @ unit.T)[rows, columns] if bool(unit.isfinite().all()) else torch.full_like(rows, NAN, dtype=unit.dtype)
    )


def _simplex_metrics(centred: Tensor, weight: Tensor | None, values: dict[str, float], reasons: dict[str, str]) -> None:
    num_classes, num_features = centred.shape
    if num_features < num_classes - 1:
        reason = f"{num_features} features hold no simplex of {num_classes} classes"
        reasons |= dict.fromkeys(_NEED_SIMPLEX, reason)
        return
    # Of norm 1, so that no product over- or underflows.
    unit = centred / centred.norm()
    gram = unit @ unit.T
    simplex = torch.eye(num_classes, dtype=gram.dtype, device=gram.device) - 1 / num_classes
    values["nc2_etf"] = float((gram / gram.norm() - simplex / math.sqrt(num_classes - 1)).norm())
    norms = unit.norm(dim=1)
    if float(norms.min()) > 0:
        cosines = (gram / (norms[:, None] * norms[None, :]))[_pair_mask(num_classes, gram.device)]
        values["nc2_equiangle"] = float((cosines + 1 / (num_classes - 1)).abs().mean())
    else:
        reasons["nc2_equiangle"] = "a class mean equals the global mean"
    largest = 0.0 if weight is None else float(weight.abs().max())
    if weight is None:
        reasons["nc3_duality"] = "no head weight given"
    elif not math.isfinite(largest):
        reasons["nc3_duality"] = "the head's weight holds NaN or infinity"
    elif largest == 0:
        reasons["nc3_duality"] = "the head's weight is zero"
    else:
        head = weight.to(centred) / largest
        values["nc3_duality"] = float((head / head.norm() - unit).norm())


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
    along = ((right @ within) * right).sum(dim=1).clamp_min(0)
    return float((along[keep] / sizes[keep].square()).sum())


def _pair_mask(num_classes: int, device: torch.device) -> Tensor:
    return ~torch.eye(num_classes, dtype=torch.bool, device=device)
