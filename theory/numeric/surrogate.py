"""The surrogate s2 = ||W||_F^2 mean_i (1 - ||p_i||^2) ||h_i||^2 that published code logs as relative flatness.

The statements about it, a file each: that it is an upper bound (:mod:`theory.surrogate_upper_bound`), how far
above kappa it is at a simplex (:mod:`theory.surrogate_ratio`), and that it can be driven at will
(:mod:`theory.surrogate_is_gameable`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from grokcore.flatness import frobenius_surrogate
from theory.numeric.configurations import Head


def surrogate(head: Head, *, temperature: float = 1.0, normalize_features: bool = False) -> float:
    """s2 of a head, as the library logs it: mean over samples, raw features and temperature 1 by default."""
    features, weight, bias, _ = head
    return float(
        frobenius_surrogate(features, weight, bias, temperature=temperature, normalize_features=normalize_features)
    )


def head_of(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Head:
    """A head on features (n, m) with weight (K, m), no bias unless given, and labels in turn."""
    classes = weight.shape[0]
    bias = torch.zeros(classes, dtype=torch.float64) if bias is None else bias
    return Head(features, weight, bias, torch.arange(features.shape[0]) % classes)
