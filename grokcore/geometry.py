"""ClassMoments: class means and within-class scatter of features, streaming and mergeable.

Everything is accumulated in float64 by Chan, Golub and LeVeque's pairwise update (1983), batch means
first, so features with a large common offset lose nothing: a one-pass sum of squares would.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.errors import NonFiniteError

Scatter = Literal["pooled", "per_class"]


class ClassMoments:
    """Counts, means and centred scatters of n features in R^m over K classes.

    Args:
        num_classes: K.
        num_features: m.
        scatter: ``"pooled"`` keeps one m x m within-class scatter, ``"per_class"`` one for each class
            (K m^2 numbers).

    Attributes (float64, on the device of the first batch):
        counts: (K,) samples seen of each class.
        means: (K, m) class means; zero for a class not seen.
        within: (K,) sum over the class of ||h - mu_c||^2.
        scatter_sum: (m, m) or (K, m, m), sum of (h - mu_c)(h - mu_c)^T; not divided by anything.
        norm_sum, norm_max: sum and maximum over samples of the uncentred ||h||.
    """

    def __init__(self, num_classes: int, num_features: int, *, scatter: Scatter = "pooled") -> None:
        if num_classes < 2 or num_features < 1:
            raise ValueError(f"need at least 2 classes and 1 feature, got {num_classes}, {num_features}")
        if scatter not in ("pooled", "per_class"):
            raise ValueError(f"scatter must be 'pooled' or 'per_class', got {scatter!r}")
        self.num_classes, self.num_features, self.scatter = num_classes, num_features, scatter
        shape = (num_features, num_features)
        self.counts = torch.zeros(num_classes, dtype=torch.float64)
        self.means = torch.zeros(num_classes, num_features, dtype=torch.float64)
        self.within = torch.zeros(num_classes, dtype=torch.float64)
        self.scatter_sum = torch.zeros(shape if scatter == "pooled" else (num_classes, *shape), dtype=torch.float64)
        self.norm_sum = torch.zeros((), dtype=torch.float64)
        self.norm_max = torch.zeros((), dtype=torch.float64)

    def update(self, features: Float[Tensor, "n m"], labels: Int[Tensor, " n"]) -> ClassMoments:
        """Add a batch: features (n, m) of any float dtype, labels (n,) in [0, K). Returns self.

        A batch of 1,000 to 4,000 rows is fastest: it stays in cache.

        Raises:
            ValueError: wrong shapes, or a label outside [0, K).
            NonFiniteError: NaN or infinity among the features; the moments are left as they were.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features must be (n, {self.num_features}), got {tuple(features.shape)}")
        if labels.shape != features.shape[:1]:
            raise ValueError(f"labels must be ({features.shape[0]},), got {tuple(labels.shape)}")
        if labels.numel() == 0:
            return self
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"labels lie in [{low}, {high}], outside [0, {self.num_classes})")
        return self.merge(self._of_batch(features.detach().to(torch.float64), labels.long()))

    def merge(self, other: ClassMoments) -> ClassMoments:
        """Add the samples that `other` has seen, exactly as if they had come here. Returns self."""
        if (self.num_classes, self.num_features, self.scatter) != (
            other.num_classes,
            other.num_features,
            other.scatter,
        ):
            raise ValueError("only moments of the same classes, features and scatter can be merged")
        self._to(other.counts.device)
        total = self.counts + other.counts
        share = other.counts / total.clamp_min(1)
        delta = other.means - self.means
        moved = self.counts * share  # n_a n_b / (n_a + n_b), class by class
        self.means = self.means + share[:, None] * delta
        self.within = self.within + other.within + moved * delta.square().sum(dim=1)
        if self.scatter == "pooled":
            between = (moved[:, None] * delta).T @ delta
        else:
            between = moved[:, None, None] * delta[:, :, None] * delta[:, None, :]
        self.scatter_sum = self.scatter_sum + other.scatter_sum + between
        self.norm_sum = self.norm_sum + other.norm_sum
        self.norm_max = torch.maximum(self.norm_max, other.norm_max)
        self.counts = total
        return self

    @property
    def total(self) -> int:
        """Number of samples seen."""
        return int(self.counts.sum())

    @property
    def absent(self) -> list[int]:
        """Classes without a sample."""
        return [int(c) for c in torch.nonzero(self.counts == 0).flatten()]

    def within_covariance(self) -> Float[Tensor, "m m"]:
        """Sigma_W: mean over samples of (h - mu_y)(h - mu_y)^T."""
        summed = self.scatter_sum if self.scatter == "pooled" else self.scatter_sum.sum(dim=0)
        return summed / self.counts.sum()

    def centred_means(self) -> Float[Tensor, "K m"]:
        """Mc: class means minus the global mean, which is the mean of the class means."""
        return self.means - self.means.mean(dim=0)

    def _of_batch(self, features: Tensor, labels: Tensor) -> ClassMoments:
        batch = ClassMoments(self.num_classes, self.num_features, scatter=self.scatter)
        batch._to(features.device)
        norms = torch.linalg.vector_norm(features, dim=1)
        # A norm is finite exactly when its row is (float64 squares of float32 data cannot overflow).
        if not bool(torch.isfinite(norms).all()):
            raise NonFiniteError("the features hold NaN or infinity")
        batch.counts = torch.bincount(labels, minlength=self.num_classes).to(torch.float64)
        share = batch.counts.clamp_min(1)[:, None]
        means = torch.zeros_like(batch.means).index_add_(0, labels, features) / share
        centred = features - means.index_select(0, labels)
        # What the rounding of a large mean leaves over; taking it out makes the two passes exact.
        residual = torch.zeros_like(means).index_add_(0, labels, centred) / share
        batch.means = means + residual
        squares = torch.linalg.vector_norm(centred, dim=1).square()
        batch.within = batch.within.index_add_(0, labels, squares)
        batch.within -= batch.counts * residual.square().sum(dim=1)
        if self.scatter == "pooled":
            batch.scatter_sum = centred.T @ centred - (batch.counts[:, None] * residual).T @ residual
        else:
            for c in torch.unique(labels).tolist():
                rows = centred[labels == c] - residual[c]
                batch.scatter_sum[c] = rows.T @ rows
        batch.norm_sum, batch.norm_max = norms.sum(), norms.max()
        return batch

    def _to(self, device: torch.device) -> None:
        if self.counts.device != device:
            for name in ("counts", "means", "within", "scatter_sum", "norm_sum", "norm_max"):
                setattr(self, name, getattr(self, name).to(device))


