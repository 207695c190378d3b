"""What layer_relative_flatness refuses: one clear line each, and the model keeps neither hooks nor another mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from grokcore import UsageError, layer_relative_flatness
from tests.grokcore.test_curvature import build, cnn, mlp
from tests.grokcore.test_layer_flatness import dense

cross_entropy = nn.functional.cross_entropy


@pytest.mark.parametrize(
    ("layer", "message"),
    [("9", "no layer or parameter '9'"), ("1", "has no parameter"), ("4.bias", "weight of an nn.Linear")],
)
def test_layers_that_are_none(layer: str, message: str) -> None:
    model, inputs, target = build(mlp)
    with pytest.raises(UsageError, match=message):
        layer_relative_flatness(model, cross_entropy, [(inputs, target)], layer)


def test_a_layer_applied_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).tanh())

    model = Twice().double()
    batch = (torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 3)
    with pytest.raises(UsageError, match="applied once"):
        layer_relative_flatness(model, cross_entropy, [batch], "layer")
    assert not model.layer._forward_hooks
    estimate = layer_relative_flatness(model, cross_entropy, [batch], "layer", method="hutchinson", probes=400)
    assert abs(estimate.value - dense(model, [batch], "layer")) < 5 * estimate.stderr


@pytest.mark.parametrize("tokens", [5, 4])
@pytest.mark.parametrize("fold", ["tokens first", "tokens among samples"])
def test_samples_that_do_not_come_first(fold: str, tokens: int) -> None:
    """Their positions would be taken for samples, and the terms between them be lost; 4 is also the samples."""

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            if fold == "tokens first":
                return self.layer(x.transpose(0, 1)).tanh().mean(dim=0)
            return self.layer(x.flatten(0, 1)).tanh().unflatten(0, x.shape[:2]).mean(dim=1)

    model = Folded().double()
    batch = (torch.randn(4, tokens, 3, dtype=torch.float64), torch.arange(4) % 3)
    with pytest.raises(UsageError, match="the samples first in what enters"):
        layer_relative_flatness(model, cross_entropy, [batch], "layer")


def test_a_weight_that_another_layer_shares() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    with pytest.raises(UsageError, match="one place"):
        layer_relative_flatness(model, cross_entropy, [(torch.randn(2, 3).double(), torch.tensor([0, 1]))], "0")


def test_grouped_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 2, groups=2), nn.Flatten(), nn.Linear(2, 2)).double()
    with pytest.raises(UsageError, match="one group"):
        layer_relative_flatness(model, cross_entropy, [(torch.randn(2, 2, 2, 2).double(), torch.tensor([0, 1]))], "0")


def test_train_mode_no_samples_and_wrong_words(no_shape_checks: None) -> None:
    model, inputs, target = build(cnn)
    with pytest.raises(UsageError, match="no samples"):
        layer_relative_flatness(model, cross_entropy, [], "0")
    with pytest.raises(UsageError, match="method must be"):
        layer_relative_flatness(model, cross_entropy, [], "0", method="xtrace")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="probes must be"):
        layer_relative_flatness(model, cross_entropy, [], "0", method="hutchinson", probes=0)
    with pytest.raises(UsageError, match="train mode"):
        layer_relative_flatness(model.train(), cross_entropy, [(inputs, target)], "0")
    assert model.training


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(reduction="sum"), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 1.0]).double())],
)
def test_losses_that_are_no_mean_over_samples(loss: nn.Module) -> None:
    model, inputs, target = build(mlp)
    with pytest.raises(UsageError, match="must be the mean over its batch"):
        layer_relative_flatness(model, loss, [(inputs, target)], "2")


def test_a_layer_that_the_output_ignores() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.head = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.idle(x)
            return self.head(x)

    with pytest.raises(UsageError, match="no gradient of the loss reaches layer 'idle'"):
        layer_relative_flatness(Idle(), cross_entropy, [(torch.randn(4, 3), torch.arange(4) % 3)], "idle")


def test_an_error_in_the_loss_leaves_no_hook() -> None:
    model, inputs, target = build(mlp)
    with pytest.raises(IndexError):
        layer_relative_flatness(model, cross_entropy, [(inputs, target + 7)], "2")
    assert not model[2]._forward_hooks  # type: ignore[index]


def test_a_subclass_of_linear_counts_by_what_it_computes() -> None:
    """The same map in other steps is taken, and exact; one of a normalised weight is refused."""

    class InSteps(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return torch.stack([input @ row for row in self.weight], dim=-1) + self.bias

    class Cosine(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.linear(input, nn.functional.normalize(self.weight), self.bias)

    batch = (torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 4)
    for layer in (InSteps(3, 5), Cosine(3, 5)):
        model = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 4)).double()
        if isinstance(layer, InSteps):
            found = layer_relative_flatness(model, cross_entropy, [batch], "0")
            assert found.value == pytest.approx(dense(model, [batch], "0"), rel=1e-10)
        else:
            with pytest.raises(UsageError, match="'hutchinson'"):
                layer_relative_flatness(model, cross_entropy, [batch], "0")
