"""A callback for the Hugging Face Trainer: ``Trainer(..., callbacks=[GrokcoreCallback("classifier")])``."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grokcore.adapters.measuring import EpochMeasurements


class GrokcoreCallback(EpochMeasurements, TrainerCallback):
    """Measures the Trainer's train and eval sets at the end of each epoch, in eval mode and in full.

    Every finite number of :meth:`grokcore.Report.scalars` goes into ``trainer.state.log_history`` as
    ``grokcore/<set>/<name>`` with the step and the epoch, and to `writer` where one is given. Costs a forward pass of
    each set and little beside it: ``seconds`` counts. The sets are read in order, by loaders of their own, so that
    the Trainer's shuffling does not change.

    Args:
        head: name of the linear head in the model, like ``"classifier"``; its input must be one vector a sample.
        loaders, every, layers, writer: see :class:`~grokcore.adapters.measuring.EpochMeasurements`.

    Raises:
        UsageError: as :func:`grokcore.measure`.
    """

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure and note."""
        epoch, model = round(state.epoch or 0), kwargs["model"]
        assert isinstance(model, nn.Module)
        if not self.due(epoch, state.num_train_epochs):
            return
        sets = {"train": in_order(kwargs.get("train_dataloader")), "val": in_order(kwargs.get("eval_dataloader"))}
        numbers = self.measured(model, sets, state.global_step)
        state.log_history.append({"epoch": state.epoch, "step": state.global_step, **numbers})


def in_order(loader: DataLoader[Any] | None) -> DataLoader[Any] | None:
    """A loader's samples and batching without its sampler."""
    if loader is None:
        return None
    size = getattr(loader, "total_batch_size", None) or loader.batch_size
    return DataLoader(loader.dataset, batch_size=size, collate_fn=loader.collate_fn)
