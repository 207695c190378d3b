"""kappa of any layer against the dense Hessian of its weight, contracted as the definition says.

exact_hessian differentiates in the weight and knows no pre-activation; layer_relative_flatness never differentiates in
the weight (exact), or only along drawn directions (hutchinson).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import grokcore.layer_curvature as curvature
from grokcore import Estimate, exact_hessian, layer_relative_flatness, relative_flatness
from grokcore.estimators import signs, student
from grokcore.frozen import frozen
from grokcore.layer_flatness import layer_curvature
from tests.grokcore.test_curvature import build, cnn, mlp, parameter, transformer
from theory.numeric.oracle import mean_squared_loss

cross_entropy = nn.functional.cross_entropy

LAYERS = [
    (mlp, "0"), (mlp, "2"), (mlp, "4"), (cnn, "0"), (cnn, "5"),
    (transformer, "qkv"), (transformer, "out"), (transformer, "mlp.0"), (transformer, "head"),
]  # fmt: skip


def dense(model: nn.Module, batches: list[tuple[Tensor, Tensor]], layer: str, loss: object = cross_entropy) -> float:
    weight = parameter(model, layer).detach().flatten(1)
    hessian = exact_hessian(model, loss, batches, layer)  # type: ignore[arg-type]
    return float(torch.einsum("sjtj,st->", hessian.reshape(*weight.shape, *weight.shape), weight @ weight.T))


@pytest.mark.parametrize(("make", "layer"), LAYERS)
@pytest.mark.parametrize("loss", [cross_entropy, mean_squared_loss])
def test_exact_is_the_dense_hessians(make: object, layer: str, loss: object) -> None:
    model, inputs, target = build(make)
    found = layer_relative_flatness(model, loss, [(inputs, target)], layer)  # type: ignore[arg-type]
    assert found == Estimate.exact(found.value)
    assert found.value == pytest.approx(dense(model, [(inputs, target)], layer, loss), rel=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(
    seed=st.integers(0, 1000),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, (1, 0), "same"]),
)
def test_convolutions_of_every_geometry(
    seed: int, kernel: int, stride: int, dilation: int, padding: int | tuple[int, int] | str
) -> None:
    torch.manual_seed(seed)
    stride = 1 if padding == "same" else stride
    conv = nn.Conv2d(2, 3, (kernel, 2), stride=stride, dilation=dilation, padding=padding)  # type: ignore[arg-type]
    flat = conv(torch.zeros(1, 2, 6, 6)).numel()
    model = nn.Sequential(conv, nn.SiLU(), nn.Flatten(), nn.Linear(flat, 3)).double()
    batch = (torch.randn(2, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 2]))
    found = layer_relative_flatness(model, cross_entropy, [batch], "0").value
    assert found == pytest.approx(dense(model, [batch], "0"), rel=1e-9)


def test_positions_interact() -> None:
    """A negative: the sum over positions of each one's own contribution is another number."""
    model, inputs, target = build(transformer)
    whole = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "qkv").value
    own = 0.0
    with frozen(model, torch.float64) as (plain, state):
        run = curvature.LayerRun(plain, "qkv.weight", state, inputs)
        hidden = run.inputs_of_positions()
        for u in range(hidden.shape[1]):
            only = torch.zeros_like(hidden)
            only[:, u] = hidden[:, u]
            own += float(curvature.contraction(run, cross_entropy, target, state["qkv.weight"], only).mean())
    assert abs(own / whole - 1) > 1e-2


def test_the_head_is_the_closed_form() -> None:
    model, inputs, target = build(mlp)
    head = model[4]  # type: ignore[index]
    features = model[:4](inputs).detach()  # type: ignore[index]
    expected = float(relative_flatness(features, head.weight.detach(), head.bias.detach()))
    assert layer_relative_flatness(model, cross_entropy, [(inputs, target)], "4").value == pytest.approx(expected)


def test_uneven_batches_weigh_samples_alike() -> None:
    model, inputs, target = build(cnn)
    parts = [(inputs[:1], target[:1]), (inputs[1:], target[1:])]
    whole = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "0").value
    assert layer_relative_flatness(model, cross_entropy, parts, "0").value == pytest.approx(whole, rel=1e-12)
    for method in ("exact", "hutchinson"):
        halves = [layer_relative_flatness(model, cross_entropy, [part], "0", method=method) for part in parts]
        together = layer_relative_flatness(model, cross_entropy, parts, "0", method=method).value
        assert together == pytest.approx((halves[0].value + 5 * halves[1].value) / 6, rel=1e-10)


