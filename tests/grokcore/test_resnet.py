"""ResNet against a plain functional one, its sizes, and the package's instruments on it."""

from __future__ import annotations

import copy
import io
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore import UsageError, exact_hessian, hessian_trace, layer_relative_flatness, measure
from grokcore.models.convolution import multiply_adds
from grokcore.models.resnet import ResNet, resnet18
from tests.cases import TOLERANCE

F = nn.functional
Stem = Literal["7x7", "3x3"]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and eval mode with batch norms that do something."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                value.data.uniform_(low, high, generator=generator)
    return model


def images(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    s = {key: state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
    return F.batch_norm(x, **s)


def reference(state: dict[str, Tensor], x: Tensor, stem: Stem) -> Tensor:
    """ResNet-18 by functions alone, from the state's documented names."""
    x = F.conv2d(x, state["stem.0.weight"], None, *((2, 3) if stem == "7x7" else (1, 1)))
    x = norm(x, state, "stem.1").relu()
    if stem == "7x7":
        x = F.max_pool2d(x, 3, 2, 1)
    for index in range(8):
        at, stride = f"layer{index // 2 + 1}.{index % 2}", 2 if index in (2, 4, 6) else 1
        out = norm(F.conv2d(x, state[f"{at}.conv1.weight"], None, stride, 1), state, f"{at}.bn1").relu()
        out = norm(F.conv2d(out, state[f"{at}.conv2.weight"], None, 1, 1), state, f"{at}.bn2")
        if stride == 2:
            x = norm(F.conv2d(x, state[f"{at}.downsample.0.weight"], None, stride), state, f"{at}.downsample.1")
        x = (out + x).relu()
    return F.linear(x.mean((2, 3)), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("stem", ["7x7", "3x3"])
def test_it_is_the_plain_network(stem: Stem) -> None:
    model, x = randomised(resnet18(7, stem=stem, width=0.125)), images(3)
    expected = reference(model.state_dict(), x, stem)
    torch.testing.assert_close(model(x), expected, rtol=TOLERANCE[torch.float64], atol=0)
    assert float(expected.detach().std()) > 1e-3
    other = reference({**model.state_dict(), "layer4.1.conv2.weight": torch.zeros(64, 64, 3, 3).double()}, x, stem)
    assert not torch.allclose(model(x), other, rtol=1e-3)


@pytest.mark.parametrize(
    ("stem", "width", "classes", "parameters", "products"),
    [
        ("7x7", 1.0, 10, 11_181_642, 37_016_576),
        ("3x3", 1.0, 10, 11_173_962, 555_422_720),
        ("7x7", 0.5, 10, 2_801_450, 9_857_536),
        ("7x7", 1.0, 100, 11_181_642 + 90 * 513, 37_016_576 + 90 * 512),
    ],
)
def test_sizes(stem: Stem, width: float, classes: int, parameters: int, products: int) -> None:
    model = resnet18(classes, stem=stem, width=width)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert multiply_adds(model) == products


def test_channels_are_rounded_and_at_least_one() -> None:
    assert resnet18(width=0.3).head.in_features == round(512 * 0.3)
    tiny = ResNet(2, width=1e-9, blocks=(1, 1, 1, 1))
    assert tiny.head.in_features == 1
    assert tiny(images(2, dtype=torch.float32)).shape == (2, 2)
    assert len(ResNet(2, width=0.1, blocks=(3, 4, 6, 3)).layer3) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0.0}, "width"),
        ({"width": -1.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"width": 17.0}, "width"),
        ({"num_classes": 0}, "at least one class"),
        ({"blocks": (2, 2, 2)}, "blocks"),
        ({"blocks": (2, 0, 2, 2)}, "blocks"),
    ],
)
def test_bad_sizes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ResNet(**{"num_classes": 3, "width": 0.1, **wrong})


def test_another_stem_is_refused() -> None:
    with pytest.raises((UsageError, TypeError), match="stem"):  # the type is checked first where checks are on
        ResNet(3, stem="5x5", width=0.1)  # type: ignore[arg-type]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = resnet18(width=0.5)
    for name in ("stem.0", "layer2.0.conv1", "layer4.1.conv2", "layer3.0.downsample.0"):
        weight = model.get_submodule(name).weight.detach()
        expected = (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5
        assert float(weight.std()) == pytest.approx(expected, rel=4 / weight.numel() ** 0.5)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(bool((each.weight == 1).all()) and bool((each.bias == 0).all()) for each in norms)
    assert len(norms) == 20


def test_pixels_are_normalised_inside() -> None:
    model = randomised(resnet18(3, width=0.1))
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model(pixels), model(pixels.double() / 127.5 - 1), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(pixels), model(pixels.double() / 255), rtol=1e-2)


