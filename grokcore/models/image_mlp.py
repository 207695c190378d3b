"""An MLP on images: paper B's model (784-200-200-200-10)."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from grokcore.errors import UsageError


class ImageMLP(nn.Module):
    """ReLU layers on flattened images, linear head.

    Submodules: ``body`` (its output are the features, m the last of `hidden`), and ``head``.

    Args:
        inputs: values of an image.
        num_classes: K, rows of the head.
        hidden: widths of the layers before the head.
        linear_pair: the last layer before the head has no ReLU and no bias, so that the last two layers are linear: the
            setting of theory D3 (`two_clocks`).

    Raises:
        UsageError: sizes that are not positive.
    """

    def __init__(
        self, inputs: int, num_classes: int, *, hidden: tuple[int, ...] = (200, 200, 200), linear_pair: bool = False
    ) -> None:
        super().__init__()
        if not hidden or min(inputs, num_classes, *hidden) < 1:
            raise UsageError(f"sizes must be positive, got {inputs} inputs, hidden {hidden}, {num_classes} classes")
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise((inputs, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        if linear_pair:
            layers[-2:] = [nn.Linear((inputs, *hidden)[-2], hidden[-1], bias=False)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], num_classes)

    def forward(self, images: Float[Tensor, "n ..."]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of images."""
        logits: Tensor = self.head(self.body(images))
        return logits
