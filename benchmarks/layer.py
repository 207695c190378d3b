"""Exact relative flatness of a hidden layer, beside its dense Hessian and beside what public libraries offer for it.

The libraries (``make peers``) run in a process of their own, in turns with ours; each must find our number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.head import contracted
from benchmarks.peers import Peers
from benchmarks.row import Row
from benchmarks.timing import interleaved, require_same, stopwatch
from grokcore import layer_relative_flatness

SAMPLES, INPUTS, WIDTH, CLASSES, LAYER = 256, 784, 64, 10, "2"
# What each public tool can do that gives the same number exactly, and what is asked of us beside it.
PEERS = {
    "operator": ("curvlinops, GGN operator times every W[:, k] e_j^T", 2),
    "ekfac": ("curvlinops, EKFAC trace in Z, weight W Z at Z = I", 2),
    "diagonal": ("BackPACK, GGN diagonal in Z, weight W Z at Z = I", None),
}


def run(device: torch.device) -> list[Row]:
    """Times of kappa of the 64-to-64 layer and of each baseline; of kappa alone for larger layers."""
    model, inputs, target = case(WIDTH, device)

    def ours() -> float:
        return kappa(model, inputs, target, LAYER)

    def dense() -> Tensor:
        return dense_kappa(model, inputs, target, LAYER)

    value = ours()
    require_same("layer", value, float(dense()))
    fast, hessian = interleaved(stopwatch(ours, device), stopwatch(dense, device), rounds=2)
    rows = [
        Row(f"layer: exact kappa, {WIDTH} to {WIDTH} in {INPUTS}-{WIDTH}-{WIDTH}-{CLASSES} (n = {SAMPLES})", fast),
        Row("layer: dense torch.func.hessian, contracted; over ours", hessian, ratio=hessian / fast, at_least=100),
        *peer_rows(ours, value, device),
    ]
    for width, layer in ((WIDTH, "0"), (256, LAYER), (256, "0")):
        model, inputs, target = case(width, device)
        (seconds,) = interleaved(stopwatch(lambda: kappa(model, inputs, target, layer), device))  # noqa: B023
        shape = f"{model.get_parameter(f'{layer}.weight').shape[1]} to {width}"
        rows.append(Row(f"layer: exact kappa, {shape} in {INPUTS}-{width}-{width}-{CLASSES}", seconds))
    return rows


def peer_rows(ours: Callable[[], float], value: float, device: torch.device) -> list[Row]:
    """A row for each public tool: its time over ours."""
    if not Peers.installed():
        return [Row(f"layer: {what}", None, note="not installed (make peers)") for what, _ in PEERS.values()]
    rows = []
    with Peers(device) as peers:
        for name, (what, wanted) in PEERS.items():
            require_same(what, value, peers.value(name))
            fast, theirs = interleaved(stopwatch(ours, device), peers.stopwatch(name), rounds=3)
            rows.append(Row(f"layer: {what}; over ours", theirs, ratio=theirs / fast, at_least=wanted))
    return rows


def case(width: int, device: torch.device) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A ReLU network, inputs (n, 784) and labels (n,), float32; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    sizes = (INPUTS, width, width, CLASSES)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(fan_out, fan_in, generator=generator) * (2 / fan_in) ** 0.5)
            layer.bias.copy_(torch.randn(fan_out, generator=generator) / 10)
        layers += [layer, nn.ReLU()]
    inputs = torch.randn(SAMPLES, INPUTS, generator=generator)
    target = torch.arange(SAMPLES) % CLASSES
    return nn.Sequential(*layers[:-1]).to(device), inputs.to(device), target.to(device)


def with_factor(model: nn.Sequential, layer: str) -> nn.Sequential:
    """The same network with W Z for the layer's W, Z = I a layer of its own at its place.

    Its output moves with Z as with W in the directions W Z, so kappa is the trace of the Hessian in Z.
    """
    layers, index = list(model), int(layer)
    weight = model.get_parameter(f"{layer}.weight")
    factor = nn.Linear(weight.shape[1], weight.shape[1], bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.eye_(factor.weight)
    return nn.Sequential(*layers[:index], factor, *layers[index:])


def kappa(model: nn.Module, inputs: Tensor, target: Tensor, layer: str) -> float:
    """Our value."""
    batches = [(inputs, target)]
    return layer_relative_flatness(model, nn.functional.cross_entropy, batches, layer, dtype=torch.float32).value


def dense_kappa(model: nn.Sequential, inputs: Tensor, target: Tensor, layer: str) -> Tensor:
    """The contraction of the dense Hessian; all columns at once, which is faster than any chunks of them."""
    state = {name: value.detach() for name, value in model.named_parameters()}

    def loss(w: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, state | {f"{layer}.weight": w}, (inputs,))
        return nn.functional.cross_entropy(outputs, target)

    weight = state[f"{layer}.weight"]
    return contracted(torch.func.hessian(loss)(weight), weight)
