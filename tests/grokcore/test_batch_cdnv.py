"""The batch CDNV's gradient in closed form against its own graph, and every higher derivative."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import cdnv
from grokcore.batch_cdnv import _Batch


@given(seed=st.integers(0, 1000), K=st.integers(2, 9), n=st.integers(1, 30), m=st.integers(1, 7), spare=st.booleans())
def test_the_gradient_is_that_of_the_graph(seed: int, K: int, n: int, m: int, spare: bool) -> None:
    """Absent classes, classes of one sample and batches of one class too."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, m, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(K, (n,), generator=generator)
    value = cdnv(features, labels, K + spare)
    (fast,) = torch.autograd.grad(value, features)
    graph = _Batch(features, labels, K + spare).value()
    wanted = torch.autograd.grad(graph, features)[0] if graph.requires_grad else torch.zeros_like(features)
    torch.testing.assert_close(value, graph)
    torch.testing.assert_close(fast, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


def test_many_classes_take_the_gram_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 20, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.arange(300) % 100
    (fast,) = torch.autograd.grad(cdnv(features, labels, 100), features)
    (wanted,) = torch.autograd.grad(_Batch(features, labels, 100).value(), features)
    torch.testing.assert_close(fast, wanted, rtol=1e-9, atol=1e-14)


def test_second_derivatives_by_three_routes() -> None:
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(12) % 3

    def value(h: torch.Tensor) -> torch.Tensor:
        return cdnv(h, labels, 4)

    leaf = features.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, leaf)
    assert torch.autograd.gradgradcheck(value, leaf)
    forward_over_reverse = torch.func.hessian(value)(features)
    torch.testing.assert_close(forward_over_reverse, torch.autograd.functional.hessian(value, features))
    assert float(forward_over_reverse.abs().max()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_come_in_the_features_dtype(dtype: torch.dtype) -> None:
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(cdnv(features, torch.arange(12) % 3, 3), features)
    assert gradient.dtype is dtype
    assert bool(gradient.isfinite().all())
