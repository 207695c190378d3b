"""report.plot(): what is drawn is what was measured, for few classes and many, with layers and with NaN."""

from __future__ import annotations

import io
import itertools
from dataclasses import asdict, replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from grokcore import LayerReport, Report, measure
from grokcore.report_plot import CURVES, SHOWN
from tests.cases import collapsed


def a_report(num_classes: int, *, classes_seen: int | None = None, m: int = 12, layers: str = "") -> Report:
    torch.manual_seed(0)
    labels = torch.arange(4 * num_classes) % (classes_seen or num_classes)
    inputs = torch.randn(len(labels), m) + torch.randn(num_classes, m)[labels]
    model = nn.Sequential(nn.Linear(m, m), nn.ReLU(), nn.Linear(m, num_classes))
    return measure(model, [(inputs, labels)], "2", layers=layers or ())


def drawn(figure: Figure) -> list[Axes]:
    """The panels, after rendering: whatever warns or fails there fails here."""
    figure.savefig(io.BytesIO(), format="png")
    return figure.axes


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_each_pair_has_its_cosine(num_classes: int) -> None:
    report = a_report(num_classes)
    cosines, metrics = drawn(report.plot())
    assert report.moments is not None
    means = report.moments.centred_means()
    expected = sorted(
        float(torch.cosine_similarity(means[a], means[b], dim=0))
        for a, b in itertools.combinations(range(num_classes), 2)
    )
    points, simplex = cosines.lines
    np.testing.assert_allclose(points.get_ydata(), expected, atol=1e-12)
    np.testing.assert_allclose(simplex.get_ydata(), -1 / (num_classes - 1))
    assert f"{-1 / (num_classes - 1):.3g}" in cosines.get_title()
    names = [label.get_text() for label in metrics.get_yticklabels()]
    assert names == list(SHOWN)
    positions = {names[int(line.get_ydata()[0])]: line.get_xdata()[0] for line in metrics.lines}
    assert positions["kappa"] == report.kappa
    assert positions["cdnv"] == report.collapse.cdnv


def test_many_classes_make_a_histogram() -> None:
    cosines, _ = drawn(a_report(40, m=50).plot())
    assert sum(bar.get_height() for bar in cosines.patches) == 40 * 39 / 2
    assert len(cosines.patches) <= 30
    assert cosines.lines[0].get_xdata()[0] == pytest.approx(-1 / 39)


def test_curves_over_the_layers() -> None:
    report = a_report(3, layers="all")
    layers = drawn(report.plot())[2]
    assert [label.get_text() for label in layers.get_xticklabels()] == ["0", "1", "2", "head's input"]
    curves = {line.get_label(): line.get_ydata() for line in layers.lines if len(line.get_xdata()) == 3}
    assert set(curves) == set(CURVES)
    for name, values in curves.items():
        np.testing.assert_allclose(values, [getattr(layer, name) for layer in report.layers.values()])
    ticks = [label.get_text() for label in layers.get_xticklabels()]
    rule = next(line.get_xdata()[0] for line in layers.lines if len(line.get_xdata()) == 2)
    assert ticks[-1] == "head's input"
    assert 2 < rule < layers.get_xticks()[-1]
    assert layers.get_title("left") == "over the layers"


def long_names(count: int) -> list[str]:
    return [f"encoder.transformer_block_number_{i:02d}_with_attention_output_projection" for i in range(count)]


def with_names(report: Report, names: list[str]) -> Report:
    return replace(report, layers=dict.fromkeys(names, LayerReport(**asdict(report.collapse))))


@pytest.mark.parametrize(("count", "turned"), [(2, False), (5, True), (40, True), (200, True)])
def test_long_names_are_shortened_and_stay_inside(count: int, turned: bool) -> None:
    figure = with_names(a_report(3), long_names(count)).plot()
    layers = drawn(figure)[2]
    labels = layers.get_xticklabels()
    assert len(labels) <= 20
    assert all(len(label.get_text()) <= 22 for label in labels)
    assert len({label.get_text() for label in labels}) == len(labels)
    assert (labels[0].get_rotation() != 0) == turned
    edges = [axes.spines["left"].get_window_extent().x0 for axes in figure.axes]
    assert min(edges + [label.get_window_extent().x0 for label in labels]) >= 0
    legend = layers.get_legend()
    assert legend is not None
    assert not legend.get_window_extent().overlaps(layers._left_title.get_window_extent())  # type: ignore[attr-defined]


def test_many_short_names_are_not_turned() -> None:
    layers = drawn(with_names(a_report(3), [str(i) for i in range(19)]).plot())[2]
    assert {label.get_rotation() for label in layers.get_xticklabels()} == {0}


def test_layer_metrics_that_cannot_be_drawn_are_named() -> None:
    assert drawn(a_report(3, layers="all").plot())[2].get_xlabel() == ""
    # Two class means are a simplex, exactly.
    assert drawn(a_report(2, layers="0").plot())[2].get_xlabel().endswith(": nc2_etf")


def test_what_the_left_panel_says_of_the_simplex() -> None:
    assert "simplex (not reachable here), -0.2" in drawn(a_report(6, m=3).plot())[0].get_title()
    assert "not reachable" not in drawn(a_report(6).plot())[0].get_title()
    model = nn.Sequential(nn.Linear(2, 3))
    # Rounding of the sums would give cosines.
    same = measure(model, [(torch.full((30, 2), 0.1), torch.arange(30) % 3)], "0")
    assert words(drawn(same.plot())[0]) == ["all class means coincide"]


def test_written_values_stand_on_white() -> None:
    metrics = drawn(a_report(6, m=3).plot())[1]
    assert all(text.get_bbox_patch().get_facecolor() == (1, 1, 1, 1) for text in metrics.texts)  # type: ignore[union-attr]


def test_what_is_no_number_is_written_out() -> None:
    cosines, metrics, layers = drawn(a_report(4, classes_seen=3, layers="all").plot())
    assert words(cosines) == words(layers) == ["no samples of class 3"]
    assert words(metrics).count("no number: no samples of class 3") == 9
    few = drawn(a_report(6, m=3).plot())[1]
    assert words(few).count("no number: 3 features hold no simplex of 6 classes") == 3
    assert not any("no number" in text for text in words(drawn(a_report(4).plot())[1]))


def test_zeros_of_exact_collapse_are_written_out() -> None:
    features, weight, _, labels = collapsed(0, K=4, m=5)
    head = nn.Linear(5, 4, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(weight)
    report = measure(nn.Sequential(head), [(features, labels)], "0")
    metrics = drawn(report.plot())[1]
    names = {SHOWN[int(line.get_ydata()[0])] for line in metrics.lines}
    assert {"kappa", "loss", "frobenius_surrogate"} == names
    assert "0" in words(metrics)


def test_a_report_without_means_and_no_global_state() -> None:
    before = dict(matplotlib.rcParams)
    report = replace(a_report(3), moments=None)
    cosines, metrics = drawn(report.plot())
    assert words(cosines) == ["not kept in a Monitor's history"]
    assert len(metrics.lines) == len(SHOWN)
    assert dict(matplotlib.rcParams) == before
