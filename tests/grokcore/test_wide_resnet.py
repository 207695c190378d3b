"""WideResNet against a plain functional one, its sizes, and the package's instruments on it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore import UsageError, exact_hessian, hessian_trace, layer_relative_flatness, measure
from grokcore.models.convolution import multiply_adds
from grokcore.models.wide_resnet import WideResNet
from tests.cases import TOLERANCE
from tests.grokcore.test_resnet import images, norm, randomised, step

F = nn.functional


def reference(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """A wide ResNet by functions alone, from the state's names."""
    x = F.conv2d(x, state["stem.weight"], None, 1, 1)
    for index in range(3 * blocks):
        at, stride = f"group{index // blocks + 1}.{index % blocks}", 2 if index in (blocks, 2 * blocks) else 1
        active = norm(x, state, f"{at}.bn1").relu()
        out = F.conv2d(active, state[f"{at}.conv1.weight"], None, stride, 1)
        out = F.conv2d(norm(out, state, f"{at}.bn2").relu(), state[f"{at}.conv2.weight"], None, 1, 1)
        if f"{at}.shortcut.weight" in state:
            x = F.conv2d(active, state[f"{at}.shortcut.weight"], None, stride)
        x = x + out
    return F.linear(norm(x, state, "norm").relu().mean((2, 3)), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize(("depth", "widen"), [(10, 2), (16, 1)])
def test_it_is_the_plain_network(depth: int, widen: int) -> None:
    model, x = randomised(WideResNet(5, depth=depth, widen=widen)), images(2)
    expected = reference(model.state_dict(), x, (depth - 4) // 6)
    torch.testing.assert_close(model(x), expected, rtol=TOLERANCE[torch.float64], atol=0)
    other = reference({**model.state_dict(), "norm.weight": -model.state_dict()["norm.weight"]}, x, (depth - 4) // 6)
    assert not torch.allclose(model(x), other, rtol=1e-3)


@pytest.mark.parametrize(
    ("depth", "widen", "parameters", "products"),
    [(16, 4, 2_748_890, 392_612_352), (28, 10, 36_479_194, 5_243_328_768)],
)
def test_sizes(depth: int, widen: int, parameters: int, products: int) -> None:
    model = WideResNet(depth=depth, widen=widen)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert multiply_adds(model) == products
    assert model.head.in_features == 64 * widen


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 4}, "depth must be"),
        ({"depth": 15}, "depth must be"),
        ({"depth": -2}, "depth must be"),
        ({"widen": 0}, "widen"),
        ({"widen": 65}, "widen"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_bad_sizes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WideResNet(**{"depth": 10, "widen": 1, **wrong})


def test_two_passes_are_equal_and_bfloat16_is_for_training_alone() -> None:
    x, y = images(4, dtype=torch.float32), torch.arange(4)
    model = WideResNet(depth=10, widen=1, bfloat16=True)
    plain = WideResNet(depth=10, widen=1)
    plain.load_state_dict(model.state_dict())
    first, second = (step(copy.deepcopy(model), x, y) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], step(copy.deepcopy(plain), x, y)[0])
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_instruments() -> None:
    torch.manual_seed(0)
    model = randomised(WideResNet(3, depth=10, widen=1))
    x, y = images(4)[..., :8, :8], torch.arange(4) % 3
    report = measure(model, [(x, y)], head="head", layers=["group1", "norm"])
    assert report.loss == pytest.approx(float(cross_entropy(model(x).detach(), y)), rel=1e-6)
    assert set(report.layers) == {"group1", "norm"}
    layer = "group2.0.shortcut"
    weight = model.get_submodule(layer).weight.detach().flatten(1)
    dense = exact_hessian(model, cross_entropy, [(x, y)], layer, chunk_size=128)
    dense = dense.reshape(*weight.shape, *weight.shape)
    kappa = float(torch.einsum("si,ti,sjtj->", weight, weight, dense))
    assert layer_relative_flatness(model, cross_entropy, [(x, y)], layer).value == pytest.approx(kappa, rel=1e-8)
    trace = float(torch.einsum("sisi->", dense))
    assert hessian_trace(model, cross_entropy, [(x, y)], layer).value == pytest.approx(trace, rel=1e-8)
