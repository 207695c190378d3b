"""Images as the image models read them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from grokcore.errors import UsageError


def normalised(images: Shaped[Tensor, "n 3 H W"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n 3 H W"]:
    """Images with channels last in memory: uint8 pixels normalised by mean = std = 0.5, floating ones as they are.

    Pixel 0 becomes -1 and 255 becomes 1 (paper A). `dtype` is that of normalised pixels.

    Raises:
        UsageError: pixels of another type.
    """
    if images.dtype == torch.uint8:
        return images.to(dtype, memory_format=torch.channels_last).div_(127.5).sub_(1)
    if not images.is_floating_point():
        raise UsageError(f"images must be uint8 (0 to 255) or floating and normalised, got {images.dtype}")
    return images.contiguous(memory_format=torch.channels_last)
