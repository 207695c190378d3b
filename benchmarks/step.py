"""One training step of the transformer beside the same model as one writes it by hand.

The plain step runs the whole sequence through every block, in float32: fused projections,
scaled_dot_product_attention(is_causal=True), PyTorch's AdamW with its default implementation. It has our weights and
must compute our loss. Ours is `Trainer.step`, which runs the prefixes once and the last block where it is read, in
float32 and with the blocks in bfloat16. All steps are timed in turns.

A step's share of the matrix rate counts its useful multiply-adds: those of its projections, its head and its scores
and weighted values. The zeros of our summing matrices, queries that pad and everything elementwise count for nothing.

    python -m benchmarks.step     where our steps spend their time, operator by operator
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu, scaled_dot_product_attention

from benchmarks.row import Row
from benchmarks.timing import Stopwatch, interleaved, operators, require_same, stopwatch
from experiments.grokking_config import PRESETS, TransformerConfig, build_model, split_of
from grokcore.data.split import Split
from grokcore.models.transformer import PREFIX, Block, EquationTransformer
from grokcore.training.step import Trainer

COMMAND = PRESETS["transformer"]
HEADS: tuple[Literal["answer", "vocabulary"], ...] = ("answer", "vocabulary")


class PlainTransformer(nn.Module):
    """The model written by hand, with EquationTransformer's names, so that its weights load."""

    positions: Tensor

    def __init__(self, model: EquationTransformer) -> None:
        super().__init__()
        width, heads = model.embedding.embedding_dim, model.blocks[0].heads
        self.vocabulary, self.special = model.vocabulary, (model.eos, model.operation, model.equals)
        self.embedding = nn.Embedding(model.embedding.num_embeddings, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in model.blocks)
        self.head = nn.Linear(width, model.head.out_features, bias=False)
        self.register_buffer("positions", model.positions, persistent=False)
        self.load_state_dict(model.state_dict())

    def training_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the answer, and of the <eos> after it where there is a vocabulary."""
        (first, second), (eos, operation, equals) = inputs.unbind(1), self.special
        tokens = [torch.full_like(first, eos), first, torch.full_like(first, operation), second]
        tokens.append(torch.full_like(first, equals))
        targets = [labels]
        if self.vocabulary is not None:
            tokens.append(labels)
            targets.append(torch.full_like(labels, eos))
        x = self.embedding(torch.stack(tokens, dim=1)) + self.positions[: len(tokens)]
        for block in self.blocks:
            x = block(x)
        logits = self.head(x[:, -len(targets) :])
        return cross_entropy(logits.flatten(0, 1), torch.stack(targets, dim=1).flatten())


class PlainBlock(Block):
    """The same layers, post-LN, on every position."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, m) to (n, T, m)."""
        parts = self.queries_keys_values(x).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.attention_norm(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm(x + self.down(relu(self.up(x))))


def run(device: torch.device) -> list[Row]:
    """Times, ratios and shares of the matrix rate; nothing on a GPU, where no step is tuned yet."""
    if device.type != "cpu":
        return []
    return [row for head in HEADS for row in rows(head, device)]


def rows(head: Literal["answer", "vocabulary"], device: torch.device) -> list[Row]:
    """The rows of one of the heads."""
    exact, rough = our_trainer(head, "float32"), our_trainer(head, "bfloat16")
    plain, ours = PlainTransformer(exact.model), exact.model  # type: ignore[arg-type]
    index = exact.batches.indices(1)
    inputs, labels = exact.data.train_inputs[index], exact.data.train_labels[index]
    own = numbers(ours, ours.training_loss(inputs, labels).loss)  # type: ignore[operator]
    for found, theirs in zip(own, numbers(plain, plain.training_loss(inputs, labels)), strict=True):
        require_same("transformer step", found, theirs)
    largest = (PREFIX * ours.operands + 2 * len(labels), plain.head.in_features, 4 * plain.head.in_features)
    watches = [
        stopwatch(plain_step(plain, exact.data), device),
        stopwatch(plain_step(PlainTransformer(ours), exact.data, torch.bfloat16), device),
        stopwatch(exact.step, device),
        stopwatch(rough.step, device),
        *(product(*largest, dtype) for dtype in (torch.float32, torch.bfloat16)),
    ]
    by_hand, autocast, float32, bfloat16, *products = interleaved(*watches, rounds=7, turn=0.4)
    single, half = (2 * math.prod(largest) / seconds for seconds in products)
    work, plain_work = (2 * multiply_adds(ours, len(labels), by_hand=words) for words in (False, True))
    name, shape = f"step, {head} head", " x ".join(map(str, largest))
    return [
        Row(f"{name}: plain eager, float32", by_hand, ratio=1.0),
        Row(f"{name}: the same under bfloat16 autocast", autocast, ratio=by_hand / autocast),
        Row(f"{name}: ours in float32, times as fast", float32, ratio=by_hand / float32),
        Row(f"{name}: ours in bfloat16, times as fast", bfloat16, ratio=by_hand / bfloat16, at_least=2.0),
        Row(f"{name}: plain, useful work", plain_work / 1e9, "GFLOP"),
        Row(f"{name}: ours, useful work; of the plain", work / 1e9, "GFLOP", ratio=work / plain_work),
        Row(f"{name}: float32 matrix rate ({shape})", single / 1e9, "GFLOP/s"),
        Row(f"{name}: bfloat16 matrix rate; over float32", half / 1e9, "GFLOP/s", ratio=half / single),
        Row(f"{name}: plain, share of the float32 rate", 100 * plain_work / by_hand / single, "%"),
        Row(f"{name}: ours in float32, share of the float32 rate", 100 * work / float32 / single, "%"),
        Row(f"{name}: ours in bfloat16, share of the bfloat16 rate", 100 * work / bfloat16 / half, "%"),
    ]


def our_trainer(head: Literal["answer", "vocabulary"], precision: Literal["bfloat16", "float32"]) -> Trainer:
    """The baseline arm's trainer."""
    command = replace(COMMAND, model=TransformerConfig(head=head, precision=precision))
    split = split_of(command.data, 0)
    return Trainer(build_model(command, split, 0), "head", split, command.training, command.intervention, 0)


def numbers(model: nn.Module, loss: Tensor) -> tuple[float, float]:
    """The loss, and the norm of its gradient in the first block's projections: at the first weights the loss alone
    hardly tells one attention from another."""
    (gradient,) = torch.autograd.grad(loss, model.get_parameter("blocks.0.queries_keys_values.weight"))
    return float(loss.detach()), float(gradient.norm())


def plain_step(model: PlainTransformer, split: Split, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """A step of the hand-written loop, as a call; other dtypes by autocast."""
    config, n = COMMAND.training, len(split.train_labels)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    order, position = torch.randperm(n), 0

    def step() -> None:
        nonlocal order, position
        if position + config.batch_size > n:
            order, position = torch.randperm(n), 0
        index = order[position : position + config.batch_size]
        position += config.batch_size
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model.training_loss(split.train_inputs[index], split.train_labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def multiply_adds(model: EquationTransformer, samples: int, *, by_hand: bool) -> int:
    """Useful multiply-adds of a step: forward, and once more for each of its two gradients.

    Args:
        model: gives the sizes.
        samples: of the batch.
        by_hand: of the plain step, which runs every position.
    """
    width, depth, read = model.head.in_features, len(model.blocks), 1 if model.vocabulary is None else 2
    own = 1 + read  # b, =, and the answer where it is read
    length = PREFIX + own
    if by_hand:
        total = depth * _block(samples * length, samples * length, samples * length**2, width)
    else:
        shared = model.operands * PREFIX
        everywhere = shared + samples * own
        pairs = shared * PREFIX + samples * own * length
        total = (depth - 1) * _block(everywhere, everywhere, pairs, width)
        total += _block(everywhere, samples * read, samples * read * length, width)
    return 3 * (total + samples * read * width * model.head.out_features)


def _block(seen: int, read: int, pairs: int, width: int) -> int:
    """Keys and values of what is seen; queries, output and the ReLU layer of what is read; scores and values."""
    return seen * 2 * width**2 + read * 10 * width**2 + pairs * 2 * width


def product(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Stopwatch:
    """A linear layer's product in a dtype, on the CPU."""
    a, b = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    return stopwatch(lambda: nn.functional.linear(a, b), torch.device("cpu"))


if __name__ == "__main__":
    for words in ("float32", "bfloat16"):
        print(f"20 steps, {words}:\n{operators(our_trainer('answer', words).step)}")
