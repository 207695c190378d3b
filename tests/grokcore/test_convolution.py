"""Convolution: conv2d with all its derivatives, and one product where every output sees the whole map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from grokcore import UsageError
from grokcore.models.convolution import Convolution, multiply_adds, windows
from grokcore.models.pixels import normalised
from tests.cases import TOLERANCE

SHAPES = [(size, kernel, stride) for size in range(1, 6) for kernel in (1, 3) for stride in (1, 2)]


def layer(kernel: int, stride: int, given: int = 3, out: int = 4) -> Convolution:
    torch.manual_seed(kernel + 10 * stride)
    return Convolution(given, out, kernel, stride).double()


def curved(x: Tensor) -> Tensor:
    """A scalar with derivatives of every order in the map."""
    return (x.sin() * torch.linspace(0.5, 2, x.numel(), dtype=x.dtype).view_as(x)).sum()


def derivatives(function: object, x: Tensor, weight: Tensor, directions: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Value, gradients and Hessian-vector products in the input and the weight, and a third derivative."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = function(x, weight)  # type: ignore[operator]
    slopes = torch.autograd.grad(curved(out), (x, weight), create_graph=True)
    along = sum((s * d).sum() for s, d in zip(slopes, directions, strict=True))
    products = torch.autograd.grad(along, (x, weight), create_graph=True)
    third = torch.autograd.grad(sum((p * d).sum() for p, d in zip(products, directions, strict=True)), (x, weight))
    return [out, *slopes, *products, *third]


def require_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[torch.float64], atol=1e-12)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("size", "kernel", "stride"), SHAPES)
def test_it_is_conv2d_with_all_its_derivatives(size: int, kernel: int, stride: int, channels_last: bool) -> None:
    module = layer(kernel, stride)
    x = torch.randn(5, 3, size, size, dtype=torch.float64)
    weight, directions = module.weight.detach(), (torch.randn_like(x), torch.randn_like(module.weight))
    if channels_last:
        x, weight = (each.contiguous(memory_format=torch.channels_last) for each in (x, weight))

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": weight}, (x,))

    def theirs(x: Tensor, weight: Tensor) -> Tensor:
        return conv2d(x, weight, None, stride, kernel // 2)

    require_close(derivatives(ours, x, weight, directions), derivatives(theirs, x, weight, directions))


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_transforms_see_conv2d_too(size: int, stride: int) -> None:
    """Forward over reverse, several weights at once and several cotangents at once."""
    module, x = layer(3, stride), torch.randn(2, 3, size, size, dtype=torch.float64)
    weights = torch.randn(4, *module.weight.shape, dtype=torch.float64)

    def ours(weight: Tensor) -> Tensor:
        return curved(torch.func.functional_call(module, {"weight": weight}, (x,)))

    def theirs(weight: Tensor) -> Tensor:
        return curved(conv2d(x, weight, None, stride, 1))

    def product(function: object, weight: Tensor) -> Tensor:
        return torch.func.jvp(torch.func.grad(function), (weight,), (weights[0],))[1]  # type: ignore[arg-type]

    require_close(
        [torch.vmap(lambda w: product(ours, w))(weights), torch.vmap(torch.func.grad(ours))(weights)],
        [
            torch.stack([product(theirs, w) for w in weights]),
            torch.stack([torch.func.grad(theirs)(w) for w in weights]),
        ],
    )
    leaf = weights[0].clone().requires_grad_()
    out = torch.func.functional_call(module, {"weight": leaf}, (x,))
    cotangents = torch.randn(3, *out.shape, dtype=torch.float64)
    (batched,) = torch.autograd.grad(out, leaf, cotangents, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(out, leaf, each, retain_graph=True)[0] for each in cotangents]
    require_close([batched], [torch.stack(one_by_one)])


@given(size=st.integers(1, 8), kernel=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 3))
def test_windows_are_those_of_outputs_that_all_see_the_whole_map(size: int, kernel: int, stride: int) -> None:
    padding = kernel // 2
    starts = range(-padding, size + padding - kernel + 1, stride)
    seen = [[pixel - start for pixel in range(size) if 0 <= pixel - start < kernel] for start in starts]
    whole = all(len(taps) == size for taps in seen)
    assert windows(size, kernel, stride, padding) == (tuple((t[0], t[-1] + 1) for t in seen) if whole else ())


@pytest.mark.parametrize(("size", "product"), [((1, 1), True), ((2, 2), True), ((1, 2), True), ((3, 1), False)])
def test_a_product_is_taken_only_there(size: tuple[int, int], product: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: nn.Conv2d, input: Tensor) -> Tensor:
        raise AssertionError("conv2d")

    module, x = layer(3, 1), torch.randn(2, 3, *size, dtype=torch.float64)
    expected = conv2d(x, module.weight, None, 1, 1)
    monkeypatch.setattr(nn.Conv2d, "forward", refuse)
    if product:
        require_close([module(x)], [expected])
    else:
        with pytest.raises(AssertionError, match="conv2d"):
            module(x)


def test_gradients_lie_as_their_weights_do() -> None:
    """Fused optimisers read memory in its order and do not ask for strides."""
    for size in (1, 2, 4):
        module = Convolution(16, 16, 3)
        module(torch.randn(2, 16, size, size).contiguous(memory_format=torch.channels_last)).sum().backward()
        assert module.weight.grad is not None
        assert module.weight.grad.stride() == module.weight.stride()


def test_multiply_adds_are_counted_by_hand_and_modes_kept() -> None:
    model = nn.Sequential(Convolution(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 9, 5))
    model[1].eval()
    assert multiply_adds(model, (3, 6, 6)) == 9 * 3 * 4 * 9 + 36 * 5
    assert [module.training for module in model] == [True, False, True, True]
    assert not model[0]._forward_hooks
    with pytest.raises(RuntimeError):
        multiply_adds(model, (3, 8, 8))
    assert [module.training for module in model] == [True, False, True, True]
    assert not model[0]._forward_hooks


@settings(max_examples=20)
@given(seed=st.integers(0, 99))
def test_pixels_are_normalised_by_a_half(seed: int) -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    found = normalised(pixels, torch.float64)
    torch.testing.assert_close(found, (pixels.double() / 255 - 0.5) / 0.5, rtol=0, atol=1e-15)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalised(found), found)
    ends = normalised(torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2))
    assert ends.dtype == torch.float32
    assert ends[0, 0].tolist() == [[-1.0, 1.0]]


def test_other_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"uint8 .* got torch.int64"):
        normalised(torch.zeros(1, 3, 2, 2, dtype=torch.int64))
