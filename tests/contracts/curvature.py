"""What every curvature operator must do: a subclass names its class and its dense oracle, and all tests come along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from grokcore.errors import NonFiniteError, UsageError
from grokcore.operators import CurvatureOperator
from tests.grokcore.test_curvature import build, cnn, mlp, transformer

cross_entropy = nn.functional.cross_entropy

CASES = [(mlp, None), (mlp, "2"), (cnn, None), (cnn, "0"), (transformer, None), (transformer, "norm")]


def flat_function(model: nn.Module, names: list[str]) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """The flat vector of the named parameters, and the outputs as a function of it and of the inputs."""
    values = [dict(model.named_parameters())[name].detach() for name in names]

    def outputs(theta: Tensor, inputs: Tensor) -> Tensor:
        parts = theta.split([value.numel() for value in values])
        weights = {name: part.view_as(value) for name, part, value in zip(names, parts, values, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.func.functional_call(model, weights, (inputs,))

    return torch.cat([value.flatten() for value in values]), outputs


def random_columns(operator: CurvatureOperator, k: int, seed: int = 0) -> Tensor:
    return torch.randn(operator.dim, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def snapshot(model: nn.Module) -> list[Any]:
    tensors = [(name, id(value), value.detach().clone()) for name, value in model.state_dict(keep_vars=True).items()]
    return [tensors, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


def unchanged(model: nn.Module, before: list[Any]) -> bool:
    tensors, *rest = snapshot(model)
    same = all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(tensors, before[0], strict=True))
    return same and rest == before[1:] and all(p.grad is None for p in model.parameters())


class CurvatureContract:
    operator: ClassVar[type[CurvatureOperator]]

    @pytest.fixture(autouse=True)
    def one_thread(self, two_threads: None) -> None:
        """The matrices are small."""
        torch.set_num_threads(1)

    def oracle(self, model: nn.Module, inputs: Tensor, target: Tensor, names: list[str]) -> Tensor:
        """The dense matrix of the mean cross-entropy, by a route of its own."""
        raise NotImplementedError

    @pytest.mark.parametrize(("make", "layer"), CASES)
    def test_is_the_dense_oracle(self, make: object, layer: str | None) -> None:
        model, inputs, target = build(make)
        found = self.operator(model, cross_entropy, [(inputs, target)], layer)
        expected = self.oracle(model, inputs, target, found.names).detach()
        assert found.shape == expected.shape == (found.dim, found.dim)
        # The transformer's Hessian oracle is made of finite differences.
        torch.testing.assert_close(found.dense(), expected, rtol=1e-6, atol=1e-8 if make is transformer else 1e-12)
        assert float(expected.abs().max()) > 1e-3

    @pytest.mark.parametrize(("make", "layer"), CASES)
    def test_is_symmetric(self, make: object, layer: str | None) -> None:
        model, inputs, target = build(make)
        dense = self.operator(model, cross_entropy, [(inputs, target)], layer).dense()
        torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-14)

    @pytest.mark.parametrize(("a", "b", "seed"), [(2.0, -0.3, 0), (-1e3, 1e-3, 1), (0.0, 1.0, 2)])
    def test_is_linear(self, a: float, b: float, seed: int) -> None:
        model, inputs, target = build(mlp)
        found = self.operator(model, cross_entropy, [(inputs, target)])
        u, v = random_columns(found, 2, seed).T
        torch.testing.assert_close(found @ (a * u + b * v), a * (found @ u) + b * (found @ v), rtol=1e-10, atol=1e-11)

    def test_a_vector_is_one_column(self) -> None:
        model, inputs, target = build(cnn)
        found = self.operator(model, cross_entropy, [(inputs, target)])
        columns = random_columns(found, 3)
        together = found @ columns
        for k in range(3):
            assert (found @ columns[:, k]).shape == (found.dim,)
            torch.testing.assert_close(found @ columns[:, k], together[:, k], rtol=1e-12, atol=1e-14)
        assert not torch.allclose(together[:, 0], together[:, 1])

    def test_uneven_batches_weigh_samples_alike(self) -> None:
        model, inputs, target = build(cnn)
        parts = [(inputs[:1], target[:1]), (inputs[1:1], target[1:1]), (inputs[1:], target[1:])]
        whole = self.operator(model, cross_entropy, [(inputs, target)])
        columns = random_columns(whole, 2)
        split = self.operator(model, cross_entropy, parts)
        assert split.samples == 6
        torch.testing.assert_close(split @ columns, whole @ columns, rtol=1e-12, atol=1e-14)
        halves = sum(self.operator(model, cross_entropy, [parts[i]]) @ columns for i in (0, 2)) / 2
        assert not torch.allclose(halves, whole @ columns, rtol=1e-3)

    def test_chunks_change_nothing(self) -> None:
        model, inputs, target = build(transformer)
        whole = self.operator(model, cross_entropy, [(inputs, target)], "qkv").dense()
        chunked = self.operator(model, cross_entropy, [(inputs, target)], "qkv", chunk_size=25)
        assert chunked.chunk_size == 25
        torch.testing.assert_close(chunked.dense(), whole, rtol=1e-12, atol=1e-14)

    def test_memory_bounds_the_columns_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, inputs, target = build(mlp)
        whole = self.operator(model, cross_entropy, [(inputs, target)])
        monkeypatch.setattr("grokcore.operators._MEMORY", 10_000)
        small = self.operator(model, cross_entropy, [(inputs, target)])
        assert 1 <= small.chunk_size < whole.chunk_size == 64
        many = self.operator(model, cross_entropy, [(inputs.repeat(9, 1), target.repeat(9))])
        assert many.chunk_size < small.chunk_size
        torch.testing.assert_close(small.dense(), whole.dense(), rtol=1e-12, atol=1e-14)

    def test_tied_weights_are_one_variable(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
        inputs, target = torch.randn(4, 3, dtype=torch.float64), torch.arange(4) % 3
        apart = self.operator(model, cross_entropy, [(inputs, target)], "0").dense()
        model[2].weight = model[0].weight
        for layer in (None, "0", "2"):
            found = self.operator(model, cross_entropy, [(inputs, target)], layer)
            assert (found.dim, found.names) == (9, ["0.weight"])
            expected = self.oracle(model, inputs, target, found.names).detach()
            torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-14)
            assert not torch.allclose(found.dense(), apart, rtol=1e-2)

    def test_parameters_that_want_no_gradient_are_left_out(self) -> None:
        model, inputs, target = build(mlp)
        model[0].requires_grad_(False)  # type: ignore[index]
        found = self.operator(model, cross_entropy, [(inputs, target)])
        assert found.names == ["2.weight", "2.bias", "4.weight", "4.bias"]
        model.requires_grad_(False)
        with pytest.raises(UsageError, match="no parameter of the model requires a gradient"):
            self.operator(model, cross_entropy, [(inputs, target)])
        assert self.operator(model, cross_entropy, [(inputs, target)], "0").dim == 20

    def test_the_model_and_the_callers_mode_are_left_alone(self) -> None:
        model, inputs, target = build(cnn)
        model[0].train()  # type: ignore[index]
        before = snapshot(model)
        found = self.operator(model, cross_entropy, [(inputs, target)])
        with torch.no_grad():
            product = found @ random_columns(found, 1)
        assert not product.requires_grad
        torch.testing.assert_close(product, found @ random_columns(found, 1), rtol=0, atol=0)
        assert unchanged(model, before)

    def test_errors_leave_the_model_alone(self) -> None:
        model, inputs, target = build(cnn)
        before, fails = snapshot(model), []

        def loss(output: Tensor, y: Tensor) -> Tensor:
            if fails:
                raise KeyError("user's own")
            return cross_entropy(output, y)

        found = self.operator(model, loss, [(inputs, target)])
        fails.append(True)
        with pytest.raises(KeyError, match="user's own"):
            found @ random_columns(found, 1)
        assert unchanged(model, before)
        assert torch.backends.mha.get_fastpath_enabled()

    def test_float32_is_near_float64(self) -> None:
        model, inputs, target = build(mlp)
        double, single = (
            self.operator(model, cross_entropy, [(inputs, target)], dtype=dtype)
            for dtype in (torch.float64, torch.float32)
        )
        product = single @ random_columns(double, 2)
        assert product.dtype == single.dtype == torch.float32
        torch.testing.assert_close(product.double(), double @ random_columns(double, 2), rtol=1e-4, atol=1e-5)

    def test_an_iterator_is_refused_at_once(self) -> None:
        model, inputs, target = build(mlp)
        batches = iter([(inputs, target)])
        with pytest.raises(UsageError, match=r"Operator reads the batches more than once; pass a list or a DataLoader"):
            self.operator(model, cross_entropy, batches)
        assert next(batches)[0] is inputs

    def test_batches_that_differ_from_pass_to_pass_are_refused(self) -> None:
        model, inputs, target = build(mlp)
        batches = [(inputs, target)]
        found = self.operator(model, cross_entropy, batches)
        columns = random_columns(found, 1)
        expected = found @ columns
        batches[:] = [(inputs[order], target[order]) for order in (torch.tensor([4, 2]), torch.tensor([0, 5, 1, 3]))]
        torch.testing.assert_close(found @ columns, expected, rtol=1e-12, atol=1e-14)
        batches.append((inputs, target))
        with pytest.raises(UsageError, match="held 6 samples at first and 12 now"):
            found @ columns
        batches[:] = [(inputs + 0.01, target)]
        with pytest.raises(UsageError, match=r"mean loss was .* at first and is .* now"):
            found @ columns
        batches.clear()
        with pytest.raises(UsageError, match="held 6 samples at first and 0 now"):
            found @ columns

    def test_a_model_that_was_trained_in_between_is_refused(self) -> None:
        model, inputs, target = build(mlp)
        found = self.operator(model, cross_entropy, [(inputs, target)])
        with torch.no_grad():
            model[0].weight += 0.1  # type: ignore[index]
        with pytest.raises(UsageError, match="or the model has changed"):
            found @ random_columns(found, 1)

    @pytest.mark.parametrize("shape", [(3,), (65, 2), (64, 2, 2), ()])
    def test_vectors_of_another_size_are_refused(self, shape: tuple[int, ...], no_shape_checks: None) -> None:
        model, inputs, target = build(mlp)
        with pytest.raises(UsageError, match=r"\(64,\) or \(64, k\)"):
            self.operator(model, cross_entropy, [(inputs, target)]) @ torch.ones(shape)

    def test_what_is_not_finite_is_named(self) -> None:
        model, inputs, target = build(mlp)
        found = self.operator(model, cross_entropy, [(inputs, target)])
        with pytest.raises(NonFiniteError, match="vector of a product"):
            found @ torch.full((64,), torch.nan)
        with pytest.raises(NonFiniteError, match="the loss is nan"):
            self.operator(model, cross_entropy, [(inputs * torch.nan, target)])
        rooted = self.operator(model, lambda z, y: cross_entropy(z, y) + (z * 0).sqrt().mean(), [(inputs, target)])
        with pytest.raises(NonFiniteError, match="no second derivative"):
            rooted @ random_columns(rooted, 1)

    def test_losses_and_modes_that_are_no_measurement_are_refused(self) -> None:
        model, inputs, target = build(cnn)
        halves = [(inputs[:3], target[:3]), (inputs[3:], target[3:])]
        with pytest.raises(UsageError, match="must be the mean over its batch"):
            self.operator(model, lambda z, y: cross_entropy(z, y, reduction="sum"), halves)
        with pytest.raises(UsageError, match="not deterministic"):
            self.operator(model, lambda z, y: cross_entropy(z + torch.randn_like(z), y), halves)
        with pytest.raises(UsageError, match="no samples"):
            self.operator(model, cross_entropy, [])
        with pytest.raises(UsageError, match="chunk_size"):
            self.operator(model, cross_entropy, halves, chunk_size=0)
        with pytest.raises(UsageError, match="no layer or parameter 'fc'"):
            self.operator(model, cross_entropy, halves, "fc")
        with pytest.raises(UsageError, match=r"BatchNorm2d.*eval"):
            self.operator(model.train(), cross_entropy, halves)
