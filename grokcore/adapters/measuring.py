"""What the adapters share: which sets are measured when, with the train means as reference, and what it took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from grokcore.errors import UsageError
from grokcore.monitor import Monitor, Writer
from grokcore.report import Report

TAG = "grokcore"
TRAIN = "train"


class EpochMeasurements:
    """Measures a model's sets at the end of epochs; base of the frameworks' callbacks.

    Args:
        head: name of the linear head in ``model.named_modules()`` of the framework's model.
        loaders: sets to measure by name, in any form that :func:`grokcore.measure` takes. Those that the framework has
            (``"train"``, ``"val"``) are measured too where they are not named here; None under such a name leaves it
            out. A train loader that augments is measured as it is: name a plain one.
        every: epochs between measurements; the last one is measured too where the framework knows it.
        layers: other layers, as in :func:`grokcore.measure`.
        writer: gets every scalar, as in :class:`grokcore.Monitor`.

    Attributes:
        monitor: its ``history`` holds every report in float64; None before the first epoch.
        seconds: what measuring has taken so far.
    """

    def __init__(
        self,
        head: str,
        *,
        loaders: Mapping[str, Iterable[Any] | None] | None = None,
        every: int = 1,
        layers: str | tuple[str, ...] = (),
        writer: Writer | None = None,
    ) -> None:
        if every < 1:
            raise UsageError(f"every counts epochs, from 1 on, not {every}")
        super().__init__()
        self.head, self.every, self.layers, self.writer = head, every, layers, writer
        self.loaders = dict(loaders or {})
        self.monitor: Monitor | None = None
        self.seconds = 0.0

    def due(self, epoch: int, last: int | None) -> bool:
        """Whether an epoch, counted from 1, is measured."""
        return epoch % self.every == 0 or epoch == last

    def measured(
        self, model: nn.Module, of_framework: Mapping[str, Iterable[Any] | None], step: int
    ) -> dict[str, float]:
        """Measure every set; returns the finite numbers as ``grokcore/<set>/<name>``.

        The others are held against the train set's class means. PyTorch's CPU generator is given back as it was, so
        that the batches and dropout of training do not change.
        """
        started = time.perf_counter()
        if self.monitor is None or self.monitor.model is not model:
            self.monitor = Monitor(model, self.head, layers=self.layers, writer=self.writer, tag=TAG)
        sets = {name: each for name, each in {**of_framework, **self.loaders}.items() if each is not None}
        if not sets:
            raise UsageError("there is no set to measure: name one, as loaders={'train': loader}")
        train: Report | None = None
        found: dict[str, float] = {}
        for name in sorted(sets, key=lambda each: each != TRAIN):
            with torch.random.fork_rng(devices=()):
                report = self.monitor.measure(sets[name], step=step, split=name, reference=train)
            train = report if name == TRAIN else train
            found |= {f"{TAG}/{name}/{key}": value for key, value in report.scalars().items() if math.isfinite(value)}
        self.seconds += time.perf_counter() - started
        return found
