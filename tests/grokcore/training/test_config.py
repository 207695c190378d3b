"""Length, measured steps and optimiser of a run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import UsageError
from grokcore.training.config import SGDConfig, TrainingConfig, epoch_steps


@given(
    epochs=st.integers(1, 400),
    every=st.integers(1, 60),
    samples=st.integers(1, 5_000),
    batch=st.integers(1, 600),
)
def test_epochs_are_measured_at_their_ends(epochs: int, every: int, samples: int, batch: int) -> None:
    if epochs // every > 170:
        return
    config = SGDConfig(epochs=epochs, measure_every=every, batch_size=batch)
    measured, epoch = config.measured_steps(samples), epoch_steps(samples, batch)
    assert measured == sorted(set(measured))
    assert measured[-1] == config.length(samples) == epochs * epoch
    assert all(step % epoch == 0 for step in measured)
    assert measured[0] == epoch
    assert set(range(every, epochs + 1, every)) <= {step // epoch for step in measured}
    assert len(measured) <= 180


def test_measured_epochs_by_hand() -> None:
    steps = SGDConfig(epochs=12, measure_every=5).measured_steps(640)
    assert [step // 10 for step in steps] == [1, 2, 4, 5, 10, 12]
    assert SGDConfig(epochs=3, measure_every=1).measured_steps(128) == [2, 4, 6]
    assert SGDConfig(epochs=3, measure_every=50).measured_steps(128) == [2, 4, 6]


def test_an_epoch_drops_its_last_short_batch() -> None:
    assert epoch_steps(5_000, 64) == 78
    assert epoch_steps(50_000, 64) == 781
    assert epoch_steps(40, 64) == 1  # one batch of everything


def test_the_steps_of_adamw_do_not_depend_on_the_data() -> None:
    config = TrainingConfig(steps=70, measurements=5)
    assert config.length(1) == config.length(10**6) == 70
    assert config.measured_steps(1)[-1] == 70


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_the_textbooks(decay: float) -> None:
    """v <- m v + g + d w; w <- w - r v, by hand."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = SGDConfig(learning_rate=0.1, momentum=0.5, weight_decay=decay).new_optimizer([weight])
    expected, velocity = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for step in range(4):
        gradient = torch.tensor([1.0, step], dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        velocity = 0.5 * velocity + gradient + decay * expected
        expected = expected - 0.1 * velocity
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"epochs": 10**10}, "--epochs"),
        ({"measure_every": 0}, "--measure-every"),
        ({"epochs": 400, "measure_every": 2}, "--measure-every"),
        ({"momentum": 1.0}, "--momentum"),
        ({"momentum": float("nan")}, "--momentum"),
        ({"batch_size": 0}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"weight_decay": -1.0}, "--weight-decay"),
    ],
)
def test_what_no_run_can_have(settings: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SGDConfig(**settings)  # type: ignore[arg-type]
