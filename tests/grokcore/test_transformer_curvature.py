"""Curvature of EquationTransformer's layers against the dense Hessian, and several models at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore import UsageError, exact_hessian, layer_relative_flatness
from tests.grokcore.test_transformer import batch, gradients, require_close, transformer

LAYERS = [f"blocks.{i}.{name}" for i in (0, 1) for name in ("queries_keys_values", "out", "up", "down")]


def dense_kappa(model: nn.Module, inputs: Tensor, labels: Tensor, layer: str) -> float:
    weight = model.get_submodule(layer).weight.detach()
    hessian = exact_hessian(model, cross_entropy, [(inputs, labels)], layer)
    return float(torch.einsum("si,ti,sjtj->", weight, weight, hessian))


@pytest.mark.parametrize("layer", [*LAYERS, "head"])
def test_kappa_of_a_layer_is_the_dense_hessians(layer: str) -> None:
    """Without shared prefixes every layer is exact; with them a layer is exact too, or refused by name."""
    apart = transformer(3, width=4, share_prefixes=False).eval()
    inputs, labels = batch(3, 5)
    expected = dense_kappa(apart, inputs, labels, layer)
    found = layer_relative_flatness(apart, cross_entropy, [(inputs, labels)], layer)
    assert found.value == pytest.approx(expected, rel=1e-10)
    shared = transformer(3, width=4).eval()
    assert dense_kappa(shared, inputs, labels, layer) == pytest.approx(expected, rel=1e-10)
    if layer == "blocks.1.queries_keys_values":
        refusal = "applied 0 times"  # its two halves are applied to other rows
    elif layer.startswith("blocks.0"):
        refusal = "samples first"
    else:
        found = layer_relative_flatness(shared, cross_entropy, [(inputs, labels)], layer)
        assert found.value == pytest.approx(expected, rel=1e-10)
        return
    with pytest.raises(UsageError, match=refusal):
        layer_relative_flatness(shared, cross_entropy, [(inputs, labels)], layer)


@pytest.mark.parametrize("n", [9, 1])
def test_no_number_of_samples_makes_shared_rows_pass_for_samples(n: int) -> None:
    shared = transformer(3, width=4).eval()
    for layer in LAYERS[:4]:
        with pytest.raises(UsageError, match="samples first"):
            layer_relative_flatness(shared, cross_entropy, [batch(3, n)], layer)


def test_hutchinson_takes_shared_prefixes() -> None:
    shared = transformer(3, width=4).eval()
    inputs, labels = batch(3, 5)
    found = layer_relative_flatness(
        shared, cross_entropy, [(inputs, labels)], "blocks.0.up", method="hutchinson", probes=400
    )
    expected = dense_kappa(shared, inputs, labels, "blocks.0.up")
    assert found.value == pytest.approx(expected, abs=4 * found.stderr)
    assert found.stderr < 0.5 * abs(expected)


@pytest.mark.parametrize("share", [True, False])
def test_several_models_at_once(share: bool) -> None:
    """functional_call under vmap, and its gradients, are each model's own."""
    models = [transformer(seed=seed, share_prefixes=share) for seed in range(3)]
    inputs, labels = batch(5, 6)
    stacked, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return cross_entropy(torch.func.functional_call(models[0], parameters, (inputs,)), labels)

    slopes, losses = torch.vmap(torch.func.grad_and_value(loss))(stacked)
    for index, model in enumerate(models):
        own = cross_entropy(model(inputs), labels)
        torch.testing.assert_close(losses[index], own, rtol=1e-12, atol=0)
        require_close({name: value[index] for name, value in slopes.items()}, gradients(own, model))
    assert len(set(losses.tolist())) == 3