def test_a_piecewise_linear_rest_takes_jacobians_and_a_smooth_one_products_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ways: Jacobians alone, Jacobians and the outputs' own curvature, products with the loss alone."""
    model, inputs, target = build(mlp)
    batches = [(inputs, target)]
    taken: list[str] = []
    products = curvature._products
    monkeypatch.setattr(curvature, "_products", lambda *a: taken.append("products") or products(*a))
    after_tanh = layer_relative_flatness(model, cross_entropy, batches, "2").value
    assert taken == []
    smooth = layer_relative_flatness(model, cross_entropy, batches, "0").value
    assert taken == ["products"]
    monkeypatch.setattr(curvature, "affordable", lambda *a: False)
    assert layer_relative_flatness(model, cross_entropy, batches, "2").value == pytest.approx(after_tanh, rel=1e-11)
    assert layer_relative_flatness(model, cross_entropy, batches, "0").value == pytest.approx(smooth, rel=1e-11)


def test_linearising_a_smooth_rest_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative: the Gauss-Newton form, forced on a tanh network, is another number."""
    model, inputs, target = build(mlp)
    right = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "0").value
    monkeypatch.setattr(curvature, "_piecewise_linear", lambda *a: True)
    forced = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "0").value
    assert abs(forced / right - 1) > 0.1


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_confident_samples_keep_their_digits(scale: float) -> None:
    """Probabilities of 1 - 1e-40 at scale 40: the closed form knows them, a loss that only autograd knows loses all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    model[2].weight.data *= scale
    inputs = torch.randn(8, 6, dtype=torch.float64) * scale**0.25
    target = model(inputs).argmax(dim=1)
    features = model[:2](inputs).detach()
    expected = float(relative_flatness(features, model[2].weight.detach(), model[2].bias.detach()))
    found = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "2").value
    assert found == pytest.approx(expected, rel=1e-12)
    module = layer_relative_flatness(model, nn.CrossEntropyLoss(), [(inputs, target)], "2").value
    assert module == found
    unknown = layer_relative_flatness(model, lambda z, y: cross_entropy(z, y), [(inputs, target)], "2").value
    assert unknown == pytest.approx(expected, rel=1e-10)


