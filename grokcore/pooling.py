"""One vector a sample from any layer's output: pooling over the positions of an image or a sequence.

Where the features stand: a linear or layer-norm module's are last, whatever the dimensions. Else an output of four or
more dimensions is (n, C, ...), channels second, and one of three is (n, T, D), tokens, unless it comes from a
one-dimensional convolution, batch norm or pooling, whose channels are second. What no module's type tells (a
ReLU between one-dimensional convolutions) is read as tokens: give a callable there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from grokcore.errors import UsageError

Pool = str | Callable[[Tensor], Tensor]
POOLS = ("mean", "flatten", "first", "last")

_CHANNELS_SECOND = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._LPPoolNd,
)


def check_pool(pool: Pool) -> None:
    """Raise UsageError where `pool` is neither one of POOLS nor a callable."""
    if not callable(pool) and pool not in POOLS:
        raise UsageError(f"pool must be {', '.join(map(repr, POOLS))} or a callable, got {pool!r}")


def pooled(output: Tensor, pool: Pool, module: nn.Module) -> Tensor:
    """The output as (n, m), detached and in memory of its own.

    Args:
        output: (n, ...), samples first. An output (n, m) is taken as it is, (n,) as (n, 1).
        pool: ``"mean"`` over positions, in float32 or wider about the first position, so that a common offset costs no
            digits; ``"flatten"`` of everything, in the output's own order; ``"first"`` or ``"last"`` position (token;
            padding is not known here); or a callable that makes (n, m) of the output.
        module: where the output comes from, for the place of its features.
    """
    output = output.detach()
    if callable(pool):
        return pool(output).detach().clone()
    if output.ndim < 3:
        return output.clone() if output.ndim == 2 else output[:, None].clone()
    if pool == "flatten":
        return output.flatten(1).clone()
    # (n, positions, features)
    rows = output.flatten(2).transpose(1, 2) if channels_second(output, module) else output.flatten(1, -2)
    if pool == "first":
        return rows[:, 0].clone()
    if pool == "last":
        return rows[:, -1].clone()
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    first = wide[:, :1]
    return first[:, 0].double() + (wide - first).mean(dim=1).double()


def channels_second(output: Tensor, module: nn.Module) -> bool:
    """Whether the features of an output of three or more dimensions are its second (else its last)."""
    # A subclass of layer norm may permute (torchvision's LayerNorm2d does).
    if isinstance(module, nn.Linear) or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1):
        return False
    return output.ndim > 3 or isinstance(module, _CHANNELS_SECOND)


def first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first of several (as of an LSTM), where it is a floating tensor with dimensions."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 0 else None
