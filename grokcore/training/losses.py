"""The losses that are trained, as means over samples."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from grokcore.flatness import Loss


def mean_loss(loss: Loss, logits: Float[Tensor, "n K"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats, or (1/2)||z - e_y||^2 summed over outputs; mean over samples, differentiable.

    The second has the factor and the sum that :func:`grokcore.relative_flatness` takes for ``loss="squared"`` (paper
    B's loss but for its sum over the batch).
    """
    if loss == "cross_entropy":
        return cross_entropy(logits, labels)
    # Not one_hot, which looks at the labels: neither vmap nor a captured step could.
    targets = (labels[:, None] == torch.arange(logits.shape[1], device=logits.device)).to(logits.dtype)
    return (logits - targets).square().sum(dim=1).mean() / 2
