"""A classification task, split into train and test and held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Inputs (n, ...) and labels (n,) in [0, num_classes), for train and test."""

    train_inputs: Shaped[Tensor, "n_train ..."]
    train_labels: Int[Tensor, " n_train"]
    test_inputs: Shaped[Tensor, "n_test ..."]
    test_labels: Int[Tensor, " n_test"]
    num_classes: int

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return Split(
            self.train_inputs.to(device),
            self.train_labels.to(device),
            self.test_inputs.to(device),
            self.test_labels.to(device),
            self.num_classes,
        )