def test_a_confident_sample_alone(no_shape_checks: None) -> None:
    """The negative of the test above: one sample at a gap of 45, where autograd's curvature is rounding alone."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[45.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    batch = (torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    expected = (45.0**2 + 1) * math.exp(-45) / (1 + math.exp(-45)) ** 2
    assert layer_relative_flatness(model, cross_entropy, [batch], "0").value == pytest.approx(expected, rel=1e-13)
    unknown = layer_relative_flatness(model, lambda z, y: cross_entropy(z, y), [batch], "0").value
    assert abs(unknown / expected - 1) > 1e-2


@given(seed=st.integers(0, 1000), kernel=st.integers(1, 3), padding=st.integers(0, 2))
def test_convolutions_over_sequences(seed: int, kernel: int, padding: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv1d(2, 3, kernel, padding=padding), nn.GELU(), nn.Flatten(), nn.LazyLinear(3))
    batch = (torch.randn(3, 2, 5, dtype=torch.float64), torch.tensor([0, 2, 1]))
    model.double()(batch[0])
    found = layer_relative_flatness(model, cross_entropy, [batch], "0").value
    assert found == pytest.approx(dense(model, [batch], "0"), rel=1e-9)


@pytest.mark.parametrize(("make", "layer"), LAYERS)
def test_the_trace_by_the_same_products(make: object, layer: str) -> None:
    model, inputs, target = build(make)
    found = layer_curvature(model, cross_entropy, [(inputs, target)], layer, torch.float64, contracted=False)
    hessian = exact_hessian(model, cross_entropy, [(inputs, target)], layer)
    size = parameter(model, layer).numel()
    assert found == pytest.approx(float(hessian.reshape(size, size).trace()), rel=1e-10)


def test_float32_is_near() -> None:
    for make, layer in LAYERS:
        model, inputs, target = build(make)
        batches = [(inputs, target)]
        fast = layer_relative_flatness(model, cross_entropy, batches, layer, dtype=torch.float32).value
        exact = layer_relative_flatness(model, cross_entropy, batches, layer).value
        assert fast == pytest.approx(exact, rel=2e-4)
        assert fast != exact


def test_operations_that_cannot_be_batched() -> None:
    """A user's autograd function without a batching rule: products one by one, the same number."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad * 3 * x**2

    class Cubic(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.first, self.head, self.own = nn.Linear(3, 4), nn.Linear(4, 3), own

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(x)
            return self.head(Cube.apply(hidden) if self.own else hidden**3)

    torch.manual_seed(3)
    plain, own = Cubic(False).double(), Cubic(True).double()
    own.load_state_dict(plain.state_dict())
    batch = (torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 3)
    wanted = layer_relative_flatness(plain, cross_entropy, [batch], "first").value
    assert layer_relative_flatness(own, cross_entropy, [batch], "first").value == pytest.approx(wanted, rel=1e-12)


def test_outputs_that_are_no_matrix() -> None:
    """Token logits, and a tuple: products with the loss alone."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.layer(x).tanh()
            return self.head(hidden), hidden

    torch.manual_seed(4)
    model = Tagger().double()
    batch = (torch.randn(2, 4, 3, dtype=torch.float64), torch.arange(8).reshape(2, 4) % 3)

    def loss(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return cross_entropy(out[0].transpose(1, 2), y)

    for layer in ("layer", "head"):
        found = layer_relative_flatness(model, loss, [batch], layer).value
        assert found == pytest.approx(dense(model, [batch], layer, loss), rel=1e-10)


class TestHutchinson:
    def test_is_unbiased(self) -> None:
        """The mean over every sign matrix, not a draw, at a layer of width 2."""
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        batch = (torch.randn(4, 2, dtype=torch.float64), torch.arange(4) % 2)
        weight, hessian = model[0].weight.detach(), exact_hessian(model, cross_entropy, [batch], "0")
        values = []
        for each in itertools.product((-1.0, 1.0), repeat=4):
            moved = weight @ torch.tensor(each, dtype=torch.float64).reshape(2, 2)
            values.append(float(torch.einsum("sj,sjtk,tk->", moved, hessian, moved)))
        assert sum(values) / 16 == pytest.approx(dense(model, [batch], "0"), rel=1e-12)

    @pytest.mark.parametrize(("make", "layer"), [(mlp, "2"), (cnn, "0"), (transformer, "qkv")])
    def test_probes_are_products_with_the_dense_hessian(self, make: object, layer: str) -> None:
        model, inputs, target = build(make)
        found = layer_relative_flatness(
            model, cross_entropy, [(inputs, target)], layer, method="hutchinson", probes=3, seed=5
        )
        weight = parameter(model, layer).detach().flatten(1)
        hessian = exact_hessian(model, cross_entropy, [(inputs, target)], layer).reshape(*weight.shape, *weight.shape)
        generator = torch.Generator().manual_seed(5)
        drawn = [signs((weight.shape[1],) * 2, generator, weight.device, weight.dtype) for _ in range(3)]
        values = torch.stack([torch.einsum("sj,sjtk,tk->", weight @ z, hessian, weight @ z) for z in drawn])
        assert found.value == pytest.approx(float(values.mean()), rel=1e-10)
        assert found.stderr == pytest.approx(student(2) * float(values.std()) / 3**0.5, rel=1e-9)
        assert (found.probes, found.seed) == (3, 5)

    def test_the_same_seed_is_the_same_number(self) -> None:
        model, inputs, target = build(mlp)
        one, two, other = (
            layer_relative_flatness(model, cross_entropy, [(inputs, target)], "2", method="hutchinson", seed=seed)
            for seed in (1, 1, 2)
        )
        assert one == two
        assert one != other

    def test_one_probe_has_no_standard_error(self) -> None:
        model, inputs, target = build(mlp)
        found = layer_relative_flatness(model, cross_entropy, [(inputs, target)], "2", method="hutchinson", probes=1)
        assert found.stderr != found.stderr

    def test_takes_what_exact_cannot(self) -> None:
        """An embedding's weight: no linear layer, but a parameter."""
        model, inputs, target = build(transformer)
        found = layer_relative_flatness(
            model, cross_entropy, [(inputs, target)], "embed", method="hutchinson", probes=100
        )
        assert abs(found.value - dense(model, [(inputs, target)], "embed")) < 5 * found.stderr


def test_an_estimate_is_a_number() -> None:
    assert float(Estimate(2.5, 0.1, 10, 3)) == 2.5
    assert Estimate.exact(1.0) == Estimate(1.0, 0.0, 0, None)
