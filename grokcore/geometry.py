"""ClassMoments: class means and within-class scatter of features, streaming and mergeable.

Every sample enters as its float64 difference from a reference of its class, at first the class's first sample, and
sums of differences and of their products are kept. A large common offset is gone before anything is squared, exact
collapse gives exact zeros, one reading of the features is enough, and the memory does not grow with their number. Each
time there are eight times as many samples the references move to the means (Chan, Golub and LeVeque 1983), so that an
outlier that came first costs no digits later.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from grokcore.errors import NonFiniteError

Scatter = Literal["pooled", "per_class", "trace"]
_SHAPES = {"pooled": "mm", "per_class": "Kmm", "trace": ""}
_BLOCK = 64  # columns of a product at once: of a symmetric product little more than half is computed
_CACHE, _LAUNCH = 2**19, 2**24  # numbers converted at once: 4 MB stay in a CPU's cache, a GPU wants more
_FEW = 64  # classes whose means are taken by products
_LEAST = 256  # rows; products of fewer are slow
_LARGEST = 1e150
_GROWN = 8  # times as many samples before references move: an outlier among the first costs 3 bits at most


class ClassMoments:
    """Counts, means and centred scatters of n features in R^m over K classes.

    Args:
        num_classes: K.
        num_features: m.
        scatter: ``"pooled"`` keeps one m x m within-class scatter, ``"per_class"`` one for each class (K m^2 numbers),
            ``"trace"`` none (2 K m numbers; ``nc1_papyan`` needs one of the others).

    Attributes (float64, on the device of the first batch):
        counts: (K,) samples seen of each class.
        means: (K, m) class means; zero for a class not seen.
        within: (K,) sum over the class of ||h - mu_c||^2.
        scatter_sum: (m, m) or (K, m, m), sum of (h - mu_c)(h - mu_c)^T; not divided by anything.
        norm_sum, norm_max: sum and maximum over samples of the uncentred ||h||.
    """

    # Tensors of inference mode could not be updated outside it.
    @torch.inference_mode(mode=False)
    def __init__(self, num_classes: int, num_features: int, *, scatter: Scatter = "pooled") -> None:
        if num_classes < 2 or num_features < 1:
            raise ValueError(f"need at least 2 classes and 1 feature, got {num_classes}, {num_features}")
        if scatter not in _SHAPES:
            raise ValueError(f"scatter must be one of {', '.join(map(repr, _SHAPES))}, got {scatter!r}")
        self.num_classes, self.num_features, self.scatter = num_classes, num_features, scatter
        size = {"K": num_classes, "m": num_features}
        self.counts = torch.zeros(num_classes, dtype=torch.float64)
        # Of the differences d = h - reference: sums of d, ||d||^2 and d d^T (of the last, the upper blocks only).
        self._reference = torch.zeros(num_classes, num_features, dtype=torch.float64)
        self._sums = torch.zeros_like(self._reference)
        self._squares = torch.zeros_like(self.counts)
        shape = [size[letter] for letter in _SHAPES[scatter]]
        self._products = torch.zeros(shape, dtype=torch.float64) if shape else None
        self.norm_sum = torch.zeros((), dtype=torch.float64)
        self.norm_max = torch.zeros((), dtype=torch.float64)
        self._seen, self._centred_at = 0, num_classes  # samples, and how many when the references last moved

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def update(self, features: Float[Tensor, "n m"], labels: Integer[Tensor, " n"]) -> ClassMoments:
        """Add a batch: features (n, m) of any float dtype, labels (n,) in [0, K). Returns self.

        The batch is converted to float64 piece by piece: beside it a few MB are needed, however long it is.

        Raises:
            ValueError: wrong shapes or dtypes, or a label outside [0, K).
            NonFiniteError: NaN or infinity among the features; the moments are left as they were.
        """
        if not features.is_floating_point() or labels.is_floating_point():
            raise ValueError(f"features must be floating, labels integers, got {features.dtype} and {labels.dtype}")
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features must be (n, {self.num_features}), got {tuple(features.shape)}")
        if labels.shape != features.shape[:1]:
            raise ValueError(f"labels must be ({features.shape[0]},), got {tuple(labels.shape)}")
        if labels.numel() == 0:
            return self
        features, labels = features.detach(), labels.to(features.device).long()
        low, high = (int(bound) for bound in torch.aminmax(labels))
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"labels lie in [{low}, {high}], outside [0, {self.num_classes})")
        rows = max(_LEAST, (_CACHE if features.device.type == "cpu" else _LAUNCH) // self.num_features)
        # Not finite where a feature is not; a sum that overflows is no proof.
        if not bool(torch.isfinite(features.sum())) and not bool(torch.isfinite(features).all()):
            raise NonFiniteError("the features hold NaN or infinity")
        if features.dtype is torch.float64 and float(features.abs().max()) > _LARGEST:
            raise NonFiniteError(f"the features exceed {_LARGEST:g}: their squares are not finite")
        self._to(features.device)
        # Room for a piece, made once: fresh memory costs more than the arithmetic on it.
        shape = (min(rows, len(labels)), self.num_features)
        room = torch.empty(shape, dtype=torch.float64, device=features.device)
        for start, stop in pairwise(_piece_ends(len(labels), self._seen, self.num_classes, rows)):
            own = labels[start:stop]
            wide = room[: len(own)].copy_(features[start:stop])
            self._refer(wide, own)
            norms = _row_norms(wide)
            self.norm_sum = self.norm_sum + norms.sum()
            self.norm_max = torch.maximum(self.norm_max, norms.max())
            self._add(wide, own)
        return self

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def merge(self, other: ClassMoments) -> ClassMoments:
        """Add the samples that `other` has seen, as if they had come here. Returns self; `other` stays as it is."""
        if not isinstance(other, ClassMoments):
            raise TypeError(f"only ClassMoments can be merged, not {type(other).__name__}")
        if (self.num_classes, self.num_features, self.scatter) != (
            other.num_classes,
            other.num_features,
            other.scatter,
        ):
            raise ValueError("only moments of the same classes, features and scatter can be merged")
        self._to(other.counts.device)
        reference = torch.where((self.counts == 0)[:, None], other._reference, self._reference)
        shift = (other._reference - reference) * (other.counts > 0)[:, None]
        sums, squares, products = other._moved(shift)
        self._reference = reference
        self._sums, self._squares = self._sums + sums, self._squares + squares
        if self._products is not None and products is not None:
            self._products = self._products + products
        self.norm_sum = self.norm_sum + other.norm_sum
        self.norm_max = torch.maximum(self.norm_max, other.norm_max)
        self.counts = self.counts + other.counts
        self._seen += other._seen
        return self

    @property
    def means(self) -> Float[Tensor, "K m"]:
        """Class means."""
        return self._reference + self._from_reference()

    @property
    def within(self) -> Float[Tensor, " K"]:
        """Sum over each class of ||h - mu_c||^2."""
        return (self._squares - (self._sums * self._from_reference()).sum(dim=1)).clamp_min(0)

    @property
    def scatter_sum(self) -> Float[Tensor, ...]:
        """Sum of (h - mu_c)(h - mu_c)^T, over all samples (m, m) or class by class (K, m, m).

        Raises:
            ValueError: moments with ``scatter="trace"``, which keep none.
        """
        if self._products is None:
            raise ValueError("moments with scatter='trace' keep no scatter matrix")
        upper = self._products.triu()
        whole = upper + upper.triu(1).mT
        if self.scatter == "pooled":
            return whole - self._sums.T @ self._from_reference()
        return whole - self._sums[:, :, None] * self._from_reference()[:, None, :]

    @property
    def total(self) -> int:
        """Number of samples seen."""
        return self._seen

    @property
    def absent(self) -> list[int]:
        """Classes without a sample."""
        return [int(c) for c in torch.nonzero(self.counts == 0).flatten()]

    def within_covariance(self) -> Float[Tensor, "m m"]:
        """Sigma_W: mean over samples of (h - mu_y)(h - mu_y)^T; ValueError with ``scatter="trace"``."""
        summed = self.scatter_sum if self.scatter != "per_class" else self.scatter_sum.sum(dim=0)
        return summed / self.counts.sum()

    def centred_means(self) -> Float[Tensor, "K m"]:
        """Mc: class means minus the global mean, which is the mean of the class means."""
        # The large common part goes first: what is left keeps its digits.
        apart = self._reference - self._reference[0] + self._from_reference()
        return apart - apart.mean(dim=0)

    def _from_reference(self) -> Tensor:
        return self._sums / self.counts.clamp_min(1)[:, None]

    def _moved(self, shift: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sums, squares and products of d + shift, the shift (K, m) one for each class."""
        added = self.counts[:, None] * shift
        halfway = self._sums + added / 2
        squares = self._squares + 2 * (shift * halfway).sum(dim=1)
        if self._products is None:
            return self._sums + added, squares, None
        cross = shift.T @ halfway if self.scatter == "pooled" else shift[:, :, None] * halfway[:, None, :]
        return self._sums + added, squares, self._products + cross + cross.mT

    def _refer(self, features: Tensor, labels: Tensor) -> None:
        """The first sample of a class becomes its reference; once there are many more, their mean does."""
        if self._seen >= _GROWN * self._centred_at:
            moved = self.means
            self._sums, self._squares, self._products = self._moved(self._reference - moved)
            self._reference, self._centred_at = moved, self._seen
        if bool((self.counts > 0).all()):
            return
        n = len(labels)
        order = torch.arange(n, device=labels.device)
        first = torch.full_like(self.counts, n, dtype=torch.long).scatter_reduce(0, labels, order, "amin")
        new = torch.nonzero((self.counts == 0) & (first < n)).flatten()
        self._reference[new] = features[first[new]]

    def _add(self, features: Tensor, labels: Tensor) -> None:
        """Add float64 features, which become their differences from the references."""
        self.counts += torch.bincount(labels, minlength=self.num_classes)
        self._seen += len(labels)
        if self.num_classes <= _FEW:
            own = features.new_zeros(len(labels), self.num_classes).scatter_(1, labels[:, None], 1.0)
            # Products with zeros and ones are exact, and need no copy of the references.
            differences = features.addmm_(own, self._reference, alpha=-1)
            self._sums.addmm_(own.T, differences)
        else:
            differences = features.sub_(self._reference.index_select(0, labels))
            self._sums.index_add_(0, labels, differences)
        self._squares.index_add_(0, labels, _row_norms(differences).square())
        if self._products is None:
            return
        if self.scatter == "pooled":
            _add_upper(self._products, differences)
            return
        for c in torch.unique(labels).tolist():
            _add_upper(self._products[c], differences[labels == c])

    def _to(self, device: torch.device) -> None:
        if self.counts.device != device:
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value.to(device))


def _piece_ends(samples: int, seen: int, classes: int, rows: int) -> list[int]:
    """Where pieces of so many samples begin and end: of `rows` each, but none so long that after it there are more than
    _GROWN times as many samples as before, as between pieces alone the references can move."""
    ends = [0]
    while ends[-1] < samples:
        before = seen + ends[-1]
        longest = (_GROWN - 1) * before if before >= classes else _GROWN * classes - before
        ends.append(min(samples, ends[-1] + min(rows, longest)))
    return ends


def _row_norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _add_upper(products: Tensor, rows: Tensor) -> None:
    """Add the blocks of rows^T rows on and above the diagonal."""
    for start in range(0, rows.shape[1], _BLOCK):
        products[start : start + _BLOCK, start:].addmm_(rows[:, start : start + _BLOCK].T, rows[:, start:])
