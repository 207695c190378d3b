"""Monitor: the measurements inside a user's own PyTorch loop, with a history and scalars for a writer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from grokcore.accumulate import KEEP_BYTES, Accumulator
from grokcore.capture import Capture
from grokcore.errors import UsageError
from grokcore.frozen import refuse_train_mode
from grokcore.geometry import ClassMoments
from grokcore.loaders import class_indices
from grokcore.pooling import Pool
from grokcore.report import Report, class_moments, finished, measure


@runtime_checkable
class Writer(Protocol):
    """Anything with TensorBoard's ``add_scalar``."""

    def add_scalar(self, tag: str, value: float, step: int, /) -> object:
        """Take one number."""


class Entry(NamedTuple):
    """A line of the history: the report keeps no moments there."""

    step: int
    split: str
    report: Report


class Monitor:
    """Measures a model as it trains, in two ways::

        with grokcore.Monitor(model, head="fc", writer=writer) as monitor:
            for epoch in range(epochs):
                train_one_epoch(model)
                train = monitor.measure(train_loader, step=epoch, split="train")  # a pass of its own
                model.eval()
                with torch.no_grad():
                    for inputs, labels in test_loader:
                        model(inputs)                                             # your own evaluation
                        monitor.observe(labels)                                   # adds what entered the head
                monitor.log(epoch, split="test", reference=train)                 # closes the window

    On leaving, on errors too, the hooks are gone and an open window is dropped; the history stays. A training step's
    own pass (train mode with gradients) is passed over. Under ``torch.compile`` enter the monitor before the
    model's first call, as a compiled model does not notice new hooks; ``measure`` works at any time.

    Args:
        model: any classifier, as :func:`grokcore.measure` takes it.
        head: name of its linear head.
        layers, pool: other layers measured along, as in :func:`grokcore.measure`.
        writer: gets ``add_scalar(f"{tag}/{split}/{name}", value, step)`` for each finite number of
            :meth:`Report.scalars`, as TensorBoard's SummaryWriter takes it.
        tag: see `writer`.
        device: where `measure` moves the batches; by default the head's device.
        keep_bytes: how much of a window's features is kept for NC4, which needs the class means that only the window's
            end knows (1 GiB by default, in the features' own dtype). Beyond it NC4 is NaN with the reason.

    Attributes:
        history: every report so far as (step, split, report), without its moments, which would fill the memory.

    Raises:
        UsageError: no such head or layer, an unknown pool, or a writer without ``add_scalar``.
    """

    def __init__(
        self,
        model: nn.Module,
        head: str,
        *,
        layers: str | Sequence[str] | None = (),
        pool: Pool = "mean",
        writer: Writer | None = None,
        tag: str = "grokcore",
        device: torch.device | str | None = None,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        if writer is not None and not isinstance(writer, Writer):
            raise UsageError(f"a writer needs add_scalar(tag, value, step), which {type(writer).__name__} has not")
        self.model, self.head, self.writer, self.tag = model, head, writer, tag
        self.history: list[Entry] = []
        self._layers, self._pool, self._device, self._keep_bytes = layers, pool, device, keep_bytes
        self._capture = Capture(model, head, layers, pool)
        self._inside = False
        self._window: Accumulator | None = None
        self._versions: list[int] = []

    def __enter__(self) -> Monitor:
        self._capture.__enter__()
        self._inside = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside, self._window = False, None
        self._capture.__exit__(kind, error, trace)

    def measure(
        self, loader: Iterable[Any], *, step: int, split: str = "train", reference: ClassMoments | Report | None = None
    ) -> Report:
        """:func:`grokcore.measure` on the whole loader, into the history and the writer.

        It runs the model itself, in eval mode, and leaves modes, hooks and an open window as they were.

        Args:
            loader: as in :func:`grokcore.measure`.
            step: the training step or epoch, for history and writer.
            split: what the samples are, likewise.
            reference: as in :func:`grokcore.measure`.

        Raises:
            UsageError, NonFiniteError: as :func:`grokcore.measure`; nothing is recorded then.
        """
        # Its passes are no passes of the user's.
        with self._capture.paused():
            report = measure(
                self.model,
                loader,
                self.head,
                layers=self._layers,
                reference=reference,
                pool=self._pool,
                device=self._device,
                keep_bytes=self._keep_bytes,
            )
        return self._record(report, step, split)

    def observe(self, labels: Tensor) -> None:
        """Add the forward pass just made, whose samples have these labels (n,), to the open window.

        Raises:
            UsageError: outside the context; no pass, or more than one, since the last call or training step; a pass
                in train mode, or a module in it that is random or moves its statistics there (dropout, batch norm);
                labels that do not fit; weights that changed within the window.
            NonFiniteError: NaN or infinity in the head, its input or a layer.

        After an error the window is gone: a part of the samples would look like all of them.
        """
        window, self._window = self._window, None
        if not self._inside:
            raise UsageError("observe listens inside `with Monitor(...) as monitor:` only")
        try:
            self._window = self._with_latest(window, class_indices(labels, "observed"))
        finally:
            # Asked about once, on errors too.
            self._capture.forget()

    def log(self, step: int, *, split: str = "test", reference: ClassMoments | Report | None = None) -> Report:
        """Close the window: its Report, into the history and the writer.

        Args:
            step: the training step or epoch, for history and writer.
            split: what the samples are, likewise.
            reference: whose class means NC4 and variance_ratio use; without it the window's own.

        Raises:
            UsageError: nothing was observed, or a reference of another size; the window stays open then.
        """
        if self._window is None:
            raise UsageError("nothing was observed since the last log(): call observe(labels) after each forward pass")
        about = class_moments(reference, self._capture.head)
        about = self._window.moments if about is None else about
        agreement = self._window.agreement(about)
        lost = "the window's features exceed keep_bytes: raise it, or use Monitor.measure"
        report = finished(self._window, about, agreement, lost)
        self._window = None
        return self._record(report, step, split)

    def to_records(self) -> list[dict[str, Any]]:
        """The history as flat rows, for a data frame or a CSV: step, split and :meth:`Report.scalars`."""
        return [{"step": step, "split": split, **report.scalars()} for step, split, report in self.history]

    def _with_latest(self, window: Accumulator | None, labels: Tensor) -> Accumulator | None:
        """The window, a new one where it is None, with the latest pass in it."""
        passes = self._capture.passes
        if len(labels) == 0 and passes == 0:
            return window
        if passes > 1:
            raise UsageError(
                f"the model made {passes} passes since the last labels: call observe(labels) after each pass "
                "outside a training step (train mode with gradients)"
            )
        forward = self._capture.take(len(labels))
        if forward.training:
            raise UsageError("the observed pass ran in train mode; call model.eval() before it")
        refuse_train_mode(self.model)
        if len(labels) == 0:
            return window
        versions = [-1 if p.is_inference() else p._version for p in self.model.parameters()]
        if window is None:
            window = Accumulator(self._capture.head, self.head, keep_bytes=self._keep_bytes)
            self._versions = versions
        elif versions != self._versions:
            raise UsageError("the weights changed since the window's first pass: log() before training goes on")
        # A fused optimiser changes weights without counting; the sums compare the head by value too.
        window.add(forward, labels)
        return window

    def _record(self, report: Report, step: int, split: str) -> Report:
        self.history.append(Entry(step, split, replace(report, moments=None, layer_moments={})))
        if self.writer is not None:
            for name, value in report.scalars().items():
                if math.isfinite(value):
                    self.writer.add_scalar(f"{self.tag}/{split}/{name}", value, step)
        return report
