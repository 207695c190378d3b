"""A vision transformer of one block (Dosovitskiy et al. 2021, made small): paper B's transformer in kind."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from grokcore.errors import UsageError


class OneLayerViT(nn.Module):
    """Patches, learnt positions, one pre-LN block (attention, then a ReLU layer four times as wide), mean over patches.

    Submodules: ``patches`` (linear), ``norm1``, ``attend`` (queries, keys and values in one), ``project``, ``norm2``,
    ``expand``, ``contract`` and ``head``, whose input are the features (m = `width`). No dropout; samples do not share
    anything.

    Args:
        side: height and width of the images, one channel.
        num_classes: K, rows of the head.
        patch: height and width of a patch.
        width: of tokens and features.
        heads: of attention.

    Raises:
        UsageError: a side that is no multiple of the patch, a width that is no multiple of the heads, no classes.
    """

    def __init__(self, side: int, num_classes: int, *, patch: int, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        if patch < 1 or side % patch or heads < 1 or width < 1 or width % heads or num_classes < 1:
            raise UsageError(
                f"a side of {side} must be a multiple of the patch ({patch}), a width of {width} of the heads ({heads})"
            )
        self.patch, self.heads, self.tokens = patch, heads, (side // patch) ** 2
        self.patches = nn.Linear(patch**2, width)
        self.positions = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of images."""
        n, across = images.shape[0], images.shape[-1] // self.patch
        cut = images.reshape(n, across, self.patch, across, self.patch).transpose(2, 3)
        x = self.patches(cut.reshape(n, self.tokens, self.patch**2)) + self.positions
        x = x + self.project(self._attention(self.attend(self.norm1(x))))
        x = x + self.contract(relu(self.expand(self.norm2(x))))
        logits: Tensor = self.head(x.mean(1))
        return logits

    def _attention(self, joined: Tensor) -> Tensor:
        # Written out: its second derivatives exist everywhere, and seeds can be batched.
        n, tokens, width = joined.shape[0], joined.shape[1], joined.shape[2] // 3
        q, k, v = joined.reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        mixed: Tensor = (weights @ v).transpose(1, 2).reshape(n, tokens, width)
        return mixed
