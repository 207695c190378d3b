"""A row of metrics: `measure` on the whole train and test sets, flattened to one level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from grokcore.report import Report, measure
from grokcore.training.step import Trainer

CHUNK = 4096
"""Samples a forward pass takes while measuring: float64 features of it stay in cache."""


def measurement_row(trainer: Trainer) -> dict[str, float]:
    """Everything about the trainer's model now, eval mode, whole sets, temperature 1, raw features.

    Returns:
        The row with the columns ``train_*`` and ``test_*`` (the fields of Report and CollapseReport),
        ``head_norm`` and ``weight_norm`` (Frobenius norms of the head and of all parameters). On test
        data NC4 and variance_ratio use the train means, the collapse metrics the test set's own.
    """
    data, row, reports = trainer.data, dict[str, float](), dict[str, Report]()
    for split, inputs, labels in (
        ("train", data.train_inputs, data.train_labels),
        ("test", data.test_inputs, data.test_labels),
    ):
        report = measure(trainer.model, _chunks(inputs, labels), trainer.head_name, reference=reports.get("train"))
        values = report.to_dict()
        collapse = {k: v for k, v in asdict(report.collapse).items() if k != "reasons"}
        for name in ("collapse", "reasons", "head_norm", "samples"):
            del values[name]
        row |= {f"{split}_{name}": value for name, value in (values | collapse).items()}
        reports[split] = report
    row["head_norm"] = reports["train"].head_norm
    with torch.no_grad():
        squares = [float(p.double().square().sum()) for p in trainer.model.parameters()]
    row["weight_norm"] = math.sqrt(sum(squares))
    return row


def _chunks(inputs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(inputs, CHUNK), torch.split(labels, CHUNK), strict=True)
