"""Models on which the formula of one layer would silently be another's: refused, and the trace goes by products."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grokcore import HessianOperator, UsageError, exact_hessian, hessian_trace, layer_relative_flatness
from grokcore.errors import NonFiniteError, UnsuitedLayerError
from tests.grokcore.test_layer_flatness import dense
from theory.numeric.oracle import mean_squared_loss

cross_entropy = nn.functional.cross_entropy
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(6) % 3


class Net(nn.Module):
    """A layer and a head, put together by a function."""

    def __init__(self, run: Any, sizes: tuple[int, int, int] = (5, 4, 3)) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.head = nn.Linear(sizes[0], sizes[1]), nn.Linear(sizes[1], sizes[2])
        self.run = run
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    return net.head(net.layer(x).tanh())


def tied(net: Net, x: Tensor) -> Tensor:
    return nn.functional.linear(net.layer(x).tanh(), net.layer.weight.t())


def normed(net: Net, x: Tensor) -> Tensor:
    return net.head((net.layer(x) / net.layer.weight.norm()).tanh())


def hooked(net: Net) -> Net:
    net.layer.register_forward_hook(lambda module, given, out: 2 * out)
    return net


def replaced(net: Net) -> Net:
    net.layer.forward = MethodType(lambda self, x: 3 * nn.functional.linear(x, self.weight, self.bias), net.layer)
    return net


def sorted_inside(net: Net, x: Tensor) -> Tensor:
    order = x[:, 0].argsort()
    return net.head(net.layer(x[order]).tanh())[order.argsort()]


def centred(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    hidden = net.layer(x)
    return net.head((hidden - hidden.mean(dim=0)).tanh()), hidden


UNSUITED = {
    "tied": (Net(tied, (5, 4, 5)), mean_squared_loss, X),
    "normed by its own weight": (Net(normed), cross_entropy, Y),
    "hooked": (hooked(Net(plain)), cross_entropy, Y),
    "replaced": (replaced(Net(plain)), cross_entropy, Y),
    "sorted": (Net(sorted_inside), cross_entropy, Y),
    "centred in the batch": (Net(centred), lambda out, y: cross_entropy(out[0], y), Y),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_what_would_be_another_models_number_is_refused(name: str) -> None:
    model, loss, target = UNSUITED[name]
    with pytest.raises(UnsuitedLayerError, match="an exact value needs"):
        layer_relative_flatness(model, loss, [(X, target)], "layer")


@pytest.mark.parametrize("name", ["tied", "normed by its own weight", "hooked", "replaced"])
def test_the_exact_trace_goes_by_products_then(name: str) -> None:
    model, loss, target = UNSUITED[name]
    hessian = exact_hessian(model, loss, [(X, target)], "layer")
    size = model.layer.weight.numel()
    wanted = float(hessian.reshape(size, size).trace())
    assert hessian_trace(model, loss, [(X, target)], "layer").value == pytest.approx(wanted, rel=1e-10)


def test_the_same_model_without_its_trick_is_taken() -> None:
    model = Net(plain)
    found = layer_relative_flatness(model, cross_entropy, [(X, Y)], "layer").value
    assert found == pytest.approx(dense(model, [(X, Y)], "layer"), rel=1e-10)


def test_an_input_that_is_changed_in_place_afterwards() -> None:
    """The layer's input is kept as it was, or refused: never the changed one."""

    def run(net: Net, x: Tensor) -> Tensor:
        hidden = x * 1.5
        out = net.layer(hidden).tanh()
        hidden += 7
        return net.head(out)

    with pytest.raises(UnsuitedLayerError, match="in place"):
        layer_relative_flatness(Net(run), cross_entropy, [(X, Y)], "layer")


def test_causal_positions_in_place_of_samples() -> None:
    """Time first: the first row depends on itself alone, the later ones do not."""

    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.layer, self.rnn, self.head = nn.Linear(5, 4), nn.RNN(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.layer(x).tanh())[0])

    model, batch = Language().double(), (X.reshape(3, 2, 5), Y.reshape(3, 2))
    with pytest.raises(UnsuitedLayerError, match="samples first"):
        layer_relative_flatness(model, lambda z, y: cross_entropy(z.transpose(1, 2), y), [batch], "layer")


def test_flattened_token_logits() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.layer, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).tanh()).flatten(0, 1)

    model, batch = Flat().double(), (X.reshape(3, 2, 5), Y.reshape(3, 2))

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y.flatten())

    found = layer_relative_flatness(model, loss, [batch], "layer").value
    assert found == pytest.approx(dense(model, [batch], "layer", loss), rel=1e-10)


def test_a_subclass_of_cross_entropy_is_another_loss() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            own = nn.functional.cross_entropy(z, y, reduction="none")
            return ((1 - torch.exp(-own)) ** 2 * own).mean()

    model = Net(plain)
    found = layer_relative_flatness(model, Focal(), [(X, Y)], "layer").value
    assert found == pytest.approx(dense(model, [(X, Y)], "layer", Focal()), rel=1e-9)
    assert abs(found / layer_relative_flatness(model, cross_entropy, [(X, Y)], "layer").value - 1) > 0.1


def test_no_second_derivative_is_an_error() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.head((net.layer(x) - net.layer.bias).square().sqrt())

    inputs = X.clone()
    inputs[0] = 0
    with pytest.raises(NonFiniteError, match="not finite"):
        layer_relative_flatness(Net(run), lambda z, y: cross_entropy(z, y), [(inputs, Y)], "layer")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(mode: Any) -> None:
    model = Net(plain)
    wanted = layer_relative_flatness(model, cross_entropy, [(X, Y)], "layer").value
    trace = hessian_trace(model, cross_entropy, [(X, Y)]).value
    with mode():
        batch = (X * 1.0, Y + 0)
        assert layer_relative_flatness(model, cross_entropy, [batch], "layer").value == wanted
        assert hessian_trace(model, cross_entropy, [batch]).value == pytest.approx(trace, rel=1e-12)


def test_the_callers_autocast_does_not_matter() -> None:
    model = Net(plain)
    wanted = layer_relative_flatness(model, cross_entropy, [(X, Y)], "layer", dtype=torch.float32).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer_relative_flatness(model, cross_entropy, [(X, Y)], "layer", dtype=torch.float32).value
    assert found == wanted


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_modules_derive_from_their_weights_stays() -> None:
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))
    model(X.float())
    before = model[0].weight
    HessianOperator(model, cross_entropy, [(X, Y)], "2").dense()
    assert model[0].weight is before
    recurrent = nn.RNN(5, 4)
    weights = list(recurrent._flat_weights)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = recurrent, nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x[None])[0][0])

    layer_relative_flatness(Last(), cross_entropy, [(X, Y)], "head")
    assert all(a is b for a, b in zip(recurrent._flat_weights, weights, strict=True))


def test_the_users_batch_stays() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(net.layer(x.clamp_(min=0)).tanh())

    inputs = X.clone()
    layer_relative_flatness(Net(run), cross_entropy, [(inputs, Y)], "layer")
    assert torch.equal(inputs, X)


def test_tensors_that_keep_their_dtype_are_named() -> None:
    shift = torch.eye(4)
    with pytest.raises(UsageError, match="register them as buffers"):
        layer_relative_flatness(Net(lambda net, x: net.head(net.layer(x) @ shift)), cross_entropy, [(X, Y)], "layer")
