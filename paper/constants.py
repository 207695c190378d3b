"""Decimal numbers that main.tex may hold outside a macro: settings and published values, each with where it is from."""

from __future__ import annotations

MACRO_PREFIX = "gc"
"""How the macros of results begin."""
CONSTANTS = {
    "1,000": "paper B's train images",
    "5,000": "train images of the preset cpu of experiments.cifar10",
    "2,210": "paper A, figure of the ResNet-18's flatness under the penalty",
    "22,213": "paper A, the same of the ViT",
    "2,250": "B^2 (1 - 1/K), B = 50, K = 10 (theory C3)",
    "22,275": "B^2 (1 - 1/K), B = 150, K = 100 (theory C3)",
}
