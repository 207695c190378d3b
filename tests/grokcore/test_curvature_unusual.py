"""exact_hessian on models and batches it was not written for: the right matrix against autograd twice, or one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from grokcore import UsageError, exact_hessian
from grokcore.curvature import parameter_name
from grokcore.errors import NonFiniteError

cross_entropy = nn.functional.cross_entropy


class LastState(nn.Module):
    """A recurrent layer and a head on its last state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class Counting(nn.Module):
    """Writes into a buffer at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def data(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64), torch.arange(shape[0]) % 3


def mlp(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 3)).double()


def twice_reverse(model: nn.Module, batch: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(cross_entropy(model(batch[0]), batch[1]), weight, create_graph=True)
    rows = [torch.autograd.grad(g, weight, retain_graph=True)[0] for g in gradient.flatten()]
    return torch.stack(rows).reshape(*weight.shape, *weight.shape)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    model, batch = LastState(kind).double().eval(), data(4, 5, 3)
    found = exact_hessian(model, cross_entropy, [batch], "recurrent.weight_hh_l0")
    assert torch.allclose(found, twice_reverse(model, batch, model.recurrent.weight_hh_l0), rtol=1e-9, atol=1e-14)
    assert float(found.abs().max()) > 1e-4


def test_a_layer_beside_normalised_weights() -> None:
    for wrapped in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        model, batch = mlp(nn.Tanh()), data(4, 3)
        wrapped(model[0])
        model.eval()
        found = exact_hessian(model, cross_entropy, [batch], "2")
        assert torch.allclose(found, twice_reverse(model, batch, model[2].weight), rtol=1e-9, atol=1e-14)
        with pytest.raises(UsageError, match=r"layer '0' has no parameter 'weight'.*original"):
            exact_hessian(model, cross_entropy, [batch], "0")


def test_frozen_parameters_and_inputs_that_want_gradients() -> None:
    model, (x, y) = mlp(nn.Tanh()), data(4, 3)
    expected = twice_reverse(model, (x, y), model[0].weight)
    model.requires_grad_(False)
    x.requires_grad_()
    with torch.no_grad():
        found = exact_hessian(model, cross_entropy, [(x, y)], "0")
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert not found.requires_grad
    assert x.grad is None


def test_a_loss_that_does_not_depend_on_the_layer_has_no_curvature_there() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Module()).double()
    model[1].unused = nn.Linear(2, 2).double()
    model.forward = model[0].forward
    assert torch.equal(exact_hessian(model, cross_entropy, [data(4, 3)], "1.unused"), torch.zeros(2, 2, 2, 2).double())


def test_a_tied_weight_goes_by_each_of_its_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    assert parameter_name(model, "2") == parameter_name(model, "2.weight") == "0.weight"
    first, second = (exact_hessian(model, cross_entropy, [data(4, 3)], layer) for layer in ("0", "2"))
    assert torch.equal(first, second)


def test_nothing_inside_is_compiled() -> None:
    compiled = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model, batch = mlp(nn.Tanh()), data(4, 3)
    expected = exact_hessian(model, cross_entropy, [batch], "2")
    model[0] = torch.compile(model[0], backend=backend)
    assert torch.equal(exact_hessian(model, cross_entropy, [batch], "2"), expected)
    assert not compiled


def test_buffers_and_parameters_that_a_module_writes_into_are_left_alone() -> None:
    model = Counting().double()
    with pytest.raises(RuntimeError):
        exact_hessian(model, cross_entropy, [data(4, 3)], "linear")
    assert float(model.calls) == 0
    embedding = nn.Sequential(nn.Embedding(3, 3, max_norm=0.1), nn.Flatten(), nn.Linear(3, 3)).double()
    before, tokens = embedding[0].weight.detach().clone(), torch.arange(3)
    with pytest.raises(RuntimeError):
        exact_hessian(embedding, cross_entropy, [(tokens[:, None], tokens)], "2")
    assert torch.equal(embedding[0].weight, before)


def test_empty_batches_add_nothing() -> None:
    model, (x, y) = mlp(nn.Tanh()), data(4, 3)
    whole, none = exact_hessian(model, cross_entropy, [(x, y)], "0"), (x[:0], y[:0])
    assert torch.equal(exact_hessian(model, cross_entropy, [none, (x, y), none], "0"), whole)
    with pytest.raises(UsageError, match="no samples"):
        exact_hessian(model, cross_entropy, [none], "0")


@pytest.mark.parametrize("norm", ["spectral", "instance"])
def test_layers_that_move_their_statistics_are_refused_in_train_mode(norm: str) -> None:
    made = nn.Linear(4, 4), nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True))
    middle = nn.utils.parametrizations.spectral_norm(made[0]) if norm == "spectral" else made[1].append(nn.Flatten())
    model = mlp(middle)
    before = {name: value.clone() for name, value in model.named_buffers()}
    with pytest.raises(UsageError, match=r"Norm\w*\) is in train mode; call model.eval"):
        exact_hessian(model, cross_entropy, [data(4, 3)], "2")
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert exact_hessian(model.eval(), cross_entropy, [data(4, 3)], "2").shape == (3, 4, 3, 4)


def test_an_instance_norm_without_statistics_is_the_same_in_train_mode() -> None:
    model = mlp(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten(), nn.Tanh())
    trained, still = (exact_hessian(model.train(mode), cross_entropy, [data(4, 3)], "0") for mode in (True, False))
    assert torch.equal(trained, still)


@pytest.mark.parametrize(
    "batches",
    [
        [((torch.ones(2, 3), torch.ones(2, 3)), torch.zeros(2).long())],
        [{"input": torch.ones(2, 3), "target": torch.zeros(2).long()}],
        (torch.ones(2, 3), torch.zeros(2).long()),
        [(torch.ones(3), torch.tensor(1))],
        [(torch.ones(2, 3), torch.zeros(2).long(), torch.ones(2))],
    ],
)
def test_batches_that_are_no_pairs_of_tensors(batches: Any, no_shape_checks: None) -> None:
    with pytest.raises(UsageError, match="must be a pair"):
        exact_hessian(mlp(), cross_entropy, batches, "0")


@pytest.mark.parametrize("loss", [lambda z, y: cross_entropy(z, y, reduction="none"), lambda z, y: 1.0])
def test_a_loss_must_be_one_number(loss: Any, no_shape_checks: None) -> None:
    with pytest.raises(UsageError, match="one number"):
        exact_hessian(mlp(), loss, [data(4, 3)], "0")


def test_a_complex_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="weight is complex"):
        exact_hessian(nn.Linear(3, 3, dtype=torch.cfloat), lambda z, y: z.abs().mean(), [data(4, 3)], "weight")


def test_what_is_not_finite_is_named() -> None:
    model, (x, y) = mlp(), data(4, 3)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(NonFiniteError, match=r"the loss is (nan|inf|-inf)"):
            exact_hessian(model, lambda z, y, bad=bad: (z * bad).abs().mean(), [(x, y)], "0")
    with pytest.raises(NonFiniteError, match="the loss is nan on a batch"):
        exact_hessian(model, cross_entropy, [(x, y), (x * torch.nan, y)], "0")
    with pytest.raises(NonFiniteError, match="no second derivative"):
        exact_hessian(model, lambda z, y: (z - z.detach()).norm() + (z * 0).sqrt().mean(), [(x, y)], "0")


def test_a_loss_that_is_no_mean_is_refused() -> None:
    """A sum over six samples is not three times the mean of two; one sample's sum is its mean."""
    model, inputs, target = mlp(nn.Tanh()), torch.randn(6, 3).double(), torch.arange(6) % 3
    total = nn.CrossEntropyLoss(reduction="sum")
    for sizes in ([6], [2, 4], [1, 5]):
        parts = list(zip(inputs.split(sizes), target.split(sizes), strict=True))
        with pytest.raises(UsageError, match="must be the mean over its batch"):
            exact_hessian(model, total, parts, "2")
    one = [(inputs[:1], target[:1])]
    torch.testing.assert_close(exact_hessian(model, total, one, "2"), exact_hessian(model, cross_entropy, one, "2"))


def test_a_hessian_larger_than_the_machine_is_refused_at_once() -> None:
    wide = nn.Sequential(nn.Linear(2048, 512), nn.Linear(512, 2)).double()
    batch = (torch.zeros(2, 2048, dtype=torch.float64), torch.tensor([0, 1]))
    with pytest.raises(UsageError, match="needs 16384 GiB"):
        exact_hessian(wide, cross_entropy, [batch], "0")
