"""Real data for the frameworks' runs: scikit-learn's digits."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor


def digits(n_train: int = 400, n_test: int = 200) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Train and test (inputs (n, 64) in [0, 16], labels)."""
    found = load_digits()
    inputs, labels = torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target)
    end = n_train + n_test
    return (inputs[:n_train], labels[:n_train]), (inputs[n_train:end], labels[n_train:end])
