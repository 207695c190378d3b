"""A row of metrics: `measure` on the whole train and test sets, flattened to one level."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
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


def measurement_row(
    trainer: Trainer, *, chunk: int = CHUNK, features: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Everything about the trainer's model now, eval mode, whole sets, temperature 1, raw features.

    Args:
        trainer: its model and data.
        chunk: samples a forward pass takes.
        features: what enters the head now, (n, m) in eval mode, by "train" and "test", for a caller who has it: then
            the layers before the head do not run again.

    Returns:
        The row with the columns ``train_*`` and ``test_*`` (the fields of Report and CollapseReport, and
        ``*_angle_least``, ``*_angle_mean``, ``*_angle_greatest`` between centred class means, degrees),
        ``head_norm`` and ``weight_norm`` (Frobenius norms of the head and of all parameters). On test
        data NC4 and variance_ratio use the train means, the collapse metrics the test set's own. Where the
        head has more rows than the data have classes, what is read off the classes' rows alone says so:
        ``*_nc3_duality_answer_rows``, ``*_nc4_answer_rows``, ``*_logit_gap_answer_rows``.
    """
    data, row, reports = trainer.data, dict[str, float](), dict[str, Report]()
    classes, renamed = None, dict[str, str]()
    if trainer.head.out_features > data.num_classes:
        classes, renamed = data.num_classes, {name: f"{name}_answer_rows" for name in OF_CLASS_ROWS}
    model, head, sets = trainer.model, trainer.head_name, data.sets
    if features is not None:
        model, head = nn.Sequential(OrderedDict(head=trainer.head)), "head"
        sets = {split: (features[split], labels) for split, (_, labels) in sets.items()}
    for split, (inputs, labels) in sets.items():
        report = measure(model, _chunks(inputs, labels, chunk), head, reference=reports.get("train"), classes=classes)
        values = report.to_dict()
        collapse = {k: v for k, v in asdict(report.collapse).items() if k != "reasons"}
        for name in ("collapse", "reasons", "head_norm", "samples"):
            del values[name]
        assert report.moments is not None  # only a Monitor's history drops them
        values |= collapse | _angles(report.moments)
        row |= {f"{split}_{renamed.get(name, name)}": value for name, value in values.items()}
        reports[split] = report
    row["head_norm"] = reports["train"].head_norm
    with torch.no_grad():
        squares = [float(p.double().square().sum()) for p in trainer.model.parameters()]
    row["weight_norm"] = math.sqrt(sum(squares))
    return row


def _chunks(inputs: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(inputs, size), torch.split(labels, size), strict=True)


def _angles(moments: ClassMoments) -> dict[str, float]:
    """Of the centred class means, degrees; a simplex has arccos(-1/(K-1)) everywhere."""
    angles = torch.rad2deg(torch.arccos(class_mean_cosines(moments).clamp(-1, 1)))
    return {
        "angle_least": float(angles.min()),
        "angle_mean": float(angles.mean()),
        "angle_greatest": float(angles.max()),
    }
