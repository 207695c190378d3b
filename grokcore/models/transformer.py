"""The decoder transformer of the grokking experiments, on equations ``<eos> a op b = c <eos>``.

Power et al. 2022 (and paper A after them): post-LN blocks, ReLU, no biases but those of the layer norms, separate
input and output embeddings, fixed sinusoidal positions. Projections are fused over heads.

All equations share few beginnings: attention is causal, so what stands at ``<eos> a op`` depends on a alone. The
prefixes of all p operands are run once and every equation reads their keys and values, as decoders reuse a prompt's.
Together with a last block that runs only where its output is read, this is the same function at two fifths of the
multiplications, at half of them with the two published targets (`python -m benchmarks step`).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, pad, relu

PREFIX = 3
"""Tokens of ``<eos> a op``."""
VECTORISED = 3
"""Queries that attention's products are padded to: with fewer, heads of 32 dimensions and 5 or 6 keys, the products of
the backward pass have under 400 multiplications, and PyTorch does those in a plain loop on a CPU."""


class TrainingLoss(NamedTuple):
    """What a model that defines its own training loss gives for a batch."""

    loss: Float[Tensor, ""]
    """What is minimised, nats, mean over samples."""
    features: Float[Tensor, "n m"]
    """What enters the head where the class is predicted."""
    logits: Float[Tensor, "n K"]
    """What the head makes of them."""


class EquationTransformer(nn.Module):
    """Decoder transformer that reads ``<eos> a op b =`` and predicts the answer.

    Submodules: ``embedding`` (tokens 0 to p - 1 are the operands, then <eos>, op, =), ``blocks`` and ``head``, whose
    input is the last block's output at ``=``. Rows 0 to `answers` - 1 of the head are the answers.

    Args:
        operands: p, the number of operand tokens.
        answers: K, the number of answers; with a `vocabulary` they are operand tokens too.
        layers, heads, width: of the blocks; the feed-forward layers have 4 `width` hidden units.
        vocabulary: None: the head has `answers` rows and the answer is the only target. A number: input and output
            embeddings have that many rows, as published (239), and :meth:`training_loss` has two targets, the
            answer and the closing <eos>.
        bfloat16: in train mode compute the blocks under autocast; layer norms, attention's softmax and the head stay
            float32, and eval mode, in which everything is measured, is float32 throughout.
        share_prefixes: run the prefixes once for all samples. Then samples share activations, which the exact
            curvature of a layer refuses; without it each sample runs alone. The same function either way.
    """

    positions: Tensor

    def __init__(
        self,
        operands: int,
        answers: int,
        *,
        layers: int = 2,
        heads: int = 4,
        width: int = 128,
        vocabulary: int | None = None,
        bfloat16: bool = False,
        share_prefixes: bool = True,
    ) -> None:
        super().__init__()
        if min(layers, heads, width) < 1 or width % heads or width % 2:
            raise ValueError(
                "layers, heads and width must be positive, the width even and a multiple of the heads, "
                f"got {layers}, {heads} and {width}"
            )
        special = operands + 3
        if vocabulary is not None and (vocabulary < special or answers > operands):
            raise ValueError(f"a vocabulary of {vocabulary} does not hold {operands} operands, <eos>, op and =")
        self.operands, self.vocabulary = operands, vocabulary
        self.trains_in_bfloat16, self.share_prefixes = bfloat16, share_prefixes
        self.eos, self.operation, self.equals = operands, operands + 1, operands + 2
        self.embedding = nn.Embedding(vocabulary or special, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary or answers, bias=False)
        self.register_buffer("positions", sinusoidal_positions(PREFIX + 3, width), persistent=False)

    def forward(self, inputs: Int[Tensor, "n 2"]) -> Float[Tensor, "n K"]:
        """Logits (n, K) of the answer to operands (n, 2)."""
        logits: Tensor = self.head(self._features(inputs, None)[:, 0])
        return logits

    def training_loss(self, inputs: Int[Tensor, "n 2"], labels: Int[Tensor, " n"]) -> TrainingLoss:
        """Mean cross-entropy of the answer; with a vocabulary, of the answer and of the <eos> after it."""
        features = self._features(inputs, None if self.vocabulary is None else labels)
        logits = self.head(features)
        targets = labels[:, None]
        if self.vocabulary is not None:
            targets = torch.cat([targets, torch.full_like(targets, self.eos)], dim=1)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return TrainingLoss(loss, features[:, 0], logits[:, 0])

    def features_at_targets(self, inputs: Int[Tensor, "n 2"], answers: Int[Tensor, " n"]) -> Float[Tensor, "n 2 m"]:
        """What enters the head at ``=`` and, the answer given, at the answer."""
        return self._features(inputs, answers)

    def _features(self, inputs: Tensor, answers: Tensor | None) -> Tensor:
        """The last block's output, (n, 1, m) at ``=``, or (n, 2, m) with the answers' position."""
        autocast = torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16 and self.training)
        with autocast:
            run = self._shared if self.share_prefixes else self._apart
            return run(inputs[:, 0], inputs[:, 1], answers).to(self.head.weight.dtype)

    def _apart(self, first: Tensor, second: Tensor, answers: Tensor | None) -> Tensor:
        """Every sample's tokens on their own."""
        x = self._embed(torch.cat([self._prefix_tokens(first), self._own_tokens(second, answers)], dim=1), 0)
        for block in self.blocks:
            x = cast(Block, block).apart(x)
        return x[:, PREFIX + 1 :]

    def _shared(self, first: Tensor, second: Tensor, answers: Tensor | None) -> Tensor:
        """The prefixes of all operands once, then the samples' own tokens."""
        operands = torch.arange(self.operands, device=first.device)
        prefixes = self._embed(self._prefix_tokens(operands), 0)
        own = self._embed(self._own_tokens(second, answers), PREFIX)
        x = torch.cat([prefixes.flatten(0, 1), own.flatten(0, 1)])
        prefix_rows = torch.arange(self.operands * PREFIX, device=x.device).view(-1, PREFIX)
        own_rows = prefix_rows.numel() + torch.arange(own.shape[0] * own.shape[1], device=x.device)
        own_rows = own_rows.view(own.shape[:2])
        seen = torch.cat([prefix_rows[first], own_rows], dim=1)
        for block in self.blocks[:-1]:
            x = block(x, [(prefix_rows, prefix_rows), (own_rows, seen)])
        x = cast(Tensor, self.blocks[-1](x, [(own_rows[:, 1:], seen)]))
        return x.view(own.shape[0], -1, x.shape[1])

    def _prefix_tokens(self, first: Tensor) -> Tensor:
        return torch.stack([torch.full_like(first, self.eos), first, torch.full_like(first, self.operation)], dim=1)

    def _own_tokens(self, second: Tensor, answers: Tensor | None) -> Tensor:
        tokens = [second, torch.full_like(second, self.equals)]
        return torch.stack(tokens if answers is None else [*tokens, answers], dim=1)

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        embedded: Tensor = self.embedding(tokens) + self.positions[start : start + tokens.shape[1]]
        return embedded


