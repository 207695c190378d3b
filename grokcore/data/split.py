"""A classification task, split into train and test and held in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    augmented: bool = False
    """Whether the train inputs are images that every epoch crops and flips anew."""
    source: Mapping[str, str] = field(default_factory=dict)
    """What decides the data beside the settings they were made by, for a run's config: a name, a digest."""

    @property
    def sets(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs and labels by "train" and "test"."""
        return {"train": (self.train_inputs, self.train_labels), "test": (self.test_inputs, self.test_labels)}

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        names = ("train_inputs", "train_labels", "test_inputs", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def with_label_noise(
    labels: NDArray[np.int64], share: float, num_classes: int, stream: np.random.Generator
) -> NDArray[np.int64]:
    """A copy of labels (n,) in [0, num_classes), round(`share` n) of them replaced by another class drawn uniformly.

    Raises:
        UsageError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"label noise must lie in [0, 1), got {share:g}")
    noisy = labels.copy()
    flipped = stream.permutation(len(labels))[: round(share * len(labels))]
    noisy[flipped] = (noisy[flipped] + stream.integers(1, num_classes, size=len(flipped))) % num_classes
    return noisy


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
    n_train = round(train_fraction * n)
    if n_train == 0 or n_train == n:
        side = "train" if n_train == 0 else "test"
        raise UsageError(f"a train fraction of {train_fraction:g} leaves no {side} data of {n} equations")
    split_stream, noise_stream = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    order = split_stream.permutation(n)
    inputs = np.stack([x, y], axis=1)[order]
    labels = c[order]
    return Split(
        torch.from_numpy(inputs[:n_train].copy()),
        torch.from_numpy(with_label_noise(labels[:n_train], label_noise, answers, noise_stream)),
        torch.from_numpy(inputs[n_train:].copy()),
        torch.from_numpy(labels[n_train:].copy()),
        answers,
    )
