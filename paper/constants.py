"""Decimal numbers that main.tex may hold outside a macro: settings and published values, each with where it is from."""

from __future__ import annotations

MACRO_PREFIX = "gc"
"""How the macros of results begin."""
CONSTANTS = {
    "99.9": "per cent of the train set right at tau_1 (grokcore/training/clocks.py)",
    "2,000": "step at which the transformer's forks leave their trunks",
    "4,000": "steps of experiments.grokking's preset transformer",
    "20,000": "steps of experiments.limits' presets digits and mnist",
    "1,000": "paper B's train images",
    "5,000": "train images of the preset cpu of experiments.cifar10",
    "2,210": "paper A, figure of the ResNet-18's flatness under the penalty",
    "22,213": "paper A, the same of the ViT",
    "2,250": "B^2 (1 - 1/K), B = 50, K = 10 (theory C3)",
    "22,275": "B^2 (1 - 1/K), B = 150, K = 100 (theory C3)",
}
