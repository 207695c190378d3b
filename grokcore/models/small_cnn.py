"""A small convolutional network on grey images: paper B's CNN in kind, without batch norm."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from grokcore.errors import UsageError


class SmallCNN(nn.Module):
    """Two 3x3 convolutions with ReLU and 2x2 max-pools, one hidden layer, linear head.

    Submodules: ``body`` (its output are the features) and ``head``.

    Args:
        side: height and width of the images, one channel.
        num_classes: K, rows of the head.
        channels: of the two convolutions.
        hidden: width m of the layer before the head.

    Raises:
        UsageError: sizes that are not positive, or images too small for two pools.
    """

    def __init__(self, side: int, num_classes: int, *, channels: tuple[int, int] = (16, 32), hidden: int = 128) -> None:
        super().__init__()
        if min(num_classes, hidden, *channels) < 1 or side < 4:
            raise UsageError(f"sizes must be positive and images 4x4 or larger, got {side}x{side}")
        first, second = channels
        self.body = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (side // 4) ** 2, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, images: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of images."""
        logits: Tensor = self.head(self.body(images))
        return logits
