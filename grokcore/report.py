"""measure(model, loader, head): every collapse and flatness quantity of a classifier in one call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grokcore.collapse import CollapseReport, collapse_report, nearest_mean
from grokcore.errors import NonFiniteError, without_nan
from grokcore.flatness import gini_impurity, row_variance
from grokcore.geometry import ClassMoments, coincide, squared_distances
from grokcore.heads import HeadInput, find_head


@dataclass(frozen=True)
class Report:
    """What :func:`measure` found, float64 Python numbers; means are over all samples of the loader.

    Fields:
        loss: mean cross-entropy, nats, of softmax(W h + b) at temperature 1.
        accuracy: share of samples with argmax(W h + b) = y.
        kappa: exact relative flatness of the head (:func:`grokcore.relative_flatness`).
        frobenius_surrogate: the published stand-in for it, temperature 1, raw features.
        nc4: agreement of the head with the nearest class mean (the reference's means where given).
        logit_gap: mean of z_y minus the mean of the other logits; Delta at collapse.
        variance_ratio: mean ||h - mu_y||^2 / mean over classes of ||mu_c - mu_G||^2 (paper C's V), with
            the reference's means where given.
        head_norm: ||W||_F.
        samples: number of samples measured.
        collapse: the other collapse metrics, of these samples about their own means.
        reasons: why a field above is NaN.
        moments: the class moments, usable as another call's reference; not part of the dict.
    """

    loss: float
    accuracy: float
    kappa: float
    frobenius_surrogate: float
    nc4: float
    logit_gap: float
    variance_ratio: float
    head_norm: float
    samples: int
    collapse: CollapseReport
    reasons: dict[str, str]
    moments: ClassMoments

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict without the moments; NaN stays NaN."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "moments"}
        return values | {"collapse": asdict(self.collapse), "reasons": dict(self.reasons)}

    def to_json(self) -> str:
        """The dict as JSON, NaN as null (its reason stays)."""
        return json.dumps(without_nan(self.to_dict()), indent=2, allow_nan=False)

    def __str__(self) -> str:
        own = {k: v for k, v in self.to_dict().items() if isinstance(v, (int, float))}
        rest = {k: v for k, v in asdict(self.collapse).items() if k != "reasons"}
        reasons = self.reasons | self.collapse.reasons
        width = max(map(len, own | rest))
        lines = []
        for name, value in (own | rest).items():
            note = f"  ({reasons[name]})" if name in reasons else ""
            lines.append(f"{name:<{width}}  {value:>12.6g}{note}")
        return "\n".join(lines)


def measure(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    head: str,
    *,
    reference: ClassMoments | Report | None = None,
    device: torch.device | str | None = None,
) -> Report:
    """Measure a classifier whose head is a linear layer, in eval mode, over a whole loader.

    The model's forward runs in its own dtype; everything after the head's input is float64. Every
    submodule gets its own mode back and the hook is removed, on errors too.

    Args:
        model: any module whose output for a batch are logits W h + b of its head.
        loader: batches (inputs, labels), labels in [0, K); iterated once.
        head: name of the ``nn.Linear`` head in ``model.named_modules()``; its input h must be (n, m).
        reference: moments or a Report whose class means ``nc4`` and ``variance_ratio`` use, as when test
            data are held against train means. Without it the samples' own means serve.
        device: where the batches are moved; by default the head's device.

    Raises:
        UsageError: no such head, or not linear.
        ValueError: an empty loader, labels outside [0, K), features that are not (n, m).
        NonFiniteError: NaN or infinity in the features, with the batch's number, or in the head.

    Memory: without a reference the features are kept until the end, n m numbers in the model's dtype, for
    NC4 about the samples' own means.
    """
    layer = find_head(model, head)
    weight = layer.weight.detach().double()
    bias = None if layer.bias is None else layer.bias.detach().double()
    if not all(bool(torch.isfinite(p).all()) for p in (weight, bias) if p is not None):
        raise NonFiniteError(f"the head {head!r} holds NaN or infinity")
    target = torch.device(device) if device is not None else layer.weight.device
    num_classes, num_features = weight.shape
    moments = ClassMoments(num_classes, num_features)
    weight, bias = weight.to(target), None if bias is None else bias.to(target)
    distances, squared_head = squared_distances(weight), weight.square().sum()
    about = reference.moments if isinstance(reference, Report) else reference
    means = None if about is None or about.absent else about.means.to(target)
    sums = torch.zeros(5, dtype=torch.float64, device=target)
    agree = 0
    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad(), eval_mode(model), HeadInput(layer) as captured:
        for number, (inputs, labels) in enumerate(loader):
            labels = labels.to(target).long()
            model(inputs.to(target))
            features = captured.features.detach()
            if features.ndim != 2:
                raise ValueError(f"the head's input must be (n, m), got {tuple(features.shape)}")
            wide = features.double()
            try:
                moments.update(wide, labels)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error} (batch {number})") from None
            logits = torch.nn.functional.linear(wide, weight, bias)
            predicted = logits.argmax(dim=1)
            sums += _sums(wide, logits, predicted, labels, distances, squared_head)
            if means is not None:
                agree += int((nearest_mean(wide, means) == predicted).sum())
            elif about is None:
                kept.append((features, predicted))
    if moments.total == 0:
        raise ValueError("the loader gave no sample")
    if about is None and not moments.absent:
        agree = sum(int((nearest_mean(h, moments.means) == predicted).sum()) for h, predicted in kept)
    n = moments.total
    loss, correct, kappa, surrogate, gap = (sums / n).tolist()
    nc4, ratio, reasons = _about_means(agree, moments, moments if about is None else about)
    return Report(
        loss=loss,
        accuracy=correct,
        kappa=kappa,
        frobenius_surrogate=surrogate,
        nc4=nc4,
        logit_gap=gap,
        variance_ratio=ratio,
        head_norm=float(weight.norm()),
        samples=n,
        collapse=collapse_report(moments, weight, bias),
        reasons=reasons,
        moments=moments,
    )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards each submodule's own mode again, on errors too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _sums(
    wide: Tensor, logits: Tensor, predicted: Tensor, labels: Tensor, distances: Tensor, squared_head: Tensor
) -> Tensor:
    """Sums over the batch of loss, correct, kappa, surrogate and logit gap; one softmax serves all."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = (logits.sum(dim=1) - own) / (logits.shape[1] - 1)
    probabilities = torch.softmax(logits, dim=1)
    squared_norms = torch.linalg.vector_norm(wide, dim=1).square()
    return torch.stack(
        [
            torch.nn.functional.cross_entropy(logits, labels, reduction="sum"),
            (predicted == labels).double().sum(),
            torch.dot(squared_norms, row_variance(probabilities, distances)),
            torch.dot(squared_norms, gini_impurity(probabilities)) * squared_head,
            (own - others).sum(),
        ]
    )


def _about_means(agree: int, moments: ClassMoments, about: ClassMoments) -> tuple[float, float, dict[str, str]]:
    """NC4 and the variance ratio about the class means of `about`."""
    nan = float("nan")
    if about.absent:
        reason = f"no samples of class {about.absent[0]} behind the class means"
        return nan, nan, {"nc4": reason, "variance_ratio": reason}
    means = about.means.to(moments.means.device)
    # mean ||h - mu||^2 about other means: the scatter about one's own plus the shift of the means.
    shift = (moments.counts * (moments.means - means).square().sum(dim=1)).sum()
    spread = float((moments.within.sum() + shift) / moments.counts.sum())
    between = float((means - means.mean(dim=0)).square().sum(dim=1).mean())
    nc4 = agree / moments.total
    if coincide(means):
        return nc4, nan, {"variance_ratio": "all class means coincide"}
    return nc4, spread / between, {}
