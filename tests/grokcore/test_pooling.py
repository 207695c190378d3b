"""Pooling: against its definition by hand, the channel rule, and digits under a common offset."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grokcore import UsageError
from grokcore.pooling import channels_second, check_pool, first_tensor, pooled

IMAGE = torch.arange(2 * 3 * 2 * 2, dtype=torch.float64).reshape(2, 3, 2, 2)
TOKENS = torch.arange(2 * 4 * 3, dtype=torch.float64).reshape(2, 4, 3) ** 2


@pytest.mark.parametrize(
    ("output", "pool", "expected"),
    [
        (IMAGE, "mean", IMAGE.mean((2, 3))),
        (IMAGE, "first", IMAGE[:, :, 0, 0]),
        (IMAGE, "last", IMAGE[:, :, 1, 1]),
        (IMAGE, "flatten", IMAGE.reshape(2, 12)),
        (IMAGE, lambda output: output[:, 0, 0], IMAGE[:, 0, 0]),
        (TOKENS, "mean", TOKENS.mean(1)),
        (TOKENS, "first", TOKENS[:, 0]),
        (TOKENS, "last", TOKENS[:, 3]),
        (TOKENS, "flatten", TOKENS.reshape(2, 12)),
        (TOKENS[:, 0], "first", TOKENS[:, 0]),
        (TOKENS[:, 0, 1], "mean", TOKENS[:, 0, 1:2]),
    ],
)
def test_by_hand(output: Tensor, pool: object, expected: Tensor) -> None:
    assert torch.equal(pooled(output, pool, nn.ReLU()), expected)  # type: ignore[arg-type]


class PermutedNorm(nn.LayerNorm):
    """Like torchvision's LayerNorm2d: channels second, though layer norm's are last."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("module", "shape", "second"),
    [
        (nn.ReLU(), (2, 3, 4), False),
        (nn.Conv1d(3, 3, 1), (2, 3, 4), True),
        (nn.BatchNorm1d(3), (2, 3, 4), True),
        (nn.GroupNorm(1, 3), (2, 3, 4), True),
        (nn.AvgPool1d(1), (2, 3, 4), True),
        (nn.AdaptiveMaxPool1d(4), (2, 3, 4), True),
        (nn.Linear(4, 4), (2, 3, 4), False),
        (nn.ReLU(), (2, 3, 4, 5), True),
        (nn.Conv3d(3, 3, 1), (2, 3, 4, 5, 6), True),
        (nn.Linear(5, 5), (2, 3, 4, 5), False),
        (nn.LayerNorm(5), (2, 3, 4, 5), False),
        (nn.LayerNorm((3, 4, 5)), (2, 3, 4, 5), True),
        (PermutedNorm(3), (2, 3, 4, 5), True),
    ],
)
def test_where_the_features_stand(module: nn.Module, shape: tuple[int, ...], second: bool) -> None:
    output = torch.randn(shape, dtype=torch.float64)
    assert channels_second(output, module) == second
    dims = tuple(range(2, len(shape))) if second else tuple(range(1, len(shape) - 1))
    torch.testing.assert_close(pooled(output, "mean", module), output.mean(dims))


@given(seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_mean_keeps_its_digits_under_an_offset(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    output = (1e4 + torch.rand(3, 500, 4, generator=generator)).to(dtype)
    exact = output.double().mean(1)
    error = (pooled(output, "mean", nn.ReLU()) - exact).abs().max()
    assert error < 1e-6 * (1 + float(output.double().std()))


def test_a_plain_float32_mean_would_not() -> None:
    output = 1e4 + torch.rand(3, 500, 4, generator=torch.Generator().manual_seed(0))
    exact = output.double().mean(1)
    ours = (pooled(output, "mean", nn.ReLU()) - exact).abs().max()
    assert (output.mean(1).double() - exact).abs().max() > 100 * ours


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 2)])
@pytest.mark.parametrize("pool", ["mean", "flatten", "first", "last", lambda output: output.reshape(4, -1)])
def test_writing_into_the_output_later_changes_nothing(shape: tuple[int, ...], pool: object) -> None:
    output = torch.rand(shape, requires_grad=True) + 1
    taken = pooled(output, pool, nn.ReLU())  # type: ignore[arg-type]
    before = taken.clone()
    output.detach().zero_()
    assert torch.equal(taken, before)
    assert not taken.requires_grad


def test_unknown_pool() -> None:
    with pytest.raises(UsageError, match=r"'mean', 'flatten', 'first', 'last' or a callable, got 'max'"):
        check_pool("max")
    check_pool(torch.sum)


def test_first_tensor() -> None:
    one, two = torch.zeros(2, 3), torch.ones(2, 3)
    assert first_tensor(one) is one
    assert first_tensor((two, (one, one))) is two
    for nothing in (None, (), {"x": one}, torch.arange(3), torch.tensor(1.0), (torch.arange(3), one)):
        assert first_tensor(nothing) is None
