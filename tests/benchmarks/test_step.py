"""The benchmark of a step: the hand-written model is ours, and the work is counted as PyTorch counts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from grokcore.models.transformer import VECTORISED, EquationTransformer
from grokcore.training.config import TrainingConfig

SAMPLES = 20


def models(head: str) -> tuple[EquationTransformer, step.PlainTransformer, Tensor, Tensor]:
    torch.manual_seed(0)
    ours = EquationTransformer(7, 7, width=16, heads=4, vocabulary=12 if head == "vocabulary" else None)
    inputs, labels = torch.randint(0, 7, (SAMPLES, 2)), torch.randint(0, 7, (SAMPLES,))
    return ours, step.PlainTransformer(ours), inputs, labels


@pytest.mark.parametrize("head", step.HEADS)
def test_the_plain_model_is_ours(head: str) -> None:
    ours, plain, inputs, labels = models(head)
    losses = (ours.training_loss(inputs, labels).loss, plain.training_loss(inputs, labels))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    slopes = [
        torch.autograd.grad(loss, list(model.parameters())) for loss, model in zip(losses, (ours, plain), strict=True)
    ]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    own = step.numbers(ours, ours.training_loss(inputs, labels).loss)
    assert step.numbers(plain, plain.training_loss(inputs, labels)) == pytest.approx(own, rel=1e-5)
    plain.blocks[0].heads = 2
    assert step.numbers(plain, plain.training_loss(inputs, labels)) != pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize("head", step.HEADS)
def test_useful_work(head: str) -> None:
    """PyTorch's count of everything but attention: it passes over the plain model's fused kernel, and counts our
    products with the queries that pad them, and one query's sums over heads as products with zeros and ones."""
    ours, plain, inputs, labels = models(head)
    read, width, heads = (1 if head == "answer" else 2), 16, 4
    length = 4 + read
    # Samples, queries and keys of the prefixes, of the samples' own tokens, and of those that the last block reads.
    groups = [(7, 3, 3), (SAMPLES, 1 + read, length), (SAMPLES, read, length)]
    attention = {"ours": sum(n * t * T for n, t, T in groups), "plain": 2 * SAMPLES * length**2}
    counted = {
        # Scores and weighted values, each with two gradients; elementwise the sums over heads, each with one.
        "ours": sum(n * T * width * (4 * heads if t == 1 else 6 * max(t, VECTORISED)) for n, t, T in groups),
        "plain": 0,
    }
    for name, model in (("ours", ours), ("plain", plain)):
        with FlopCounterMode(display=False) as counter:
            loss = model.training_loss(inputs, labels)
            (loss if isinstance(loss, Tensor) else loss.loss).backward()
        counts = {str(key): value // 2 for key, value in counter.get_flop_counts()["Global"].items()}
        found = sum(value for key, value in counts.items() if "attention" not in key) - counted[name]
        assert found == step.multiply_adds(ours, SAMPLES, by_hand=name == "plain") - 6 * attention[name] * width, name


@pytest.mark.parametrize("head", step.HEADS)
def test_the_rows(head: Literal["answer", "vocabulary"], monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it on small batches; the times are made up."""
    command = replace(step.COMMAND, training=TrainingConfig(batch_size=16))
    monkeypatch.setattr(step, "COMMAND", command)
    timed = []

    def once(*watches: object, rounds: int, turn: float) -> list[float]:
        timed.extend(watch(1) for watch in watches)  # type: ignore[operator]
        return [8e-3, 6e-3, 4e-3, 2e-3, 2e-6, 1e-6]

    monkeypatch.setattr(step, "interleaved", once)
    rows = step.rows(head, torch.device("cpu"))
    assert len(timed) == 6
    assert min(timed) > 0
    verdicts = {row.name: (row.ratio, row.verdict) for row in rows if row.at_least is not None}
    assert verdicts == {f"step, {head} head: ours in bfloat16, times as fast": (4.0, "met")}
    work = next(row for row in rows if "of the plain" in row.name)
    assert work.ratio is not None
    assert step.run(torch.device("meta")) == []
