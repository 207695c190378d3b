"""Exact relative flatness of a softmax head, beside its dense Hessian and beside the softmax that any loss takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.row import Row
from benchmarks.timing import interleaved, require_same, stopwatch
from grokcore import relative_flatness

SAMPLES, FEATURES, CLASSES = 256, 512, 10


def run(device: torch.device) -> list[Row]:
    """Times of kappa, of softmax(W h + b) of the same batch, and of the dense contraction."""
    features, weight, bias, labels = case(device)

    def ours() -> Tensor:
        return relative_flatness(features, weight, bias)

    def softmax() -> Tensor:
        return torch.softmax(nn.functional.linear(features, weight, bias), dim=1)

    def dense() -> Tensor:
        return dense_kappa(features, weight, bias, labels)

    require_same("head", float(ours()), float(dense()))
    with torch.no_grad():
        kappa, one_softmax = interleaved(stopwatch(ours, device), stopwatch(softmax, device))
        again, hessian = interleaved(stopwatch(ours, device), stopwatch(dense, device), rounds=2)
    size = f"n = {SAMPLES}, m = {FEATURES}, K = {CLASSES}"
    return [
        Row(f"head: exact kappa ({size})", kappa),
        Row("head: softmax(W h + b); kappa over it", one_softmax, ratio=kappa / one_softmax, at_most=2.5),
        Row("head: dense torch.func.hessian, contracted; over kappa", hessian, ratio=hessian / again, at_least=2000),
    ]


def case(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (n, m), weight (K, m), bias (K,) and labels (n,), float32."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(SAMPLES, FEATURES, generator=generator)
    weight = torch.randn(CLASSES, FEATURES, generator=generator) / FEATURES**0.5
    bias = torch.randn(CLASSES, generator=generator)
    return features.to(device), weight.to(device), bias.to(device), (torch.arange(SAMPLES) % CLASSES).to(device)


def dense_kappa(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """sum_{s,t} <w_s, w_t> Tr(H_st) from the dense Hessian of the mean cross-entropy in the weight."""

    def loss(w: Tensor) -> Tensor:
        return nn.functional.cross_entropy(nn.functional.linear(features, w, bias), labels)

    return contracted(torch.func.hessian(loss)(weight), weight)


def contracted(hessian: Tensor, weight: Tensor) -> Tensor:
    """sum_{s,t} <w_s, w_t> Tr(H_st) of a Hessian (K, m, K, m)."""
    traces = torch.einsum("sjtj->st", hessian)
    return (traces * (weight @ weight.T)).sum()
