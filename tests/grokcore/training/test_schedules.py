"""Measured steps, rates and batches."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.training.schedules import BatchOrder, cosine_factor, log_spaced_steps, torch_seed, warmup_factor

CPU = torch.device("cpu")


@given(steps=st.integers(1, 100_000), count=st.integers(2, 190))
def test_log_spaced_steps_are_distinct_and_complete(steps: int, count: int) -> None:
    chosen = log_spaced_steps(steps, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, steps)
    assert chosen[0] == 1
    assert chosen[-1] == steps


def test_log_spaced_steps_are_log_spaced_where_whole_numbers_allow() -> None:
    late = [s for s in log_spaced_steps(100_000, 80) if s > 100]
    ratios = [b / a for a, b in pairwise(late)]
    assert max(ratios) / min(ratios) < 1.03


def test_factors() -> None:
    assert [warmup_factor(s, 4) for s in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert warmup_factor(1, 0) == 1.0
    assert [cosine_factor(s, 10, 20) for s in (10, 15, 20, 25)] == pytest.approx([1, 0.5, 0, 0])


@given(samples=st.integers(1, 60), batch=st.integers(1, 70), seed=st.integers(0, 99))
def test_an_epoch_uses_no_sample_twice(samples: int, batch: int, seed: int) -> None:
    order = BatchOrder(samples, batch, seed, CPU)
    steps = range(1, order.batches + 1)
    used = torch.cat([order.indices(s) for s in steps])
    assert len(used) == order.batches * min(batch, samples)
    assert len(torch.unique(used)) == len(used)
    assert int(used.max()) < samples


def test_batches_need_no_memory() -> None:
    """A fresh object at any step gives what the running one gives: this is what makes resuming exact."""
    running = BatchOrder(37, 5, 3, CPU)
    for step in range(1, 40):
        assert torch.equal(running.indices(step), BatchOrder(37, 5, 3, CPU).indices(step))
    assert not torch.equal(running.indices(1), running.indices(1 + running.batches))
    assert not torch.equal(running.indices(1), BatchOrder(37, 5, 4, CPU).indices(1))


def test_streams_are_fixed_across_machines() -> None:
    """Recorded results depend on these numbers."""
    assert torch_seed(0, "weights") == 3245395985266979118
    assert len({torch_seed(s, n, e) for s in range(5) for n in ("weights", "batches") for e in range(5)}) == 50
