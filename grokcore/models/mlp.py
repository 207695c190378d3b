"""An MLP on embedded tokens: the small model of the grokking experiments."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn


class EmbeddingMLP(nn.Module):
    """Shared embedding of each input token, concatenated, ReLU layers, linear head.

    Submodules: ``embedding``, ``body`` (its output are the features) and ``head``.

    Args:
        vocabulary: number of input tokens.
        num_classes: K, rows of the head.
        tokens: number of tokens an input has.
        embedding: width of a token's embedding, drawn from N(0, 1).
        hidden: widths of the ReLU layers; the last is the number of features m.
        head_bias: give the head a bias.
    """

    def __init__(
        self,
        vocabulary: int,
        num_classes: int,
        *,
        tokens: int = 2,
        embedding: int = 128,
        hidden: tuple[int, ...] = (256,),
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        if not hidden or min(embedding, *hidden) < 1:
            raise ValueError(f"widths must be positive, got embedding {embedding}, hidden {hidden}")
        self.embedding = nn.Embedding(vocabulary, embedding)
        widths = (tokens * embedding, *hidden)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes, bias=head_bias)

    def forward(self, inputs: Int[Tensor, "n tokens"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of token ids (n, tokens)."""
        features = self.body(self.embedding(inputs).flatten(1))
        logits: Tensor = self.head(features)
        return logits
