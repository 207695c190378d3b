"""The running sums behind a Report, batch by batch, shared by `measure` and `Monitor`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from grokcore.agreement import nearest_mean
from grokcore.capture import Forward
from grokcore.collapse import CollapseReport, LayerReport, collapse_report
from grokcore.distances import coincide, squared_distances
from grokcore.errors import NonFiniteError, UsageError
from grokcore.flatness import gini_impurity, row_variance
from grokcore.geometry import ClassMoments

KEEP_BYTES = 2**30
"""Features kept for NC4 about the samples' own means, by default."""
WIDEST_SCATTER = 4096
"""More features than this keep no m x m scatter, so nc1_papyan is NaN with its reason."""
CHUNK = 4096
"""Rows taken at once in float64."""


@dataclass(frozen=True)
class HeadMeans:
    """Means over all samples of what the head's input and weight give; units and definitions as in Report."""

    loss: float
    accuracy: float
    kappa: float
    frobenius_surrogate: float
    logit_gap: float


class Accumulator:
    """Sums over the batches of one set of samples, on fixed weights.

    Everything after the head's input is float64; logits are W h + b, whatever the model's output is. Memory
    does not grow with the samples but for the features that NC4 about their own means needs.

    Args:
        head: the linear head; its weight is copied after the first forward pass.
        name: its name, for messages.
        about: moments whose class means NC4 uses; without them the features are kept.
        about_layers: likewise of layers, by name, for their variance ratio and nearest means; None: there are none.
        keep_bytes: how much of them, in their own dtype; beyond it none are.
        classes: the head's first so many rows are the classes; by default all are.
    """

    def __init__(
        self,
        head: nn.Linear,
        name: str,
        *,
        about: ClassMoments | None = None,
        about_layers: Mapping[str, ClassMoments] | None = None,
        keep_bytes: int = KEEP_BYTES,
        classes: int | None = None,
    ) -> None:
        self._head, self._name, self._about, self._room = head, name, about, keep_bytes
        self._about_means = None if about is None else about.means
        rows, self.num_features = head.weight.shape
        self.num_classes = rows if classes is None else classes
        if rows < 2 or not head.weight.is_floating_point():
            raise UsageError(f"the head {name!r} must have 2 or more real outputs, one a class")
        if not 2 <= self.num_classes <= rows:
            raise UsageError(f"classes must lie between 2 and the head's {rows} rows, got {classes}")
        self.moments = moments_for(self.num_classes, self.num_features)
        self.layers: dict[str, ClassMoments] = {}
        self._about_layers = about_layers
        self._nearest: dict[str, int] = {}
        self.batches = 0
        self.overflowed = False
        """Whether the features were more than keep_bytes, so that NC4 about their own means needs them once more."""
        self._agree = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, forward: Forward, labels: Int[Tensor, " n"], number: int | None = None) -> None:
        """Add a batch: what its forward pass left, and its labels (n,), int64.

        Args:
            forward: its forward pass.
            labels: of its samples, at least one.
            number: the batch's, for messages; by default how many were added before.

        Raises:
            UsageError: a label outside [0, K), a weight that changed, or a head whose output is not W h + b.
            NonFiniteError: NaN or infinity in the head, its input or a layer, with the batch's number; the place
                that ran first is named.
        """
        number = self.batches if number is None else number
        features, labels = forward.features, labels.to(forward.features.device)
        if self.batches == 0:
            self._start(features, forward.logits)
        elif not self.weight_is(self._head):
            raise UsageError(f"the weight of the head {self._name!r} changed between batches: measure fixed weights")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise UsageError(
                f"labels lie in [{low}, {high}], outside [0, {self.num_classes}) of the head (batch {number})"
            )
        # Where NaN begins is where it was made: in the order of running the head's input comes before its output.
        early = [name for name in forward.layers if name in forward.before_head]
        self._update_layers(early, forward, labels, number)
        _update(self.moments, features, labels, f"batch {number}, the input of head {self._name!r}")
        self._update_layers([name for name in forward.layers if name not in early], forward, labels, number)
        predicted = []
        for h, y in zip(torch.split(features, CHUNK), torch.split(labels, CHUNK), strict=True):
            wide = h.double()
            logits = torch.nn.functional.linear(wide, self.weight, self.bias)
            classes = logits[:, : self.num_classes]
            predicted.append(classes.argmax(dim=1))
            chosen = predicted[-1] if classes.shape == logits.shape else logits.argmax(dim=1)
            self._sums += _sums(wide, logits, classes, chosen, y, self._distances, self._squared_head)
        self._count_agreement(features, torch.cat(predicted))
        self.batches += 1

    def weight_is(self, head: nn.Linear) -> bool:
        """Whether the head's weight and bias are still those of the first batch, by value."""
        pairs = ((self.weight, head.weight), (self.bias, head.bias))
        return all(a is None or b is None or torch.equal(a, b.detach().to(a)) for a, b in pairs)

    def head_means(self) -> HeadMeans:
        """The sums divided by the number of samples, which must not be 0."""
        return HeadMeans(*(self._sums / self.moments.total).tolist())

    def collapse(self) -> tuple[CollapseReport, dict[str, LayerReport]]:
        """The collapse metrics of the head's input, and of each layer (no head there, so no duality)."""
        layers = {name: self._of_layer(name, moments) for name, moments in self.layers.items()}
        return collapse_report(self.moments, self.weight[: self.num_classes]), layers

    def _of_layer(self, name: str, moments: ClassMoments) -> LayerReport:
        """A layer's metrics; what its reference does not give is NaN with the reason."""
        own, wanted = collapse_report(moments), ("variance_ratio", "nearest_mean_accuracy")
        if self._about_layers is None:
            lost = dict.fromkeys(wanted[1:], "no reference was there when the samples came")
            if math.isnan(own.nc1_trace_ratio):
                lost["variance_ratio"] = own.reasons["nc1_trace_ratio"]
            return LayerReport(**asdict(own) | {"reasons": own.reasons | lost}, variance_ratio=own.nc1_trace_ratio)
        about = self._about_layers.get(name)
        if about is None or about.absent:
            why = f"no samples of class {about.absent[0]} behind" if about else "the reference has no"
            lost = dict.fromkeys(wanted, f"{why} class means of this layer")
            return LayerReport(**asdict(own) | {"reasons": own.reasons | lost})
        ratio, reasons = variance_ratio(moments, about), dict(own.reasons)
        if math.isnan(ratio):
            reasons["variance_ratio"] = "all class means coincide"
        found = {"variance_ratio": ratio, "nearest_mean_accuracy": self._nearest[name] / moments.total}
        return LayerReport(**asdict(own) | {"reasons": reasons} | found)

    def agreement(self, about: ClassMoments) -> float | None:
        """NC4 about the class means of `about`; None where the features were too many to keep."""
        if about is not self._about:
            if self.overflowed:
                return None
            means = about.means.to(self.weight.device)
            self._agree = sum(_agreeing(features, predicted, means) for features, predicted in self._kept)
        return self._agree / self.moments.total

    def _start(self, features: Tensor, logits: Tensor) -> None:
        # Not before the first forward pass: a weight norm's hook brings the weight up to date in it.
        head = self._head
        self.weight = head.weight.detach().to(features.device, torch.float64, copy=True)
        self.bias = None if head.bias is None else head.bias.detach().to(features.device, torch.float64, copy=True)
        if not all(bool(torch.isfinite(p).all()) for p in (self.weight, self.bias) if p is not None):
            raise NonFiniteError(f"the head {self._name!r} holds NaN or infinity")
        self._distances, self._squared_head = squared_distances(self.weight), self.weight.square().sum()
        self._sums = torch.zeros(5, dtype=torch.float64, device=features.device)
        self._refuse_other_map(features, logits)

    def _refuse_other_map(self, features: Tensor, logits: Tensor) -> None:
        """A subclass of Linear may compute something else (cosines, say): what is measured here would not be it."""
        wide = features[:CHUNK].double()
        found = torch.nn.functional.linear(wide, self.weight, self.bias)
        scale = wide.norm(dim=1, keepdim=True) * self.weight.norm(dim=1) + (0 if self.bias is None else self.bias.abs())
        # Half precision, and float32 products on tensor cores, are this rough.
        apart = (found - logits[:CHUNK].double()).abs()
        # Logits that overflow in half precision say nothing.
        if bool((apart > 0.02 * scale).logical_and(apart.isfinite()).any()):
            raise UsageError(
                f"the head {self._name!r} ({type(self._head).__name__}) does not compute W h + b of its input"
            )

    def _update_layers(self, names: list[str], forward: Forward, labels: Tensor, number: int) -> None:
        for name in names:
            output = forward.layers[name]
            moments = self.layers.setdefault(name, moments_for(self.num_classes, output.shape[1]))
            labels = labels.to(output.device)
            _update(moments, output, labels, f"batch {number}, layer {name!r}")
            about = (self._about_layers or {}).get(name)
            if about is None or about.absent:
                continue
            if (about.num_classes, about.num_features) != (moments.num_classes, moments.num_features):
                raise UsageError(
                    f"the reference has {about.num_classes} classes of {about.num_features} features in layer "
                    f"{name!r}, here there are {moments.num_classes} of {moments.num_features}"
                )
            means = about.means.to(output.device)
            self._nearest[name] = self._nearest.get(name, 0) + _agreeing(output, labels, means)

    def _count_agreement(self, features: Tensor, predicted: Tensor) -> None:
        if self._about_means is not None:
            self._agree += _agreeing(features, predicted, self._about_means.to(features.device))
        elif not self.overflowed:
            self._kept.append((features, predicted))
            self._room -= features.nbytes + predicted.nbytes
            if self._room < 0:
                self._kept, self.overflowed = [], True


