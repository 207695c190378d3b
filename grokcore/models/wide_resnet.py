"""Wide ResNets on small images (Zagoruyko and Komodakis 2016), without dropout."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import relu

from grokcore.errors import UsageError
from grokcore.models.convolution import Convolution, he_normal
from grokcore.models.pixels import normalised

WIDEST = 64
"""The largest widening factor."""


class WideResNet(nn.Module):
    """Pre-activation blocks in three groups of 16, 32 and 64 channels times `widen`, the last two at half the size.

    Submodules: ``stem`` (3x3 convolution to 16 channels), ``group1`` to ``group3``, ``norm`` (the last batch norm) and
    ``head``, an ``nn.Linear`` whose input are the features, the mean of the last map over its positions (float32,
    m = 64 times `widen`). WRN-28-10 with 10 classes has 36,479,194 parameters. Initial weights and memory formats as in
    :class:`grokcore.models.resnet.ResNet`.

    Args:
        num_classes: K, rows of the head.
        depth: 6 n + 4 for n blocks a group.
        widen: multiplies the channels of the groups.
        bfloat16: in train mode compute everything before the features under autocast; weights, head and eval mode, in
            which everything is measured, are float32.

    Raises:
        UsageError: no classes, a depth of another form, a factor that is not in 1 to 64.
    """

    def __init__(self, num_classes: int = 10, *, depth: int = 28, widen: int = 10, bfloat16: bool = False) -> None:
        super().__init__()
        if num_classes < 1:
            raise UsageError(f"a head needs at least one class, got {num_classes}")
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise UsageError(f"depth must be 6 n + 4 (10, 16, 22, 28, ...), got {depth}")
        if not 1 <= widen <= WIDEST:
            raise UsageError(f"widen multiplies the channels and must be in 1 to {WIDEST}, got {widen}")
        self.trains_in_bfloat16 = bfloat16
        self.stem = Convolution(3, 16, 3)
        self.group1 = _group(16, 16 * widen, blocks, 1)
        self.group2 = _group(16 * widen, 32 * widen, blocks, 2)
        self.group3 = _group(32 * widen, 64 * widen, blocks, 2)
        self.norm = nn.BatchNorm2d(64 * widen)
        self.head = nn.Linear(64 * widen, num_classes)
        he_normal(self)

    def forward(self, images: Shaped[Tensor, "n 3 H W"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of images, uint8 (0 to 255) or floating and normalised already."""
        dtype = self.head.weight.dtype
        x = normalised(images, dtype)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16 and self.training):
            x = relu(self.norm(self.group3(self.group2(self.group1(self.stem(x))))), inplace=True)
        logits: Tensor = self.head(x.to(dtype).mean((2, 3)))
        return logits


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; where the shape changes, a 1x1 ``shortcut``."""

    def __init__(self, given: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(given)
        self.conv1 = Convolution(given, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = Convolution(channels, channels, 3)
        same = stride == 1 and given == channels
        self.shortcut: nn.Module | None = None if same else Convolution(given, channels, 1, stride)

    def forward(self, x: Float[Tensor, "n i H W"]) -> Float[Tensor, "n o h w"]:
        """The sum of both paths; a 1x1 shortcut reads the activated input."""
        active = relu(self.bn1(x), inplace=True)
        out: Tensor = self.conv2(relu(self.bn2(self.conv1(active)), inplace=True))
        return out + (x if self.shortcut is None else self.shortcut(active))


def _group(given: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    later = (PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(PreActivationBlock(given, channels, stride), *later)
