"""exact_hessian against two routes that share no differentiation mode with it.

exact_hessian goes forward over reverse; the second route is reverse over reverse (autograd twice), the third
central finite differences of plain gradients. Models: an MLP, a small CNN, a one-block transformer.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from grokcore import UsageError, exact_hessian, relative_flatness
from theory.numeric.oracle import mean_squared_loss

cross_entropy = nn.functional.cross_entropy


class Transformer(nn.Module):
    """Embedding, one attention block with layer norm, mean over tokens, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.qkv = nn.Linear(6, 18)
        self.out = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        a = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm(x + self.out(a.transpose(1, 2).flatten(2)))
        return self.head((x + self.mlp(x)).mean(dim=1))


def mlp() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(6, 4)


def cnn() -> tuple[nn.Module, Tensor]:
    layers = (nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.GELU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(6, 1, 4, 4)


def transformer() -> tuple[nn.Module, Tensor]:
    return Transformer(), torch.randint(0, 7, (6, 5))


CASES = [
    (mlp, "0"), (mlp, "2"), (mlp, "4"), (mlp, "4.bias"),
    (cnn, "0"), (cnn, "5"),
    (transformer, "qkv"), (transformer, "norm"), (transformer, "embed"), (transformer, "head"),
]  # fmt: skip


def build(make: object) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(3)
    model, inputs = make()  # type: ignore[operator]
    model = model.double().eval()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return model, inputs, torch.arange(6) % 3


def parameter(model: nn.Module, layer: str) -> nn.Parameter:
    named = dict(model.named_parameters())
    return named[layer] if layer in named else named[f"{layer}.weight"]


def reverse_over_reverse(model: nn.Module, inputs: Tensor, target: Tensor, layer: str) -> Tensor:
    weight = parameter(model, layer)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(cross_entropy(model(inputs), target), weight, create_graph=True)
        rows = [torch.autograd.grad(g, weight, retain_graph=True)[0] for g in gradient.flatten()]
    return torch.stack(rows).reshape(*weight.shape, *weight.shape)


@pytest.mark.parametrize(("make", "layer"), CASES)
def test_equals_reverse_over_reverse(make: object, layer: str) -> None:
    model, inputs, target = build(make)
    found = exact_hessian(model, cross_entropy, [(inputs, target)], layer)
    expected = reverse_over_reverse(model, inputs, target, layer)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("make", "layer"), CASES)
def test_equals_finite_differences_of_gradients(make: object, layer: str) -> None:
    model, inputs, target = build(make)
    found = exact_hessian(model, cross_entropy, [(inputs, target)], layer)
    weight, step = parameter(model, layer), 1e-5
    columns = []
    for index in range(weight.numel()):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[index] += sign * step
            ends.append(torch.autograd.grad(cross_entropy(model(inputs), target), weight)[0])
            with torch.no_grad():
                weight.view(-1)[index] -= sign * step
        columns.append((ends[0] - ends[1]).flatten() / (2 * step))
    expected = torch.stack(columns).reshape(found.shape)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [mlp, cnn, transformer])
def test_is_symmetric(make: object) -> None:
    model, inputs, target = build(make)
    layer = {mlp: "2", cnn: "0", transformer: "qkv"}[make]  # type: ignore[index]
    hessian = exact_hessian(model, cross_entropy, [(inputs, target)], layer)
    flat = hessian.reshape(parameter(model, layer).numel(), -1)
    assert torch.allclose(flat, flat.T, rtol=0, atol=1e-13)
    assert float(flat.abs().max()) > 1e-4


def test_two_tokens_through_the_vocabulary_are_not_the_head_alone() -> None:
    """A negative: the Hessian of another layer is another matrix, of another shape."""
    model, inputs, target = build(transformer)
    shapes = {layer: exact_hessian(model, cross_entropy, [(inputs, target)], layer).shape for layer in ("out", "head")}
    assert shapes == {"out": (6, 6, 6, 6), "head": (3, 6, 3, 6)}


def test_contraction_is_the_closed_form_on_a_trained_style_network() -> None:
    """The head's kappa by the definition against relative_flatness, which forms no Hessian."""
    model, inputs, target = build(mlp)
    hessian = exact_hessian(model, cross_entropy, [(inputs, target)], "4")
    head = model[4]  # type: ignore[index]
    features = model[:4](inputs)  # type: ignore[index]
    weight = head.weight.detach()
    kappa = torch.einsum("sjtj,st->", hessian, weight @ weight.T)
    assert float(kappa) == pytest.approx(
        float(relative_flatness(features.detach(), weight, head.bias.detach())), rel=1e-11
    )


