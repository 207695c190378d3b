"""measure(model, loader, head): every collapse and flatness quantity of a classifier in one call."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from grokcore.accumulate import KEEP_BYTES, Accumulator, variance_ratio
from grokcore.capture import Capture, eval_mode
from grokcore.collapse import CollapseReport, LayerReport
from grokcore.errors import UsageError, without_nan
from grokcore.frozen import eager
from grokcore.geometry import ClassMoments
from grokcore.loaders import LABEL_KEYS, call, inputs_and_labels, is_one_shot
from grokcore.pooling import Pool
from grokcore.report_text import MEANINGS, report_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
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
        moments: the class moments, usable as another call's reference; not part of the dict. None in a Monitor's
            history, which they would fill.
        layers: the collapse metrics of each layer measured, in the order in which they ran, with their
            ``variance_ratio`` and ``nearest_mean_accuracy`` about the reference's means.
        layer_moments: their class moments, for another call's reference; kept and left out as ``moments`` is.
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
    moments: ClassMoments | None
    layers: dict[str, LayerReport] = field(default_factory=dict)
    layer_moments: dict[str, ClassMoments] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict without the moments, ``layers`` only where any were measured; NaN stays NaN."""
        left_out = ("moments", "layers", "layer_moments")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        values |= {"collapse": asdict(self.collapse), "reasons": dict(self.reasons)}
        return values | (
            {"layers": {name: asdict(layer) for name, layer in self.layers.items()}} if self.layers else {}
        )

    def to_json(self) -> str:
        """The dict as JSON, NaN as null (its reason stays)."""
        return json.dumps(without_nan(self.to_dict()), indent=2, allow_nan=False)

    def scalars(self) -> dict[str, float]:
        """Every number on one level, NaN too: the names of MEANINGS, and ``layers/<name>/<metric>`` of the layers."""
        values = {
            name: float(getattr(self if name in self.__dataclass_fields__ else self.collapse, name))
            for name in MEANINGS
        }
        for layer, found in self.layers.items():
            numbers = {k: v for k, v in asdict(found).items() if k != "reasons"}
            values |= {f"layers/{layer}/{name}": value for name, value in numbers.items()}
        return values

    def plot(self) -> Figure:
        """A figure: cosines of the class means against the simplex, the metrics, and their course over the layers.

        It belongs to no window and no global state; ``report.plot().savefig("report.png")`` writes it.
        """
        # Here, as drawing takes longer to import than all the rest.
        from grokcore.report_plot import report_figure

        return report_figure(self)

    def __str__(self) -> str:
        return report_text(self)


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    head: str,
    *,
    layers: str | Sequence[str] | None = (),
    reference: ClassMoments | Report | None = None,
    pool: Pool = "mean",
    device: torch.device | str | None = None,
    keep_bytes: int = KEEP_BYTES,
    classes: int | None = None,
    progress: bool | None = None,
) -> Report:
    """Measure a classifier whose head is a linear layer, in eval mode, over a whole loader.

    The model's forward runs in its own dtype, uncompiled; everything after the head's input is float64, on the
    head's device, from the features and weights as they are rounded. Logits are W h + b, whatever the model returns.
    Every submodule gets its own mode back and the hooks are removed, on errors too.

    Args:
        model: any module that calls its head once a forward pass, on one vector a sample. Inputs are given as
            ``model(x)``, of a tuple or a list as ``model(*x)``, of a dict as ``model(**x)``.
        loader: batches (inputs, labels), or dicts with the labels under ``"labels"``, ``"label"``, ``"target"`` or
            ``"targets"``; labels of any integer dtype in [0, K). Batches without samples are passed over.
        head: name of the ``nn.Linear`` head in ``model.named_modules()``; its input h must be (n, m).
        layers: modules whose output is measured in the same pass, by name; a name may hold shell wildcards (``*``
            crosses dots), and ``"all"`` is every module without children that runs exactly once a forward pass and
            gives a floating tensor whose first dimension is the samples. Of several outputs the first counts.
        reference: moments or a Report whose class means ``nc4`` and ``variance_ratio`` use, as when test
            data are held against train means. Without it the samples' own means serve. A Report that measured the
            `layers` too serves them likewise; of their own means, which are known only after a pass, their
            ``nearest_mean_accuracy`` is had by a second call with the first one's Report as reference.
        pool: how a layer's output becomes (n, m): ``"mean"`` over positions, ``"flatten"``, the ``"first"`` or
            ``"last"`` position, or a callable. Outputs of four or more dimensions are (n, C, ...), of three (n, T, D)
            or, from one-dimensional convolutions, batch norms and poolings, (n, C, T) (:mod:`grokcore.pooling`).
        device: where the batches are moved; by default the head's device.
        keep_bytes: see Memory.
        classes: K where the head has more rows than there are classes (a vocabulary, say): its first K rows are the
            classes, labels lie in [0, K). ``loss``, ``accuracy``, ``kappa`` and ``frobenius_surrogate`` are of all the
            head's rows, ``nc4``, ``logit_gap`` and ``nc3_duality`` of the classes' rows alone.
        progress: a progress bar on standard error after two seconds; by default where that is a terminal.

    Raises:
        UsageError: no such head or layer, or the head is not linear; a head or layer that does not run exactly once a
            forward pass or sees no (n, m); an empty loader, an unusable batch, labels outside [0, K); a reference
            of another size.
        NonFiniteError: NaN or infinity in the head, its input or a layer, with the batch's number (from 0).

    Memory: independent of the number of samples, with one exception. Without a reference, NC4 about the samples'
    own means needs the features again: up to `keep_bytes` of them (1 GiB by default) are kept in their own dtype.
    Beyond that a loader that can be read again is read a second time, and must then give the same samples (other
    class counts are noticed, other augmentations are not); a one-shot iterator gives NaN and the reason. More than
    4,096 features keep no m x m scatter: their ``nc1_papyan`` is NaN.
    """
    capture = Capture(model, head, layers, pool)
    about = class_moments(reference, capture.head, classes)
    of_layers = layer_moments(reference)
    shown = sys.stderr.isatty() if progress is None else progress
    # A model compiled and run before would not notice new hooks. A spectral norm turns where its weight is read in
    # train mode, so nothing reads it before.
    with torch.no_grad(), eval_mode(model), eager():
        target = torch.device(device) if device is not None else capture.head.weight.device
        sums = Accumulator(
            capture.head, head, about=about, about_layers=of_layers, keep_bytes=keep_bytes, classes=classes
        )
        _read(model, loader, capture, sums, target, shown)
        if sums.batches == 0:
            once = ": an iterator that was read before is empty; give a list or a DataLoader"
            raise UsageError(f"the loader gave no sample{once if is_one_shot(loader) else ''}")
        about = sums.moments if about is None else about
        agreement = sums.agreement(about)
        lost = "the features exceed keep_bytes and the loader can be read only once: give a DataLoader or a reference"
        if agreement is None and not about.absent and not is_one_shot(loader):
            again = Accumulator(capture.head, head, about=about, classes=classes)
            _read(model, loader, Capture(model, head), again, target, shown)
            lost = "the features exceed keep_bytes and the loader gave other samples when read again"
            if torch.equal(again.moments.counts, sums.moments.counts):
                agreement = again.agreement(about)
    return finished(sums, about, agreement, lost)


