"""Figures a reader can read: a title inside the page, and axes that no vanishing value takes over."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from grokcore.training.figures import arms_figure, run_figure
from grokcore.training.record import Record

NAMES = ("accuracy", "cdnv", "kappa", "logit_gap")
COLUMNS = ["step", "epoch", *(f"{split}_{name}" for split in ("train", "test") for name in NAMES)]
LONG = ["trainimages60", "testimages30", "labelnoise0.2", "augment", "width0.1", "epochs8", "batchsize20", "at0.25"]


def run(arm: str = "baseline", *, kappas: tuple[float, ...] = (2.0, 1.0, 0.5), variant: tuple[str, ...] = ()) -> Record:
    rows: list[list[float | int | None]] = [
        [10 * k, k, *(0.5, 0.1 + k, kappa, 1.0) * 2] for k, kappa in enumerate(kappas)
    ]
    config = {
        "experiment": "cifar10",
        "preset": "cpu",
        "arm": arm,
        "seed": 0,
        "variant": list(variant),
        "data": {"images": "CIFAR-10", "train_images": 60, "augment": False},
        "training": {"steps": 10 * (len(kappas) - 1), "epochs": len(kappas) - 1},
        "intervention": {"release_at": None},
    }
    return Record(config, "0", {}, "cpu", "0", 1.0, COLUMNS, rows, {"words": []})


def title_box(figure: Figure) -> tuple[float, float]:
    """The title's left and right end, as shares of the page."""
    FigureCanvasAgg(figure).draw()
    (title,) = [text for text in figure.texts if text.get_fontsize() == 11]
    box = title.get_window_extent()
    return box.x0 / figure.bbox.width, box.x1 / figure.bbox.width


@pytest.mark.parametrize("variant", [(), tuple(LONG)])
def test_the_title_stays_on_the_page(variant: tuple[str, ...]) -> None:
    records = [run("flatness_release", variant=variant), run(variant=variant)]
    for figure in (run_figure(records[0]), arms_figure(records)):
        left, right = title_box(figure)
        assert 0 <= left < right <= 1


def test_a_kappa_that_underflows_does_not_flatten_the_others() -> None:
    sunk = run("control_norm", kappas=(2.0, 1e-160, 0.5))
    for figure in (run_figure(sunk), arms_figure([sunk, run()])):
        for axes in figure.axes:
            low, high = axes.get_ylim()
            assert axes.get_yscale() == "linear" or 1 < high / low < 1e22


def test_an_ordinary_fall_is_shown_whole() -> None:
    """The negative sibling."""
    fallen = run(kappas=(1e3, 1.0, 1e-12))
    for figure, place in ((run_figure(fallen), 2), (arms_figure([fallen, run("ncc_prevent")]), 2)):
        low, high = figure.axes[place].get_ylim()
        assert low < 1e-12 < 1e3 < high
        assert np.isfinite([low, high]).all()