def squared_distances(rows: Float[Tensor, "K m"]) -> Float[Tensor, "K K"]:
    """||r_s - r_t||^2 of all pairs of rows, in float64, with an exact zero diagonal.

    Without gradients the differences are taken directly: every digit holds however close two rows are.
    With gradients the Gram form of the centred rows is used, several times faster to differentiate; its
    absolute error is of the order 1e-16 times the largest squared norm of a centred row.
    """
    centred = rows.double() - rows.detach().double().mean(dim=0)
    if not (torch.is_grad_enabled() and rows.requires_grad):
        return torch.cdist(centred, centred, compute_mode="donot_use_mm_for_euclid_dist").square()
    norms = centred.square().sum(dim=1)
    distances = (norms[:, None] + norms[None, :] - 2 * centred @ centred.T).clamp_min(0)
    # Rounding on the diagonal would swamp a confident sample's variance, where p_max^2 multiplies it.
    return distances * (1 - torch.eye(len(rows), dtype=torch.float64, device=rows.device))


def coincide(means: Float[Tensor, "K m"]) -> bool:
    """Whether the rows are equal up to the rounding of float64."""
    centred = means - means.mean(dim=0)
    floor = 8 * torch.finfo(torch.float64).eps * float(means.norm())
    return float(centred.norm()) <= floor