def finished(sums: Accumulator, about: ClassMoments, agreement: float | None, lost: str) -> Report:
    """The Report of an accumulator that has seen samples.

    Args:
        sums: of the samples.
        about: the reference's moments, or the samples' own.
        agreement: NC4; None where it could not be counted, for the reason `lost`.
        lost: see `agreement`.
    """
    ratio, reasons = variance_ratio(sums.moments, about), dict[str, str]()
    if math.isnan(ratio):
        reasons["variance_ratio"] = "all class means coincide"
    if agreement is None:
        agreement, reasons["nc4"] = math.nan, lost
    if about.absent:
        agreement = ratio = math.nan
        reasons = dict.fromkeys(
            ("nc4", "variance_ratio"), f"no samples of class {about.absent[0]} behind the class means"
        )
    collapse, layers = sums.collapse()
    return Report(
        **asdict(sums.head_means()),
        nc4=agreement,
        variance_ratio=ratio,
        head_norm=float(sums.weight.norm()),
        samples=sums.moments.total,
        collapse=collapse,
        reasons=reasons,
        moments=sums.moments,
        layers=layers,
        layer_moments=sums.layers,
    )


def layer_moments(reference: ClassMoments | Report | None) -> dict[str, ClassMoments] | None:
    """What a reference knows of layers; None where there is no reference."""
    if reference is None:
        return None
    return reference.layer_moments if isinstance(reference, Report) else {}


def class_moments(
    reference: ClassMoments | Report | None, head: nn.Linear, classes: int | None = None
) -> ClassMoments | None:
    """A reference's moments; UsageError where it keeps none or they do not fit the head or the `classes`."""
    if not isinstance(reference, (ClassMoments, Report, type(None))):
        raise UsageError(f"a reference is ClassMoments or a Report, not {type(reference).__name__}")
    moments = reference.moments if isinstance(reference, Report) else reference
    if moments is None:
        if reference is not None:
            raise UsageError("a Report of a Monitor's history keeps no class means; take the one that was returned")
        return None
    wanted = (head.out_features if classes is None else classes, head.in_features)
    if (moments.num_classes, moments.num_features) != wanted:
        raise UsageError(
            f"the reference has {moments.num_classes} classes of {moments.num_features} features, the head "
            f"{wanted[0]} of {wanted[1]}"
        )
    return moments


def _read(
    model: nn.Module, loader: Iterable[Any], capture: Capture, sums: Accumulator, device: torch.device, shown: bool
) -> None:
    """One pass over the loader into the sums."""
    with capture:
        bar = tqdm(loader, desc="measure", unit="batch", delay=2, leave=False, disable=not shown)
        for number, batch in enumerate(bar):
            if _is_one_sample(batch):
                raise UsageError(
                    f"batch {number} is one sample, its label a scalar: of a dataset measure "
                    "DataLoader(dataset, batch_size=...)"
                )
            inputs, labels = inputs_and_labels(batch, number)
            if len(labels):
                call(model, inputs, device)
                sums.add(capture.take(len(labels)), labels, number)


def _is_one_sample(batch: Any) -> bool:
    if isinstance(batch, Mapping):
        label = next((batch[key] for key in LABEL_KEYS if key in batch), ())
    else:
        label = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else ()
    return isinstance(label, int) or getattr(label, "ndim", 1) == 0