def step(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    loss = cross_entropy(model(x), y)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def test_two_passes_are_equal_bit_for_bit() -> None:
    model, x, y = resnet18(width=0.25), images(16, dtype=torch.float32), torch.arange(16) % 10
    first, second = step(copy.deepcopy(model), x, y), step(copy.deepcopy(model), x, y)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], step(copy.deepcopy(model), x + 1e-3, y)[0])


def test_a_saved_state_goes_on_as_the_model_would() -> None:
    model, x, y = resnet18(width=0.1), images(8, dtype=torch.float32), torch.arange(8) % 10
    step(model, x, y)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = resnet18(width=0.1)
    again.load_state_dict(torch.load(file, weights_only=True))
    found, expected = step(again, x, y), step(model, x, y)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_bfloat16_is_for_training_alone() -> None:
    torch.manual_seed(0)
    model, x = resnet18(3, width=0.1, bfloat16=True), images(8, dtype=torch.float32)
    plain = resnet18(3, width=0.1)
    plain.load_state_dict(model.state_dict())
    seen: list[Tensor] = []
    model.head.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    trained, plain_trained = model(x), plain(x)
    assert trained.dtype == seen[0].dtype == torch.float32
    assert not torch.equal(trained, plain_trained)
    torch.testing.assert_close(trained, plain_trained, rtol=0.1, atol=0.1)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_measure_reads_features_and_layers() -> None:
    model = randomised(resnet18(3, width=0.1)).float().train()
    x, y = images(9, dtype=torch.float32), torch.arange(9) % 3
    report = measure(
        model, [(x[:4], y[:4]), (x[4:], y[4:])], head="head", layers=["layer1.1", "layer4", "layer4.1.conv2"]
    )
    assert model.training
    assert report.loss == pytest.approx(float(cross_entropy(model.eval()(x).detach(), y)), rel=1e-5)
    assert set(report.layers) == {"layer1.1", "layer4", "layer4.1.conv2"}
    # layer4's pooled output are the features.
    ratio = report.collapse.nc1_trace_ratio
    assert report.layers["layer4"].nc1_trace_ratio == pytest.approx(ratio, rel=1e-4)
    assert report.layers["layer4.1.conv2"].nc1_trace_ratio != pytest.approx(ratio, rel=1e-2)


@pytest.fixture(scope="module")
def tiny() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(1)
    model = randomised(resnet18(3, width=1 / 64))
    x, y = images(5), torch.tensor([0, 1, 2, 1, 0])
    return model, [(x[:3], y[:3]), (x[3:], y[3:])]


LAYERS = ["stem.0", "layer2.0.downsample.0", "layer3.1.conv1", "layer4.0.conv1", "layer4.1.conv2", "head"]


@pytest.mark.parametrize("layer", LAYERS)
def test_curvature_is_the_dense_hessians(layer: str, tiny: tuple[nn.Module, list[tuple[Tensor, Tensor]]]) -> None:
    model, batches = tiny
    weight = model.get_submodule(layer).weight.detach().flatten(1)
    dense = exact_hessian(model, cross_entropy, batches, layer).reshape(*weight.shape, *weight.shape)
    kappa = float(torch.einsum("si,ti,sjtj->", weight, weight, dense))
    trace = float(torch.einsum("sisi->", dense))
    assert abs(kappa) > 1e-6
    found = layer_relative_flatness(model, cross_entropy, batches, layer)
    assert found.value == pytest.approx(kappa, rel=1e-8)
    assert found.stderr == 0
    assert hessian_trace(model, cross_entropy, batches, layer).value == pytest.approx(trace, rel=1e-8)


def test_dense_hessian_is_that_of_the_plain_network(tiny: tuple[nn.Module, list[tuple[Tensor, Tensor]]]) -> None:
    model, batches = tiny
    name = "layer4.1.conv2"
    state, weight = model.state_dict(), model.get_submodule(name).weight.detach()

    def loss(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(reference({**state, f"{name}.weight": w}, x, "7x7"), y)

    parts = [torch.autograd.functional.hessian(lambda w, b=b: loss(w, *b), weight) * len(b[1]) / 5 for b in batches]
    found = exact_hessian(model, cross_entropy, batches, name)
    torch.testing.assert_close(found, sum(parts), rtol=1e-8, atol=1e-12)


def test_curvature_in_train_mode_is_refused(tiny: tuple[nn.Module, list[tuple[Tensor, Tensor]]]) -> None:
    model, batches = tiny
    with pytest.raises(UsageError, match="eval"):
        hessian_trace(copy.deepcopy(model).train(), cross_entropy, batches, "layer4.1.conv2")
