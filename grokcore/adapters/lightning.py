"""A callback for Lightning 2: ``Trainer(callbacks=[GrokcoreCallback("model.fc")])``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from grokcore.adapters.measuring import EpochMeasurements
from grokcore.errors import UsageError


class GrokcoreCallback(EpochMeasurements, Callback):
    """Measures the module's train and validation sets at the end of each epoch, in eval mode and in full.

    Logs every finite number of :meth:`grokcore.Report.scalars` as ``grokcore/<set>/<name>`` with ``log_dict``, so that
    loggers draw it and ``EarlyStopping(monitor="grokcore/val/kappa")`` may watch it (in float32; ``monitor.history``
    keeps float64). Costs a forward pass of each set and little beside it: ``seconds`` counts.

    Args:
        head: name of the linear head in the LightningModule, like ``"model.fc"``.
        loaders, every, layers, writer: see :class:`~grokcore.adapters.measuring.EpochMeasurements`.

    Raises:
        UsageError: as :func:`grokcore.measure`; or training runs on several processes, of which each sees a part.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log, after the epoch's validation."""
        if trainer.world_size > 1:
            raise UsageError("GrokcoreCallback measures whole sets in one process; training runs on several")
        epoch = trainer.current_epoch + 1
        if not self.due(epoch, trainer.max_epochs):
            return
        sets = {"train": trainer.train_dataloader, "val": _first(trainer.val_dataloaders)}
        pl_module.log_dict(self.measured(pl_module, sets, epoch))


def _first(loaders: Any) -> Iterable[Any] | None:
    """The validation loader, the first of several."""
    if isinstance(loaders, (list, tuple)):
        return loaders[0] if loaders else None
    found: Iterable[Any] | None = loaders
    return found
