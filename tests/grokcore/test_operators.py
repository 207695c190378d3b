"""The operators' contract, and the laws of the curvature they stand for.

The Hessian's oracle is torch.func.hessian, which goes forward over reverse. For the transformer it is finite
differences of gradients: forward over reverse drops mixed derivatives of a layer norm's weight (PyTorch 2.13).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from grokcore import UsageError, layer_relative_flatness
from grokcore.curvature import LossFunction
from grokcore.frozen import Batches
from grokcore.operators import CurvatureOperator, GaussNewtonOperator, HessianOperator
from tests.contracts.curvature import CurvatureContract, flat_function
from tests.grokcore.test_curvature import Transformer, build, mlp
from theory.numeric.oracle import mean_squared_loss

cross_entropy = nn.functional.cross_entropy


class TestHessian(CurvatureContract):
    operator = HessianOperator

    def oracle(self, model: nn.Module, inputs: Tensor, target: Tensor, names: list[str]) -> Tensor:
        theta, outputs = flat_function(model, names)
        if not isinstance(model, Transformer):
            return torch.func.hessian(lambda t: cross_entropy(outputs(t, inputs), target))(theta)
        gradient, step = torch.func.grad(lambda t: cross_entropy(outputs(t, inputs), target)), 1e-5
        moves = step * torch.eye(len(theta), dtype=theta.dtype)
        ahead, behind = (torch.vmap(gradient)(theta + sign * moves) for sign in (1, -1))
        return (ahead - behind) / (2 * step)


class TestGaussNewton(CurvatureContract):
    operator = GaussNewtonOperator

    def oracle(self, model: nn.Module, inputs: Tensor, target: Tensor, names: list[str]) -> Tensor:
        theta, outputs = flat_function(model, names)
        shape = outputs(theta, inputs).shape
        jacobian = torch.func.jacrev(lambda t: outputs(t, inputs).flatten())(theta)
        z = outputs(theta, inputs).flatten()
        curvature = torch.func.hessian(lambda z: cross_entropy(z.reshape(shape), target))(z)
        return jacobian.T @ curvature @ jacobian

    def test_is_positive_semidefinite_where_the_hessian_is_not(self) -> None:
        model, inputs, target = build(mlp)
        batches = [(inputs, target)]
        least = [
            float(torch.linalg.eigvalsh(kind(model, cross_entropy, batches).dense()).min())
            for kind in (GaussNewtonOperator, HessianOperator)
        ]
        assert least[0] > -1e-14
        assert least[1] < -1e-3

    def test_is_the_hessian_where_the_outputs_are_piecewise_linear(self) -> None:
        model, inputs, target = build(mlp)
        for layer, equal in (("2", True), ("0", False)):  # ReLU follows layer 2, tanh layer 0
            gauss, hessian = (
                kind(model, cross_entropy, [(inputs, target)], layer).dense()
                for kind in (GaussNewtonOperator, HessianOperator)
            )
            assert torch.allclose(gauss, hessian, rtol=1e-10, atol=1e-14) == equal

    def test_outputs_of_any_shape(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Unflatten(1, (2, 2))).double()
        inputs, target = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, 2, dtype=torch.float64)
        found = GaussNewtonOperator(model, nn.functional.mse_loss, [(inputs, target)]).dense()
        theta, outputs = flat_function(model, ["0.weight", "0.bias"])
        jacobian = torch.func.jacrev(lambda t: outputs(t, inputs).flatten())(theta)
        torch.testing.assert_close(found, jacobian.T @ jacobian * 2 / 20, rtol=1e-12, atol=1e-14)

    def test_an_output_that_is_no_tensor_is_refused(self) -> None:
        model, inputs, target = build(mlp)
        forward = model.forward
        model.forward = lambda x: (forward(x), None)
        found = GaussNewtonOperator(model, lambda z, y: cross_entropy(z[0], y), [(inputs, target)])
        with pytest.raises(UsageError, match="output is one tensor, not tuple"):
            found @ torch.ones(found.dim)
        hessian = HessianOperator(model, lambda z, y: cross_entropy(z[0], y), [(inputs, target)])
        assert (hessian @ torch.ones(hessian.dim)).shape == (64,)


def test_squared_loss_of_a_linear_model_is_the_feature_covariance() -> None:
    """An analytic oracle for both: I (x) mean h h^T."""
    torch.manual_seed(0)
    model, inputs, target = nn.Linear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 2
    expected = torch.kron(torch.eye(2, dtype=torch.float64), inputs.T @ inputs / 5)
    for kind in (HessianOperator, GaussNewtonOperator):
        found = kind(model, mean_squared_loss, [(inputs, target)], "weight").dense()
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def kappa(operator: CurvatureOperator, weight: Tensor) -> float:
    """sum_{s,t} <w_s, w_t> Tr(H_st) as the sum of <v, H v> over v = (column j of W) in column a."""
    columns = torch.einsum("sj,ab->sajb", weight, torch.eye(weight.shape[1], dtype=weight.dtype))
    columns = columns.reshape(weight.numel(), -1)
    return float((columns * (operator @ columns)).sum())


def small(seed: int, activation: type[nn.Module] = nn.ReLU) -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 4), activation(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    inputs = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return model, [(inputs, torch.arange(8) % 3)]


def kappa_of(model: nn.Sequential, batches: Batches, layer: int, loss: LossFunction = cross_entropy) -> float:
    return kappa(HessianOperator(model, loss, batches, str(layer)), model[layer].weight.detach())


class TestInvariance:
    """theory A3, by products with the operator."""

    def test_kappa_is_that_of_the_closed_form(self) -> None:
        model, batches = small(0)
        for layer in (0, 2, 4):
            exact = layer_relative_flatness(model, cross_entropy, batches, str(layer)).value
            assert kappa_of(model, batches, layer) == pytest.approx(exact, rel=1e-10)

    @pytest.mark.parametrize("seed", range(4))
    def test_a_row_added_to_all_rows_of_the_head(self, seed: int) -> None:
        model, batches = small(seed)
        before, squared = (kappa_of(model, batches, 4, loss) for loss in (cross_entropy, mean_squared_loss))
        with torch.no_grad():
            model[4].weight += torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert kappa_of(model, batches, 4) == pytest.approx(before, rel=1e-9)
        # The squared loss sees the shift.
        assert kappa_of(model, batches, 4, mean_squared_loss) != pytest.approx(squared, rel=1e-2)

    @pytest.mark.parametrize("a", [0.2, 7.0])
    def test_layers_scaled_against_each_other(self, a: float) -> None:
        model, batches = small(0)
        before = [kappa_of(model, batches, layer) for layer in (0, 2, 4)]
        trace = float(HessianOperator(model, cross_entropy, batches, "4").dense().trace())
        with torch.no_grad():
            model[4].weight *= a
            model[2].weight /= a
            model[2].bias /= a
        assert [kappa_of(model, batches, layer) for layer in (0, 2, 4)] == pytest.approx(before, rel=1e-9)
        # The trace is no such thing: the features are a times smaller.
        after = float(HessianOperator(model, cross_entropy, batches, "4").dense().trace())
        assert after == pytest.approx(trace / a**2, rel=1e-9)

    def scaled_neuron(self, activation: type[nn.Module], *, bias: bool) -> tuple[list[float], list[float]]:
        model, batches = small(11, activation)
        on = (model[:3](batches[0][0]) > 0).double().mean(dim=0)
        neuron = int((on - 0.5).abs().argmin())
        assert 0.2 < on[neuron] < 0.8
        before = [kappa_of(model, batches, layer) for layer in (2, 4)]
        with torch.no_grad():
            model[2].weight[neuron] *= 3
            model[2].bias[neuron] *= 3 if bias else 1
            model[4].weight[:, neuron] /= 3
        return before, [kappa_of(model, batches, layer) for layer in (2, 4)]

    def test_a_neuron_scaled_with_its_bias(self) -> None:
        before, after = self.scaled_neuron(nn.ReLU, bias=True)
        assert after[0] == pytest.approx(before[0], rel=1e-11)
        assert after[1] != pytest.approx(before[1], rel=1e-2)  # seen from the head, it is a column

    @pytest.mark.parametrize(("activation", "bias"), [(nn.Tanh, True), (nn.ReLU, False)])
    def test_a_neuron_that_is_not_scaled_as_a_whole(self, activation: type[nn.Module], bias: bool) -> None:
        before, after = self.scaled_neuron(activation, bias=bias)
        assert after[0] != pytest.approx(before[0], rel=1e-2)
