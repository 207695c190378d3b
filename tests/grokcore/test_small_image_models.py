"""The models of the dynamics experiment against what their docstrings say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from grokcore import UsageError, layer_relative_flatness, measure
from grokcore.models.image_mlp import ImageMLP
from grokcore.models.one_layer_vit import OneLayerViT
from grokcore.models.small_cnn import SmallCNN


def images(n: int, side: int = 8) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0))


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "mlp":
        return ImageMLP(64, 10, hidden=(12, 11, 9))
    return (
        SmallCNN(8, 10, channels=(3, 4), hidden=9) if name == "cnn" else OneLayerViT(8, 10, patch=2, width=8, heads=2)
    )


@pytest.mark.parametrize("name", ["mlp", "cnn", "vit"])
def test_samples_are_apart_and_measured(name: str) -> None:
    model, x, y = built(name), images(20), torch.arange(20) % 10
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(each[None]) for each in x])
    assert together.shape == (20, 10)
    assert torch.allclose(together, alone, atol=1e-6)
    report = measure(model, [(x, y)], head="head")
    kappa = layer_relative_flatness(model, nn.functional.cross_entropy, [(x, y)], "head")
    assert float(kappa) == pytest.approx(report.kappa, rel=1e-4)


def test_the_mlp_by_hand() -> None:
    model, x = built("mlp"), images(3)
    h = x.flatten(1)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for layer in linears[:-1]:
        h = torch.relu(h @ layer.weight.T + layer.bias)
    assert torch.allclose(model(x), h @ linears[-1].weight.T + linears[-1].bias, atol=1e-6)
    assert sum(p.numel() for p in ImageMLP(784, 10).parameters()) == 784 * 200 + 200 + 2 * 200 * 201 + 2010


def test_a_linear_pair_is_one_linear_map_of_the_layer_before() -> None:
    torch.manual_seed(0)
    model, x = ImageMLP(64, 10, hidden=(12, 9), linear_pair=True), images(5)
    first, second = (m for m in model.body if isinstance(m, nn.Linear))
    assert second.bias is None
    seen = torch.relu(first(x.flatten(1)))
    product = model.head.weight @ second.weight
    assert torch.allclose(model(x), seen @ product.T + model.head.bias, atol=1e-6)
    plain = ImageMLP(64, 10, hidden=(12, 9))
    assert isinstance(plain.body[-1], nn.ReLU)


def test_the_vit_sees_where_a_patch_is() -> None:
    """Positions make it more than a bag of patches; without them it is one."""
    model, x = built("vit"), images(4)
    swapped = x.clone()
    swapped[:, :, :2, :2], swapped[:, :, 4:6, 4:6] = x[:, :, 4:6, 4:6], x[:, :, :2, :2]
    with torch.no_grad():
        assert not torch.allclose(model(x), model(swapped), atol=1e-4)
        model.positions.zero_()
        assert torch.allclose(model(x), model(swapped), atol=1e-6)


def test_the_vits_attention_is_pytorchs() -> None:
    model, x = built("vit"), images(4)
    joined = model.attend(torch.rand(4, 16, 8, generator=torch.Generator().manual_seed(1)))
    q, k, v = (part.reshape(4, 16, 2, 4).transpose(1, 2) for part in joined.chunk(3, dim=-1))
    expected = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(4, 16, 8)
    assert torch.allclose(model._attention(joined), expected, atol=1e-6)
    assert x.shape[0] == 4


def test_sizes_that_cannot_be() -> None:
    for build in (
        lambda: ImageMLP(64, 10, hidden=()),
        lambda: ImageMLP(64, 0),
        lambda: SmallCNN(3, 10),
        lambda: OneLayerViT(8, 10, patch=3),
        lambda: OneLayerViT(8, 10, patch=2, width=10, heads=4),
    ):
        with pytest.raises(UsageError, match="must be"):
            build()
