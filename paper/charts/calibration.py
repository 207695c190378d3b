"""The information estimators on cases with known answers: bias and spread over draws, as a figure.

Channels Z = h + s N(0, I): h Gaussian in m coordinates, (m/2) log(1 + 1/s^2); h = +-1 + t N(0, 1), by quadrature.
Pairs: correlated Gaussians, -(m/2) log(1 - rho^2). All in nats, samples of the size that a run's rows use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.integrate import trapezoid  # type: ignore[import-untyped]
from torch import Tensor

from grokcore import ksg_information, noisy_information
from grokcore.neighbour_entropy import entropies_information
from grokcore.style import BLUE, GREEN, ORANGE, PINK, SKY
from paper.charts.look import VENUE

SAMPLES, DRAWS = 1_000, 8
NOISES = (3.0, 2.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.99)
MIXTURE_WIDTH = 0.3


@dataclass(frozen=True)
class Curve:
    """An estimator on a family of cases: what is known, and what was found in each draw (cases, draws)."""

    words: str
    known: tuple[float, ...]
    found: tuple[tuple[float, ...], ...]

    @property
    def bias(self) -> np.ndarray:
        """Mean of found less known, a case."""
        return np.mean(self.found, axis=1) - np.array(self.known)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation over draws, a case."""
        return np.std(self.found, axis=1, ddof=1)


def channels() -> list[Curve]:
    """noisy_information on Gaussian features of several widths, and on a mixture of two Gaussians."""
    curves = []
    for m in (1, 10, 200):
        known = tuple(m / 2 * math.log(1 + s**-2) for s in NOISES)
        found = tuple(
            _draws(lambda g, s=s, m=m: noisy_information(_normals(m, g), noise=s, draws=2).value) for s in NOISES
        )
        curves.append(Curve(f"Gaussian, {m} coordinate{'s' * (m > 1)}", known, found))
    known = tuple(mixture_information(MIXTURE_WIDTH, s) for s in NOISES)
    found = tuple(_draws(lambda g, s=s: noisy_information(_mixture(g), noise=s, draws=2).value) for s in NOISES)
    return [*curves, Curve("two Gaussians, by quadrature", known, found)]


def pairs() -> list[Curve]:
    """The estimators of pairs alone on correlated Gaussians: KSG, and the three entropies of the public code."""
    curves = []
    for words, m, estimate in (
        ("KSG, 1 + 1 dimensions", 1, lambda x, y: ksg_information(x, y).value),
        ("KSG, 4 + 4", 4, lambda x, y: ksg_information(x, y).value),
        ("entropies, 4 + 4, no weights", 4, lambda x, y: entropies_information(x, y, weighted=False)),
        ("entropies, 8 + 8, published weights", 8, entropies_information),
    ):
        known = tuple(-m / 2 * math.log(1 - rho**2) for rho in CORRELATIONS)
        found = tuple(_draws(_on_pairs(estimate, m, rho)) for rho in CORRELATIONS)
        curves.append(Curve(words, known, found))
    return curves


def mixture_information(width: float, noise: float) -> float:
    """I(Z;X) of h = +-1 + width N(0, 1), Z = h + noise N(0, 1): h(Z) - h(noise), by the trapezoidal rule."""
    deviation = math.hypot(width, noise)
    z = np.linspace(-1 - 12 * deviation, 1 + 12 * deviation, 20_001)
    density = sum(np.exp(-(((z - centre) / deviation) ** 2) / 2) for centre in (-1, 1))
    density = density / (2 * deviation * math.sqrt(2 * math.pi))
    logs = np.log(np.where(density > 0, density, 1.0))
    entropy = -float(trapezoid(density * logs, z))
    return entropy - math.log(2 * math.pi * math.e * noise**2) / 2


def calibration_figure() -> Figure:
    """Estimates against known information, both families."""
    with rc_context(VENUE):
        figure = Figure(figsize=(7.0, 4.6))
        left, right = figure.subplots(1, 2)
        _panel(left, channels(), (BLUE, GREEN, ORANGE, SKY))
        left.axhline(math.log(SAMPLES), color="0.5", lw=0.9, ls=":")
        left.annotate(f"log n, n = {SAMPLES:,}", (0.02, math.log(SAMPLES)), (0, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", fontsize=7, color="0.3")  # fmt: skip
        left.set(title="noisy channel, features known", xlim=(0, 16), ylim=(0, 9))
        _panel(right, pairs(), (BLUE, GREEN, ORANGE, PINK))
        right.set_yscale("symlog", linthresh=10)
        right.set(title="pairs alone")
        for axes in (left, right):
            axes.set(xlabel="known information (nats)", ylabel="estimate (nats)")
    return figure


def _panel(axes: Axes, curves: list[Curve], colours: tuple[str, ...]) -> None:
    most = max(max(curve.known) for curve in curves)
    line = np.linspace(0, most, 200)
    axes.plot(line, line, color="0.6", lw=0.9, ls="--", label="exact")
    for curve, colour, mark in zip(curves, colours, "os^D", strict=True):
        axes.errorbar(
            curve.known, np.array(curve.known) + curve.bias, yerr=curve.spread, color=colour, marker=mark, ms=3.5,
            lw=1.1, capsize=2, label=curve.words,
        )  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7)


def _on_pairs(estimate: Callable[[Tensor, Tensor], float], m: int, rho: float) -> Callable[[torch.Generator], float]:
    def once(generator: torch.Generator) -> float:
        x, other = _normals(m, generator), _normals(m, generator)
        return estimate(x, rho * x + math.sqrt(1 - rho**2) * other)

    return once


# Not from seed 0, which the estimators' own noise has.
def _draws(once: Callable[[torch.Generator], float]) -> tuple[float, ...]:
    return tuple(once(torch.Generator().manual_seed(1_000 + draw)) for draw in range(DRAWS))


def _normals(m: int, generator: torch.Generator) -> Tensor:
    return torch.randn(SAMPLES, m, generator=generator, dtype=torch.float64)


def _mixture(generator: torch.Generator) -> Tensor:
    signs = 2.0 * torch.randint(2, (SAMPLES, 1), generator=generator) - 1
    return signs + MIXTURE_WIDTH * _normals(1, generator)