class Block(nn.Module):
    """Causal multi-head attention and a ReLU layer, each followed by its residual sum and layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.attention_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "rows m"], groups: list[tuple[Int[Tensor, "_ _"], Int[Tensor, "_ _"]]]
    ) -> Float[Tensor, "read m"]:
        """The rows that are asked for, in their groups' order.

        Args:
            x: one row for each token.
            groups: pairs of row numbers: queries (n, t), consecutive rows, and what they attend to (n, T), whose
                last t are the queries themselves, causally.
        """
        read = torch.cat([queries.flatten() for queries, _ in groups])
        whole = len(read) == len(x)  # then the groups are all rows in their order
        weight = self.queries_keys_values.weight
        if whole:
            queries, keys_values = self.queries_keys_values(x).split([x.shape[1], 2 * x.shape[1]], dim=1)
        else:
            keys_values = linear(x, weight[x.shape[1] :])
            x = x.index_select(0, read)
            queries = linear(x, weight[: x.shape[1]])
        attended, start = [], 0
        for asked, seen in groups:
            samples, count = asked.shape
            q = queries[start : start + asked.numel()].unflatten(0, (samples, count))
            kv = keys_values.index_select(0, seen.flatten()).unflatten(0, tuple(seen.shape))
            attended.append(causal_attention(q, kv, self.heads).flatten(0, 1))
            start += asked.numel()
        return self._after_attention(x, torch.cat(attended))

    def apart(self, x: Float[Tensor, "n T m"]) -> Float[Tensor, "n T m"]:
        """All positions of samples that share nothing: what enters every layer has the samples first."""
        queries, keys_values = self.queries_keys_values(x).split([x.shape[2], 2 * x.shape[2]], dim=2)
        return self._after_attention(x, causal_attention(queries, keys_values, self.heads))

    def _after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.attention_norm(x + self.out(attended))
        return self.norm(x + self.down(relu(self.up(x))))  # type: ignore[no-any-return]


def causal_attention(
    queries: Float[Tensor, "n t m"], keys_values: Float[Tensor, "n T 2*m"], heads: int
) -> Float[Tensor, "n t m"]:
    """Attention of the last t of T positions, computed in float32 or wider, with derivatives of every order.

    Batched products; one query alone is faster elementwise, summed over each head's dimensions by a matrix of zeros
    and ones.
    """
    with torch.autocast(queries.device.type, enabled=False):
        wide = torch.promote_types(queries.dtype, torch.float32)
        (n, count, width), length = queries.shape, keys_values.shape[1]
        scale = 1 / math.sqrt(width // heads)
        if count == 1:
            q, (k, v) = queries.to(wide), keys_values.to(wide).chunk(2, dim=2)
            of_head = torch.eye(heads, dtype=wide, device=q.device).repeat_interleave(width // heads, dim=0)
            weights = ((q * k) @ of_head * scale).softmax(dim=1)
            return (weights @ of_head.T * v).sum(1, keepdim=True).to(queries.dtype)
        kv = keys_values.reshape(n, length, 2, heads, -1).permute(2, 0, 3, 1, 4)
        k, v = kv.to(wide, memory_format=torch.contiguous_format).reshape(2, n * heads, length, -1).unbind()
        q = queries.reshape(n, count, heads, -1).transpose(1, 2)
        q = q.to(wide, memory_format=torch.contiguous_format).reshape(n * heads, count, -1)
        idle = max(0, VECTORISED - count)
        hidden = torch.ones(count, length, dtype=torch.bool, device=q.device).triu(length - count + 1)
        scores = pad(q, (0, 0, 0, idle)) @ k.transpose(1, 2) * scale
        weights = scores.masked_fill(pad(hidden, (0, 0, 0, idle)), -math.inf).softmax(dim=2)
        attended: Tensor = (weights @ v)[:, :count].reshape(n, heads, count, -1).transpose(1, 2)
        return attended.to(queries.dtype, memory_format=torch.contiguous_format).flatten(2)


def sinusoidal_positions(length: int, width: int) -> Float[Tensor, "length width"]:
    """sin and cos of position / 10000^(2i / width) at dimensions 2i and 2i + 1 (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()
