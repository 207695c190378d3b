"""Heads small enough to work out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from theory.numeric.configurations import Head


def matrix(*rows: list[float]) -> Tensor:
    """Float64, of the given rows."""
    return torch.tensor(rows, dtype=torch.float64)


def one_sample(weight: Tensor, h: list[float], bias: list[float] | None = None) -> Head:
    """A head (K, m) on one feature of label 0; without `bias` its biases are 0."""
    b = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return Head(matrix(h), weight, b.double(), torch.tensor([0]))
