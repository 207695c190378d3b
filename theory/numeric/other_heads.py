"""Heads that break one assumption of A1, A2, A3 or A5: another loss, other targets, normalised rows. Float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from grokcore.curvature import exact_hessian
from theory.numeric.configurations import Head, random_head
from theory.numeric.oracle import as_module

ONE_SAMPLE = random_head(3, K=3, m=2, n=1)
"""One normal sample of a random head with three classes and two features."""


def trained_with(head: Head, loss_fn: Callable[[Tensor, Tensor], Tensor], targets: Tensor | None = None) -> Tensor:
    """The Hessian (K, m, K, m) of the head under another loss, or on other targets."""
    batch = (head.features, head.labels if targets is None else targets)
    return exact_hessian(as_module(head), loss_fn, [batch], "weight")


def cold(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy at temperature 1/2."""
    return cross_entropy(2 * output, target)


class Cosine(nn.Linear):
    """A linear layer without bias whose rows are normalised in the forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, m) to (n, K)."""
        return input @ normalize(self.weight, dim=1).T


COSINE_HEAD = Head(
    torch.tensor([[2.0, -1.0]], dtype=torch.float64),
    torch.tensor([[0.6, 0.8], [-0.28, 0.96]], dtype=torch.float64),
    torch.zeros(2, dtype=torch.float64),
    torch.tensor([1]),
)
"""Rows of norm 1: normalising them leaves the outputs, and makes another function of W of them."""


def cosine_hessian(head: Head) -> Tensor:
    """The Hessian (K, m, K, m) where the head's rows are normalised in the forward pass; its bias is not used."""
    K, m = head.weight.shape
    layer = Cosine(m, K, bias=False, dtype=torch.float64)
    layer.load_state_dict({"weight": head.weight})
    return exact_hessian(layer, cross_entropy, [(head.features, head.labels)], "weight")