def moments_for(num_classes: int, num_features: int) -> ClassMoments:
    """Class moments with the m x m scatter that nc1_papyan needs, up to WIDEST_SCATTER features."""
    return ClassMoments(num_classes, num_features, scatter="pooled" if num_features <= WIDEST_SCATTER else "trace")


def variance_ratio(moments: ClassMoments, about: ClassMoments) -> float:
    """Mean ||h - mu_y||^2 over mean ||mu_c - mu_G||^2 with the means of `about`; NaN where those coincide."""
    means = about.means.to(moments.means.device)
    if coincide(means, float(about.norm_sum) / max(about.total, 1)):
        return float("nan")
    # About other means: the scatter about one's own plus the shift of the means.
    shift = (moments.counts * (moments.means - means).square().sum(dim=1)).sum()
    spread = float((moments.within.sum() + shift) / moments.counts.sum())
    return spread / float((means - means.mean(dim=0)).square().sum(dim=1).mean())


def _update(moments: ClassMoments, features: Tensor, labels: Tensor, where: str) -> None:
    try:
        moments.update(features, labels)
    except NonFiniteError as error:
        raise NonFiniteError(f"{error} ({where})") from None


def _agreeing(features: Tensor, predicted: Tensor, means: Tensor) -> int:
    pairs = zip(torch.split(features, CHUNK), torch.split(predicted, CHUNK), strict=True)
    return sum(int((nearest_mean(h, means) == p).sum()) for h, p in pairs)


