"""Heads small enough to work out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from theory.numeric.configurations import Head, rows


def one_sample(weight: Tensor, h: list[float], bias: list[float] | None = None) -> Head:
    """A head (K, m) on one feature of label 0; without `bias` its biases are 0."""
    b = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return Head(rows(h), weight, b.double(), torch.tensor([0]))