def test_uneven_batches_weigh_samples_alike() -> None:
    model, inputs, target = build(cnn)
    whole = exact_hessian(model, cross_entropy, [(inputs, target)], "5")
    parts = [(inputs[:1], target[:1]), (inputs[1:], target[1:])]
    assert torch.allclose(exact_hessian(model, cross_entropy, parts, "5"), whole, rtol=1e-12, atol=1e-14)
    halves = sum(exact_hessian(model, cross_entropy, [part], "5") for part in parts) / 2
    assert not torch.allclose(halves, whole, rtol=1e-3)


def test_chunks_change_nothing() -> None:
    model, inputs, target = build(transformer)
    whole = exact_hessian(model, cross_entropy, [(inputs, target)], "head")
    assert torch.allclose(exact_hessian(model, cross_entropy, [(inputs, target)], "head", chunk_size=5), whole)


def test_squared_loss_of_a_linear_model_is_the_feature_covariance() -> None:
    """An analytic oracle: H = I (x) mean h h^T."""
    torch.manual_seed(0)
    model, inputs, target = nn.Linear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 2
    found = exact_hessian(model, mean_squared_loss, [(inputs, target)], "weight")
    covariance = inputs.T @ inputs / 5
    expected = torch.einsum("st,jk->sjtk", torch.eye(2, dtype=torch.float64), covariance)
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-15)


def test_float32_model_is_measured_in_float64_and_left_alone() -> None:
    model, inputs, target = build(mlp)
    single = copy.deepcopy(model).float()
    before = {k: v.clone() for k, v in single.state_dict().items()}
    found = exact_hessian(single, cross_entropy, [(inputs.float(), target)], "2")
    assert found.dtype == torch.float64
    assert all(torch.equal(v, before[k]) for k, v in single.state_dict().items())
    assert all(p.dtype == torch.float32 and p.grad is None for p in single.parameters())


def test_encoder_layers_of_the_library_work_too() -> None:
    """Their fused path, taken in eval mode without gradients, has no second derivative."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 3)).double().eval()
    inputs, target = torch.randn(4, 3, 4, dtype=torch.float64), torch.arange(4) % 3
    fast = torch.backends.mha.get_fastpath_enabled()
    found = exact_hessian(model, cross_entropy, [(inputs, target)], "0.self_attn.in_proj_weight")
    expected = reverse_over_reverse(model, inputs, target, "0.self_attn.in_proj_weight")
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_tied_weight_is_differentiated_in_both_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    inputs, target = torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 3
    expected = reverse_over_reverse(model, inputs, target, "0")
    assert torch.allclose(exact_hessian(model, cross_entropy, [(inputs, target)], "0"), expected, rtol=1e-10)


def test_a_module_that_stands_in_the_model_twice_is_left_whole() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.Tanh(), layer).double()
    before = layer.weight
    batch = (torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 3)
    found = exact_hessian(model, cross_entropy, [batch], "0")
    assert layer.weight is before
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert torch.allclose(found, reverse_over_reverse(model, *batch, "0"), rtol=1e-10)


class TestRefusals:
    """Each with one clear line, and the model left as it was."""

    def test_unknown_layer_lists_what_there_is(self) -> None:
        model, inputs, target = build(mlp)
        with pytest.raises(UsageError, match=r"no layer or parameter 'fc'.*4\.weight"):
            exact_hessian(model, cross_entropy, [(inputs, target)], "fc")

    def test_no_samples(self) -> None:
        model, _, _ = build(mlp)
        with pytest.raises(UsageError, match="no samples"):
            exact_hessian(model, cross_entropy, [], "2")

    def test_batch_norm_in_train_mode(self) -> None:
        model, inputs, target = build(cnn)
        model.train()
        with pytest.raises(UsageError, match=r"BatchNorm2d.*eval"):
            exact_hessian(model, cross_entropy, [(inputs, target)], "5")
        assert model.training

    def test_dropout_in_train_mode_but_not_in_eval(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double()
        batch = (torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 2)
        with pytest.raises(UsageError, match="Dropout"):
            exact_hessian(model, cross_entropy, [batch], "1")
        assert exact_hessian(model.eval(), cross_entropy, [batch], "1").shape == (2, 3, 2, 3)

    def test_a_loss_that_is_not_deterministic(self) -> None:
        model, inputs, target = build(mlp)

        def noisy(output: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(output + torch.randn_like(output), y)

        with pytest.raises(UsageError, match="not deterministic"):
            exact_hessian(model, noisy, [(inputs, target)], "2")
