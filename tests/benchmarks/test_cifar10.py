"""What the CIFAR-10 benchmark compares: the plain loop computes our objective, and useful work is counted right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks import cifar10
from experiments.arms import ARMS
from experiments.cifar10_config import PRESETS, ImageModelConfig
from grokcore import cdnv
from grokcore.models.resnet import resnet18

CPU = torch.device("cpu")


@given(n=st.integers(2, 40), classes=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_the_looped_penalty_is_cdnv(n: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (n,), generator=generator)
    torch.testing.assert_close(cifar10.looped_cdnv(features, labels), cdnv(features, labels, classes))


def test_the_plain_loop_has_our_objective_and_plain_layers() -> None:
    command = replace(PRESETS["cpu"], intervention=ARMS["ncc_prevent"].cpu, model=ImageModelConfig(width=0.1))
    split = cifar10.random_images(200)
    plain, ours = cifar10.PlainLoop(command, split, CPU), cifar10.trainer(command, split, CPU, "float32")
    assert {type(m) for m in plain.model.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}
    assert plain.objective_at(ours) == pytest.approx(float(ours.objective(*ours.next_batch())[0].detach()), rel=1e-5)
    before = plain.model.head.weight.detach().clone()
    plain.step()
    assert not torch.equal(plain.model.head.weight, before)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 1), (4, 3, 2), (2, 3, 1), (1, 3, 1), (5, 1, 2)])
def test_useful_work_by_hand(size: int, kernel: int, stride: int) -> None:
    """Each output, tap by tap: is it over the map?"""
    padding = kernel // 2
    outputs = range(0, size + 2 * padding - kernel + 1, stride)
    one_side = sum(0 <= start - padding + tap < size for start in outputs for tap in range(kernel))

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 7, kernel, stride, padding, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x[:, :, :size, :size])  # type: ignore[no-any-return]

    assert cifar10.useful_multiply_adds(One()) == 3 * 7 * one_side**2


def test_padding_is_a_fifth_of_resnet18s_products_or_more() -> None:
    useful = cifar10.useful_multiply_adds(resnet18())
    assert 20_000_000 < useful < 0.85 * 37_000_000
