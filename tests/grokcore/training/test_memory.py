"""Out of memory: the message says which batch fits. Numbers too small to matter."""

from __future__ import annotations

import pytest
import torch

from grokcore import Intervention, UsageError
from grokcore.data.split import Split
from grokcore.training.config import SGDConfig
from grokcore.training.loop import _step
from grokcore.training.memory import denormals_flushed, is_out_of_memory
from grokcore.training.step import Trainer


class Hungry(torch.nn.Module):
    """Asks for an exabyte where a batch has more than `room` samples."""

    def __init__(self, room: int, exabyte: int = 2**60) -> None:
        super().__init__()
        self.room, self.asks = room, exabyte
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            torch.empty(self.asks, dtype=torch.uint8)
        return self.head(x)  # type: ignore[no-any-return]


def trainer(room: int) -> Trainer:
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    return Trainer(Hungry(room), "head", Split(x, y, x, y, 2), SGDConfig(epochs=1, batch_size=40), Intervention(), 0)


@pytest.mark.parametrize(("room", "fits"), [(39, 20), (20, 20), (19, 10), (7, 5), (1, 1)])
def test_the_largest_half_that_fits_is_named(room: int, fits: int) -> None:
    with pytest.raises(UsageError, match=rf"batch of 40 on cpu: --batch-size {fits} fits; checkpoints are kept"):
        _step(trainer(room))


def test_nothing_fits() -> None:
    with pytest.raises(UsageError, match="no batch fits"):
        _step(trainer(0))


def test_a_batch_that_fits_is_a_step() -> None:
    run = trainer(40)
    _step(run)
    assert run.steps_done == 1


def test_other_errors_pass() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    run = trainer(40)
    run.data = Split(torch.randn(40, 7), run.data.train_labels, run.data.test_inputs, run.data.test_labels, 2)
    with pytest.raises(RuntimeError, match="shapes"):
        _step(run)


def test_numbers_too_small_to_matter_are_zero_within_and_only_there() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    small = torch.full((100,), 1e-40)
    assert bool((small * 1 > 0).all())
    with denormals_flushed():
        assert not bool((small * 1 > 0).any())
        with denormals_flushed():
            pass
        assert not bool((small * 1 > 0).any())
    assert bool((small * 1 > 0).all())
    with pytest.raises(ZeroDivisionError), denormals_flushed():
        raise ZeroDivisionError
    assert bool((small * 1 > 0).all())
