"""A row of metrics: `measure` on the whole train and test sets, flattened to one level."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from grokcore.collapse import class_mean_cosines
from grokcore.geometry import ClassMoments
from grokcore.report import Report, measure
from grokcore.training.step import Trainer

CHUNK = 4096
"""Samples a forward pass takes while measuring: float64 features of it stay in cache."""

OF_CLASS_ROWS = ("nc3_duality", "nc4", "logit_gap")
"""The metrics that `measure` takes from the classes' rows of the head."""


def set_reports(
    trainer: Trainer,
    *,
    chunk: int = CHUNK,
    features: Mapping[str, Tensor] | None = None,
    layers: Sequence[str] = (),
    reference: Report | None = None,
) -> dict[str, Report]:
    """The Reports of the train and the test set now, by "train" and "test", the latter about the train means.

    Args:
        trainer: its model and data.
        chunk: samples a forward pass takes.
        features: what enters the head now, (n, m) in eval mode, by "train" and "test", for a caller who has it: then
            the layers before the head do not run again, and cannot be measured.
        layers: measured along.
        reference: whose class means the train set is held against; by default its own.
    """
    reports: dict[str, Report] = {}
    model, head, sets = trainer.model, trainer.head_name, trainer.data.sets
    if features is not None:
        model, head = nn.Sequential(OrderedDict(head=trainer.head)), "head"
        sets = {split: (features[split], labels) for split, (_, labels) in sets.items()}
    for split, (inputs, labels) in sets.items():
        about = reports.get("train", reference)
        batches = chunks(inputs, labels, chunk)
        reports[split] = measure(model, batches, head, layers=layers, reference=about, classes=trainer.data.num_classes)
    return reports


def measurement_row(
    trainer: Trainer,
    *,
    chunk: int = CHUNK,
    features: Mapping[str, Tensor] | None = None,
    reports: Mapping[str, Report] | None = None,
) -> dict[str, float]:
    """Everything about the trainer's model now, eval mode, whole sets, temperature 1, raw features.

    Args:
        trainer: its model and data.
        chunk, features: as of :func:`set_reports`.
        reports: what :func:`set_reports` gave now, for a caller who has it.

    Returns:
        The row with the columns ``train_*`` and ``test_*`` (the fields of Report and CollapseReport, and
        ``*_angle_least``, ``*_angle_mean``, ``*_angle_greatest`` between centred class means, degrees),
        ``head_norm`` and ``weight_norm`` (Frobenius norms of the head and of all parameters). On test
        data NC4 and variance_ratio use the train means, the collapse metrics the test set's own. Where the
        head has more rows than the data have classes, what is read off the classes' rows alone says so:
        ``*_nc3_duality_answer_rows``, ``*_nc4_answer_rows``, ``*_logit_gap_answer_rows``.
    """
    row, renamed = dict[str, float](), dict[str, str]()
    if trainer.head.out_features > trainer.data.num_classes:
        renamed = {name: f"{name}_answer_rows" for name in OF_CLASS_ROWS}
    reports = reports or set_reports(trainer, chunk=chunk, features=features)
    for split, report in reports.items():
        values = report.to_dict()
        collapse = {k: v for k, v in asdict(report.collapse).items() if k != "reasons"}
        for name in ("collapse", "reasons", "head_norm", "samples", "layers"):
            values.pop(name, None)
        assert report.moments is not None  # only a Monitor's history drops them
        values |= collapse | _angles(report.moments)
        row |= {f"{split}_{renamed.get(name, name)}": value for name, value in values.items()}
    row["head_norm"] = reports["train"].head_norm
    with torch.no_grad():
        squares = [float(p.double().square().sum()) for p in trainer.model.parameters()]
    row["weight_norm"] = math.sqrt(sum(squares))
    return row


def chunks(inputs: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of so many samples, for :func:`grokcore.measure`."""
    return zip(torch.split(inputs, size), torch.split(labels, size), strict=True)


def _angles(moments: ClassMoments) -> dict[str, float]:
    """Of the centred class means, degrees; a simplex has arccos(-1/(K-1)) everywhere."""
    angles = torch.rad2deg(torch.arccos(class_mean_cosines(moments).clamp(-1, 1)))
    return {
        "angle_least": float(angles.min()),
        "angle_mean": float(angles.mean()),
        "angle_greatest": float(angles.max()),
    }
