"""A classification task, split into train and test and held in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from grokcore.errors import UsageError


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


def split_equations(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    c: NDArray[np.int64],
    answers: int,
    *,
    train_fraction: float,
    label_noise: float,
    seed: int,
) -> Split:
    """Equations x, y -> c with c in [0, answers), all of shape (n,), split at random.

    Args:
        train_fraction: share that is trained on, rounded to whole equations.
        label_noise: share of the train labels replaced by another answer drawn uniformly; the test set keeps
            its true labels.
        seed: decides the split and the noise, by streams of their own.

    Raises:
        UsageError: a split without train or test data, noise outside [0, 1).
    """
    n = len(c)
    if not 0 < train_fraction < 1:
        raise UsageError(f"the train fraction must lie between 0 and 1, got {train_fraction:g}")
    if not 0 <= label_noise < 1:
        raise UsageError(f"label noise must lie in [0, 1), got {label_noise:g}")
    n_train = round(train_fraction * n)
    if n_train == 0 or n_train == n:
        side = "train" if n_train == 0 else "test"
        raise UsageError(f"a train fraction of {train_fraction:g} leaves no {side} data of {n} equations")
    split_stream, noise_stream = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    order = split_stream.permutation(n)
    inputs = np.stack([x, y], axis=1)[order]
    labels = c[order]
    flipped = noise_stream.permutation(n_train)[: round(label_noise * n_train)]
    labels[flipped] = (labels[flipped] + noise_stream.integers(1, answers, size=len(flipped))) % answers
    return Split(
        torch.from_numpy(inputs[:n_train].copy()),
        torch.from_numpy(labels[:n_train].copy()),
        torch.from_numpy(inputs[n_train:].copy()),
        torch.from_numpy(labels[n_train:].copy()),
        answers,
    )
