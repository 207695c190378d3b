"""The cascade: V and nearest-mean accuracy of each layer along training, as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokcore.training.cascade import layers_of
from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE

COLUMNS = (
    ("train_variance_ratio", "V, train"),
    ("test_variance_ratio", "V, test (train means)"),
    ("train_cdnv", "CDNV, train"),
    ("test_nearest_mean_accuracy", "nearest train mean, test"),
)


def cascade_figure(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """A row for each data set and model: medians over the seeds, a line a layer, the input's side at the bottom."""
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 1.7 * len(runs) + 0.9))
        grid = figure.subplots(len(runs), len(COLUMNS), squeeze=False)
        norms = [_norm(runs, name) for name, _ in COLUMNS]
        for number, ((run, records), row) in enumerate(zip(runs.items(), grid, strict=True)):
            layers = layers_of(records[0].columns)
            for (name, words), norm, axes in zip(COLUMNS, norms, row, strict=True):
                _heat(axes, records, name, layers, norm)
                if number == 0:
                    axes.set_title(words)
                if number == len(runs) - 1:
                    axes.set_xlabel("optimiser step")
            row[0].set_yticks(range(len(layers)), layers, fontsize=6)
            row[0].set_ylabel(run, fontsize=7)
        for column, norm in enumerate(norms):
            logarithmic = isinstance(norm, LogNorm)
            bar = figure.colorbar(
                ScalarMappable(norm, _colours(norm)), ax=grid[:, column], orientation="horizontal", aspect=18, pad=0.02,
                extend="min" if logarithmic else "neither",
            )  # fmt: skip
            bar.ax.tick_params(labelsize=6)
            if not logarithmic:
                bar.ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return figure


def _heat(axes: Axes, records: Sequence[Record], name: str, layers: Sequence[str], norm: Normalize) -> None:
    steps, values = records[0].column("step"), _values(records, name, layers)
    seen = steps > 0
    edges = _edges(steps[seen])
    axes.pcolormesh(
        edges, np.arange(len(layers) + 1) - 0.5, values[:, seen], norm=norm, cmap=_colours(norm), rasterized=True
    )
    axes.set(xscale="log", xlim=(edges[0], edges[-1]))
    axes.set_yticks([])
    axes.grid(visible=False)


def _values(records: Sequence[Record], name: str, layers: Sequence[str]) -> NDArray[np.float64]:
    """(layers, steps), medians over the seeds."""
    return np.array([np.median([record.column(f"{name}/{layer}") for record in records], axis=0) for layer in layers])


def _norm(runs: Mapping[str, Sequence[Record]], name: str) -> Normalize:
    if name.endswith("accuracy"):
        return Normalize(0, 1)
    found = np.concatenate([_values(records, name, layers_of(records[0].columns)).ravel() for records in runs.values()])
    found = found[np.isfinite(found) & (found > 0)]
    return LogNorm(max(float(found.min()), 1e-3), float(np.quantile(found, 0.99)))


def _colours(norm: Normalize) -> str:
    """Bright is collapsed: a low V or CDNV, which are on log scales, and a high accuracy."""
    return "viridis_r" if isinstance(norm, LogNorm) else "viridis"


def _edges(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between neighbouring steps, on a log scale."""
    logs = np.log(steps)
    inner = (logs[1:] + logs[:-1]) / 2
    edges: NDArray[np.float64] = np.exp(np.concatenate([logs[:1] - 0.05, inner, logs[-1:] + 0.05]))
    return edges
