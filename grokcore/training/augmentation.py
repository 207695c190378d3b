"""Crops and flips of a whole batch at once, where the images are."""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from grokcore.training.schedules import torch_seed


class CropFlip:
    """The usual augmentation of CIFAR-10: padded by zeros on each side, cropped back at random, half of them flipped.

    Offsets and flips of an epoch are drawn at once, a pure function of the seed, the epoch and the sample: the same
    on every device, and a resumed run needs no state of theirs. Zero is black in uint8 images, as it is in the
    published transforms, which pad before they normalise.

    Args:
        samples: size of the train set.
        seed: the run's seed.
        device: where the images are.
        padding: pixels on each side.
    """

    def __init__(self, samples: int, seed: int, device: torch.device, *, padding: int = 4) -> None:
        self.padding = padding
        self._samples, self._seed, self._device = samples, seed, device
        self._epoch = -1

    def __call__(
        self, images: Shaped[Tensor, "n C H W"], index: Int[Tensor, " n"], epoch: int
    ) -> Shaped[Tensor, "n C H W"]:
        """The batch, augmented; no device sync but once an epoch.

        Args:
            images: of the samples `index`, not changed.
            index: the samples' numbers in the train set.
            epoch: counted from 0.
        """
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(torch_seed(self._seed, "augmentation", epoch))
            shifts = torch.randint(0, 2 * self.padding + 1, (2, self._samples), generator=generator)
            flips = torch.randint(0, 2, (1, self._samples), generator=generator)
            self._drawn, self._epoch = torch.cat([shifts, flips]).to(self._device), epoch
        down, right, flip = self._drawn[:, index]
        height, width = images.shape[2:]
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(index), -1)
        columns = right[:, None] + torch.where(flip[:, None] == 1, width - 1 - columns, columns)
        padded = torch.nn.functional.pad(images, (self.padding,) * 4)
        sample = torch.arange(len(index), device=images.device)[:, None, None]
        # Indices apart by a slice put the channels last in memory, which is how the convolutions want them.
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
