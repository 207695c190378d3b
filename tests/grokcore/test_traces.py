"""hessian_trace against dense Hessians, and its estimates' error bars on a real network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import grokcore.traces as module
from grokcore import Estimate, UsageError, exact_hessian
from grokcore.operators import HessianOperator
from grokcore.traces import hessian_trace
from tests.grokcore.test_curvature import CASES, build, cnn, mlp, parameter
from theory.numeric.oracle import mean_squared_loss

cross_entropy = nn.functional.cross_entropy

METHODS = ["hutchinson", "hutch++", "xtrace"]


def in_parts(inputs: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(inputs[:4], target[:4]), (inputs[4:], target[4:])]


@pytest.mark.parametrize(("make", "layer"), CASES)
def test_exact_is_the_trace_of_the_dense_hessian(make: object, layer: str) -> None:
    model, inputs, target = build(make)
    found = hessian_trace(model, cross_entropy, in_parts(inputs, target), layer)
    size = parameter(model, layer).numel()
    dense = exact_hessian(model, cross_entropy, [(inputs, target)], layer).reshape(size, size)
    assert found == Estimate.exact(found.value)
    assert found.value == pytest.approx(float(dense.trace()), rel=1e-10)


def test_all_parameters_are_the_sum_over_each() -> None:
    model, inputs, target = build(cnn)
    whole = hessian_trace(model, cross_entropy, [(inputs, target)]).value
    each = [hessian_trace(model, cross_entropy, [(inputs, target)], name).value for name, _ in model.named_parameters()]
    assert whole == pytest.approx(sum(each), rel=1e-11)
    assert all(abs(value / whole) > 1e-6 for value in each)


def test_a_tied_weight_counts_once_and_its_places_interact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    batch = (torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 3)
    dense = exact_hessian(model, cross_entropy, [batch], "0").reshape(9, 9)
    for layer in (None, "0", "2"):
        assert hessian_trace(model, cross_entropy, [batch], layer).value == pytest.approx(
            float(dense.trace()), rel=1e-12
        )


def test_squared_loss_of_a_linear_model() -> None:
    """An analytic oracle: H = I (x) mean h h^T, whose trace is outputs times the mean of ||h||^2."""
    torch.manual_seed(0)
    model, inputs, target = nn.Linear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 2
    expected = 2 * float(inputs.square().sum(dim=1).mean())
    assert hessian_trace(model, mean_squared_loss, [(inputs, target)], "weight").value == pytest.approx(expected)
    assert hessian_trace(model, mean_squared_loss, [(inputs, target)]).value == pytest.approx(expected + 2)


@pytest.mark.parametrize("method", METHODS)
def test_an_estimate_is_that_of_the_dense_matrix(method: Any) -> None:
    model, inputs, target = build(mlp)
    batches = in_parts(inputs, target)
    dense = HessianOperator(model, cross_entropy, batches).dense()
    found = hessian_trace(model, cross_entropy, batches, method=method, probes=24, seed=3)
    expected = module._ESTIMATORS[method](lambda x: dense @ x, len(dense), probes=24, seed=3)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.stderr == pytest.approx(expected.stderr, rel=1e-6)
    assert (found.probes, found.seed) == (24, 3)
    assert abs(found.value - float(dense.trace())) < 3 * found.stderr


@pytest.mark.parametrize("method", ["exact", *METHODS])
def test_chunks_change_nothing(method: Any) -> None:
    model, inputs, target = build(mlp)
    whole, parts = (
        hessian_trace(model, cross_entropy, [(inputs, target)], method=method, probes=24, chunk_size=size)
        for size in (None, 7)
    )
    assert parts.value == pytest.approx(whole.value, rel=1e-10)


def trained() -> Tensor:
    """The dense Hessian of a small network after a few steps, where a few directions stand out."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    target = torch.arange(64) % 4
    inputs = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    inputs[:, :4] += 2 * nn.functional.one_hot(target, 4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(30):
        optimiser.zero_grad()
        cross_entropy(model(inputs), target).backward()
        optimiser.step()
    return HessianOperator(model, cross_entropy, [(inputs, target)]).dense()


def test_two_standard_errors_hold_the_truth_on_a_trained_network() -> None:
    torch.set_num_threads(1)  # a small matrix
    dense = trained()
    truth = float(dense.trace())
    eigenvalues = torch.linalg.eigvalsh(dense)
    assert eigenvalues[-20:].sum() > 0.7 * truth > 0 > eigenvalues[0]
    for method in METHODS:
        for probes in (24, 60):
            found = [
                module._ESTIMATORS[method](lambda x: dense @ x, len(dense), probes=probes, seed=s) for s in range(200)
            ]
            hits = sum(abs(one.value - truth) <= 2 * one.stderr for one in found)
            assert 0.90 <= hits / 200 <= 0.99, (method, probes)


def test_float32_is_near_float64() -> None:
    model, inputs, target = build(cnn)
    double, single = (
        hessian_trace(model, cross_entropy, [(inputs, target)], dtype=dtype).value
        for dtype in (torch.float64, torch.float32)
    )
    assert single == pytest.approx(double, rel=1e-4)


def test_bad_input(no_shape_checks: None) -> None:
    model, inputs, target = build(mlp)
    with pytest.raises(UsageError, match=r"method must be 'exact', 'hutchinson', 'hutch\+\+', 'xtrace', got 'lanczos'"):
        hessian_trace(model, cross_entropy, [(inputs, target)], method="lanczos")  # type: ignore[arg-type]
    for method in ("exact", "xtrace"):
        with pytest.raises(UsageError, match="reads the batches more than once"):
            hessian_trace(model, cross_entropy, iter([(inputs, target)]), method=method)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="probes must be at least 12, got 4"):
        hessian_trace(model, cross_entropy, [(inputs, target)], method="hutch++", probes=4)
    with pytest.raises(UsageError, match="no samples"):
        hessian_trace(model, cross_entropy, [])


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs, target = build(mlp)
    hessian_trace(model, cross_entropy, [(inputs, target)], chunk_size=8)
    assert capsys.readouterr().err == ""
