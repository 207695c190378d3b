"""Convolutions that do not multiply padding, and a count of what a model multiplies.

A 32x32 image is 2x2 and 1x1 when it reaches the last layers of a ResNet, where most of a 3x3 window is padding: on a
1x1 map only the centre tap meets data. Where every output sees the whole map the convolution is a dense matrix
without zeros, made of windows of the weight, and a CPU multiplies by it several times faster than it convolves. The
matrix is linear in the weight, and so is its transpose, so that derivatives of every order come from the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

Windows = tuple[tuple[int, int], ...]
"""For each output position along one side, the first tap that meets the map and the one after the last."""


class Convolution(nn.Conv2d):
    """A convolution without bias, padded by half the kernel; otherwise ``nn.Conv2d``, of which it is the same function.

    Its input is (n, in, H, W). On a CPU it is one matrix product where every output sees the whole map.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, input: Float[Tensor, "n i H W"]) -> Float[Tensor, "n o h w"]:
        """The map (n, out, h, w)."""
        if input.device.type == "cpu":
            kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
            rows, columns = (windows(size, kernel, stride, padding) for size in input.shape[2:])
            if rows and columns:
                flat = input.permute(0, 2, 3, 1).flatten(1)
                out = linear(flat, _dense(self.weight, rows, columns))
                return out.view(-1, len(rows), len(columns), self.out_channels).permute(0, 3, 1, 2)
        return super().forward(input)


def windows(size: int, kernel: int, stride: int, padding: int) -> Windows:
    """The taps that each output of a side of `size` pixels multiplies by them, or none where one misses a pixel."""
    count = (size + 2 * padding - kernel) // stride + 1
    found = tuple((padding - stride * k, padding - stride * k + size) for k in range(count))
    return found if all(first >= 0 and last <= kernel for first, last in found) else ()


def _dense(weight: Tensor, rows: Windows, columns: Windows) -> Tensor:
    return _Dense.apply(weight, rows, columns)  # type: ignore[no-any-return, no-untyped-call]


def _transposed(matrix: Tensor, shape: Sequence[int], rows: Windows, columns: Windows) -> Tensor:
    return _DenseTransposed.apply(matrix, shape, rows, columns)  # type: ignore[no-any-return, no-untyped-call]


class _Dense(torch.autograd.Function):
    """The matrix (h w out, H W in) of a convolution's weight (out, in, k, k) on flattened maps, channels last."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, rows: Windows, columns: Windows) -> Tensor:
        taps = weight.permute(2, 3, 0, 1)
        if len(rows) * len(columns) > 1:
            taps = taps.contiguous()  # else a pair of taps would be copied at a time
        parts = [taps[a:b, c:d].permute(2, 0, 1, 3) for a, b in rows for c, d in columns]
        return torch.stack(parts).flatten(2).flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Windows, Windows], output: Tensor) -> None:
        ctx.shape, ctx.windows = inputs[0].shape, inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _transposed(gradient, ctx.shape, *ctx.windows), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _dense(tangent, *ctx.windows)


class _DenseTransposed(torch.autograd.Function):
    """The transpose of that map: a matrix's parts summed up where they came from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, shape: Sequence[int], rows: Windows, columns: Windows) -> Tensor:
        out, given, height, width = shape
        places = [(slice(*row), slice(*column)) for row in rows for column in columns]
        size = rows[0][1] - rows[0][0], columns[0][1] - columns[0][0]
        parts = matrix.view(len(places), out, *size, given)
        if len(places) == 1:
            weight = matrix.new_zeros(out, given, height, width)
            weight[(..., *places[0])] = parts[0].permute(0, 3, 1, 2)
            return weight
        taps = matrix.new_zeros(height, width, out, given)
        for place, part in zip(places, parts, strict=True):
            taps[place] += part.permute(1, 2, 0, 3)
        return taps.permute(2, 3, 0, 1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.shape, ctx.windows = inputs[1], inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _dense(gradient, *ctx.windows), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _transposed(tangent, ctx.shape, *ctx.windows)


def he_normal(model: nn.Module) -> None:
    """Draw every convolution's weight from N(0, 2 / (out k^2)) (He et al. 2015, by outputs), in the modules' order."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def multiply_adds(model: nn.Module, shape: Sequence[int] = (3, 32, 32)) -> int:
    """Multiply-adds of one forward pass of one input: convolutions and linear layers, products by padding included.

    Args:
        model: any module; it runs once in eval mode on zeros of its weights' type and device, and each submodule
            keeps its mode.
        shape: of one input, without the batch.
    """
    counted = 0

    def count(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal counted
        weight = module.get_parameter("weight")
        positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else output[0].numel() // len(weight)
        counted += weight.numel() * positions

    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    modes = [(module, module.training) for module in model.modules()]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    like = next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros((1, *shape), dtype=like.dtype, device=like.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return counted
