"""What collapse allows on data it was not trained for: the test variance that errors cost, the ceiling of transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Integer, Real
from torch import Tensor

from grokcore.distances import coincide, squared_distances
from grokcore.errors import NonFiniteError, UsageError

NAN = float("nan")
_LARGEST = 1e150  # the squares of larger vertices are not finite


@dataclass(frozen=True)
class VarianceFloor:
    """Within-class variances of features that take vertex values only (weak collapse), in squared feature units.

    From the most that is known to the least; each is at most the one before. A ratio is that number divided by
    `spread`, and can be subtracted from the ``Report.variance_ratio`` that `about` and `spread_of` were chosen for.

    Fields:
        confusion: what such features have, exactly; NaN where error rates alone are known.
        error_rates: the least that these error rates allow: every error on the vertex nearest to its class's.
        least_distance: the same with the least distance D of all pairs of vertices for each class's own.
        spread: mean over classes of the squared distance of the reference's class means from their mean; 0 where they
            coincide.
    """

    confusion: float
    error_rates: float
    least_distance: float
    spread: float

    @property
    def confusion_ratio(self) -> float:
        """``confusion / spread``; NaN without spread."""
        return self.confusion / (self.spread or NAN)

    @property
    def error_rates_ratio(self) -> float:
        """``error_rates / spread``; NaN without spread."""
        return self.error_rates / (self.spread or NAN)

    @property
    def least_distance_ratio(self) -> float:
        """``least_distance / spread``; NaN without spread."""
        return self.least_distance / (self.spread or NAN)


@torch.no_grad()
def variance_floor(
    confusion: Real[Tensor, "K K"] | Real[Tensor, " K"],
    vertices: Real[Tensor, "K m"],
    shares: Real[Tensor, " K"] | None = None,
    *,
    about: Literal["class_means", "vertices"] = "class_means",
    spread_of: Real[Tensor, "K m"] | None = None,
) -> VarianceFloor:
    """The variance that errors alone give to test features on the vertices that training collapsed to.

    Class c, of share P(c), lands on vertex v_j at the rate q_cj, e_c = 1 - q_cc, d_c = min_j ||v_j - v_c||:

        about its own mean:    sum_c P(c) sum_{j<k} q_cj q_ck ||v_j - v_k||^2  >=  sum_c P(c) e_c (1 - e_c) d_c^2,
        about its own vertex:  sum_c P(c) sum_j q_cj ||v_j - v_c||^2           >=  sum_c P(c) e_c d_c^2.

    Features that are not on the vertices can have less. About the class means: as little as one likes where regions of
    nearest vertices meet, as all do at a simplex. About the vertices: no less than a quarter of ``confusion`` where the
    rates are those of the nearest vertex (theory F1').

    Args:
        confusion: (K, K) with a row for each class of the data and a column for each vertex: counts, joint
            probabilities, or with `shares` rates. Or (K,): the error rates e_c, with `shares`. The rates are those of
            the vertex that a feature is at or nearest to (:func:`grokcore.agreement.nearest_mean`), which are those of
            the head only where NC4 holds.
        vertices: (K, m) class means of the training features, raw.
        shares: (K,) of the classes, P(c) or counts; by default the row sums of `confusion`. A class of share 0 adds
            nothing, as it adds nothing to a variance over samples.
        about: "class_means", to go with a ``variance_ratio`` about the test data's own means, or "vertices", to go
            with one whose reference is the training data.
        spread_of: (K, m) class means whose spread divides; by default the vertices, as in a ``variance_ratio`` with
            the training data as reference, which goes with about="vertices". For one without a reference, which goes
            with about="class_means", give the test data's class means.

    Returns:
        VarianceFloor, computed in float64; a mean over the samples of all classes.

    Raises:
        UsageError: shapes that do not fit, negative numbers, rates above 1, error rates without shares, no sample at
            all, or a row without a sample whose share is positive.
        NonFiniteError: NaN, infinity, or vertices above 1e150.

    Source: "Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022), of whose V this
    is the floor; theory F2.
    """
    K = len(vertices) if vertices.ndim == 2 else 0
    if K < 2 or confusion.shape not in ((K, K), (K,)):
        raise UsageError(
            "vertices must be (K, m), K >= 2, with a confusion (K, K) or error rates (K,), got "
            f"{tuple(vertices.shape)} and {tuple(confusion.shape)}"
        )
    if about not in ("class_means", "vertices"):
        raise UsageError(f"about must be 'class_means' or 'vertices', got {about!r}")
    if shares is not None and shares.shape != (K,):
        raise UsageError(f"shares must be ({K},), got {tuple(shares.shape)}")
    means = vertices if spread_of is None else spread_of
    if means.shape != vertices.shape:
        raise UsageError(f"spread_of must be {tuple(vertices.shape)} as the vertices are, got {tuple(means.shape)}")
    points, means, counts = vertices.double(), means.to(vertices.device).double(), _masses(confusion, "confusion")
    if not all(bool((p.abs() <= _LARGEST).all()) for p in (points, means)):
        raise NonFiniteError(f"the class means hold NaN, infinity or numbers above {_LARGEST:g}")
    counts = counts.to(points.device)
    if counts.ndim == 1:
        if shares is None:
            raise UsageError("error rates need the shares of the classes")
        if float(counts.max()) > 1:
            raise UsageError(f"an error rate is at most 1, got {float(counts.max()):g}")
    weights = _scaled(counts).sum(dim=-1) if shares is None else _scaled(_masses(shares, "shares")).to(points.device)
    _require_some(weights, "classes")
    weights = weights / weights.sum()

    squares = squared_distances(points)
    # Of a class's own vertex, which is no error, the distance to itself must not be the least.
    others = squares + torch.diag(torch.full_like(weights, torch.inf))
    hits, errors = (None, counts) if counts.ndim == 1 else _rates(counts, weights)
    right = 1 - errors if hits is None else hits.diagonal()
    factor = errors * right if about == "class_means" else errors
    known = torch.tensor(NAN)
    if hits is not None and about == "class_means":
        known = (weights * ((hits @ squares) * hits).sum(dim=1)).sum() / 2
    elif hits is not None:
        known = (weights * (hits * squares).sum(dim=1)).sum()
    together = coincide(means, float(means.norm(dim=1).mean()))
    return VarianceFloor(
        confusion=float(known),
        error_rates=float((weights * factor * others.min(dim=1).values).sum()),
        least_distance=float((weights * factor).sum() * others.min()),
        spread=0.0 if together else float((means - means.mean(dim=0)).square().sum(dim=1).mean()),
    )


@torch.no_grad()
def transfer_ceiling(
    fine_shares: Sequence[float | int] | Real[Tensor, " F"],
    super_of_fine: Sequence[int] | Integer[Tensor, " F"] | Real[Tensor, "F S"],
) -> float:
    """The highest accuracy on fine classes that any head reaches on features collapsed onto super-classes.

        sum_s max_y P(y, s)  =  sum_s max_{y in s} P(y)  where each fine class y lies in one super-class s.

    It holds for every head, linear or not, randomised or not, that sees the features alone. Where the super-classes'
    vertices are distinct one attains it: a linear one where each fine class lies in one super-class; with rates, where
    no fine class is the most frequent at two vertices, or where the vertices are affinely independent, as a simplex is.
    Balanced fine classes, each in one super-class, give the number of super-classes over that of fine ones. It needs
    exact collapse: features that tell the fine classes apart by any distance, however small, have no ceiling.

    Args:
        fine_shares: (F,) shares P(y) or counts of the fine classes.
        super_of_fine: (F,) the super-class of each fine class, any integers. Or (F, S): how often each fine class lands
            on each vertex, rates or counts (the rows are divided by their sums), for features that are on the
            super-classes' vertices and sometimes on a wrong one.

    Returns:
        A share of samples in [0, 1], of those with these shares: counts of a sample give that sample's ceiling.

    Raises:
        UsageError: shapes that do not fit, negative numbers, no share at all, super-classes that are not integers, or a
            row without a count whose share is positive.
        NonFiniteError: NaN or infinity.

    Source: "Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022), its transfer
    experiment; theory F3.
    """
    # A list of numbers would become float32.
    given = fine_shares if isinstance(fine_shares, Tensor) else torch.tensor(fine_shares, dtype=torch.float64)
    masses, of_fine = _scaled(_masses(given, "fine shares")), torch.as_tensor(super_of_fine)
    if masses.ndim != 1 or of_fine.ndim not in (1, 2) or len(of_fine) != len(masses):
        raise UsageError(
            "fine shares (F,) need their super-classes (F,) or their rates (F, S), got "
            f"{tuple(masses.shape)} and {tuple(of_fine.shape)}"
        )
    _require_some(masses, "fine classes")
    of_fine = of_fine.to(masses.device)
    if of_fine.ndim == 2:
        joint = masses[:, None] * _normalised(_masses(of_fine, "rates"), masses)
    else:
        if of_fine.is_floating_point() or of_fine.is_complex() or of_fine.dtype == torch.bool:
            raise UsageError(f"super-classes must be integers, got {of_fine.dtype}")
        _, index = torch.unique(of_fine, return_inverse=True)
        joint = masses.new_zeros(len(masses), int(index.max()) + 1).scatter_(1, index[:, None], masses[:, None])
    return min(1.0, float(joint.max(dim=0).values.sum() / masses.sum()))


def _masses(values: Tensor, what: str) -> Tensor:
    if values.is_complex():
        raise UsageError(f"the {what} must be real numbers")
    wide = values.double()
    if not bool(wide.isfinite().all()):
        raise NonFiniteError(f"the {what} hold NaN or infinity")
    if bool((wide < 0).any()):
        raise UsageError(f"the {what} must not be negative, got {float(wide.min()):g}")
    return wide


def _require_some(masses: Tensor, what: str) -> None:
    if float(masses.sum()) <= 0:
        raise UsageError(f"the {what} have no share at all")


def _normalised(counts: Tensor, masses: Tensor) -> Tensor:
    empty = torch.nonzero((counts == 0).all(dim=1) & (masses > 0)).flatten()
    if len(empty):
        raise UsageError(f"class {int(empty[0])} has a share and no counts")
    largest = counts.amax(dim=1, keepdim=True)
    rows = counts / torch.where(largest > 0, largest, 1.0)
    return rows / rows.sum(dim=1, keepdim=True).clamp_min(1)  # a row without counts stays 0


def _scaled(masses: Tensor) -> Tensor:
    """Divided by the largest, so that sums neither overflow nor fall below the normal numbers."""
    return masses / masses.max() if bool((masses > 0).any()) else masses


def _rates(counts: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Rates and error rates, each error summed: 1 - q_cc would lose the digits of a few errors among many."""
    hits = _normalised(counts, weights)
    return hits, (hits - torch.diag(hits.diagonal())).sum(dim=1)