def _sums(
    wide: Tensor,
    logits: Tensor,
    classes: Tensor,
    predicted: Tensor,
    labels: Tensor,
    distances: Tensor,
    squared_head: Tensor,
) -> Tensor:
    """Sums over the batch in HeadMeans' order; one softmax serves all, and the gap is among the classes' logits."""
    own = classes.gather(1, labels[:, None]).squeeze(1)
    others = (classes.sum(dim=1) - own) / (classes.shape[1] - 1)
    probabilities = torch.softmax(logits, dim=1)
    squared_norms = torch.linalg.vector_norm(wide, dim=1).square()
    return torch.stack(
        [
            _losses(logits, labels).sum(),
            (predicted == labels).double().sum(),
            torch.dot(squared_norms, row_variance(probabilities, distances)),
            torch.dot(squared_norms, gini_impurity(probabilities)) * squared_head,
            (own - others).sum(),
        ]
    )


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample, (n,), to the last digits of a loss that is nearly 0."""
    gaps = logits - logits.gather(1, labels[:, None])
    # The own class is 1 + the sum of the others: logsumexp alone rounds that to 1 from a gap of 37 on.
    others = gaps.exp().scatter(1, labels[:, None], 0.0).sum(dim=1)
    return torch.where(others < 1, others.log1p(), gaps.logsumexp(dim=1))
