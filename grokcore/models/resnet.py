"""ResNets on small images (He et al. 2016), with the stem of ImageNet's (paper A's) or that of CIFAR's."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import relu

from grokcore.errors import UsageError
from grokcore.models.convolution import Convolution, he_normal
from grokcore.models.pixels import normalised

WIDEST = 16.0
"""The largest width multiplier: 2.9 billion weights."""


class ResNet(nn.Module):
    """Basic blocks in four layers of 64, 128, 256 and 512 channels times `width`, each but the first at half the size.

    Submodules: ``stem``, ``layer1`` to ``layer4`` and ``head``, an ``nn.Linear`` whose input are the features, the
    mean of the last map over its positions (float32, m = 512 times `width`). The state's names are torchvision's
    within the layers (``layer3.0.conv1.weight``, ``layer3.0.downsample.1.running_var``); the stem is ``stem.0`` (its
    convolution) and ``stem.1`` (its batch norm), and ``head`` is called fc there.

    Convolutions start from He's normal law by outputs, batch norms at 1 and 0, the head as ``nn.Linear`` does, all
    drawn from the global generator. On CUDA weights too should have their channels last
    (``model.to(memory_format=torch.channels_last)``); on a CPU better not: fused optimisers then copy each gradient.

    Args:
        num_classes: K, rows of the head.
        stem: "7x7": convolution of stride 2 and max-pool 3x3 of stride 2, so that images of 32x32 enter the blocks at
            8x8; "3x3": one convolution of stride 1.
        width: multiplies every number of channels, which is rounded and at least 1.
        blocks: of each layer; (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-34.
        bfloat16: in train mode compute everything before the features under autocast; weights, head and eval mode, in
            which everything is measured, are float32.

    Raises:
        UsageError: no classes, another stem, a width that is not in (0, 16], other than four positive counts of blocks.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        stem: Literal["7x7", "3x3"] = "7x7",
        width: float = 1.0,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise UsageError(f"a head needs at least one class, got {num_classes}")
        if stem not in ("7x7", "3x3"):
            raise UsageError(f"stem must be '7x7' or '3x3', got {stem!r}")
        if not 0 < width <= WIDEST:
            raise UsageError(f"width multiplies the channels and must be in (0, {WIDEST:g}], got {width}")
        if len(blocks) != 4 or min(blocks) < 1:
            raise UsageError(f"blocks must be four positive numbers, got {blocks}")
        self.trains_in_bfloat16 = bfloat16
        first, second, third, last = (max(1, round(channels * width)) for channels in (64, 128, 256, 512))
        if stem == "7x7":
            entry: list[nn.Module] = [Convolution(3, first, 7, 2)]
        else:
            entry = [Convolution(3, first, 3)]
        entry += [nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
        if stem == "7x7":
            entry.append(nn.MaxPool2d(3, 2, padding=1))
        self.stem = nn.Sequential(*entry)
        self.layer1 = _layer(first, first, blocks[0], 1)
        self.layer2 = _layer(first, second, blocks[1], 2)
        self.layer3 = _layer(second, third, blocks[2], 2)
        self.layer4 = _layer(third, last, blocks[3], 2)
        self.head = nn.Linear(last, num_classes)
        he_normal(self)

    def forward(self, images: Shaped[Tensor, "n 3 H W"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of images, uint8 (0 to 255) or floating and normalised already."""
        dtype = self.head.weight.dtype
        x = normalised(images, dtype)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16 and self.training):
            x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        logits: Tensor = self.head(x.to(dtype).mean((2, 3)))
        return logits


def resnet18(
    num_classes: int = 10, *, stem: Literal["7x7", "3x3"] = "7x7", width: float = 1.0, bfloat16: bool = False
) -> ResNet:
    """ResNet-18: 11,181,642 parameters with 10 classes and the 7x7 stem, 37 million multiply-adds an image of 32x32."""
    return ResNet(num_classes, stem=stem, width=width, bfloat16=bfloat16)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: ``conv1``, ``bn1``, ``conv2``, ``bn2``, and ``downsample`` where needed."""

    def __init__(self, given: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(given, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = Convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or given != channels:
            self.downsample = nn.Sequential(Convolution(given, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Float[Tensor, "n i H W"]) -> Float[Tensor, "n o h w"]:
        """The sum of both paths after ReLU."""
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)), inplace=True)))
        return relu(out + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _layer(given: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    later = (BasicBlock(channels, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(BasicBlock(given, channels, stride), *later)
