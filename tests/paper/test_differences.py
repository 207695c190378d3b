"""Differences over seeds, their words, and paper A's outcomes beside them, on runs made up for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from grokcore.training.figures import save
from grokcore.training.record import Record
from paper.charts.runs_over_the_curve import collapse_curve_figure, curves, look
from paper.differences import Difference, accuracy_difference
from paper.outcomes import COMPARED, PUBLISHED, differences_table, published, table
from theory.formulas import kappa_at_collapse

COLUMNS = [
    "step", "epoch", "test_accuracy", "train_kappa", "train_frobenius_surrogate", "train_cdnv", "test_cdnv",
    "train_logit_gap", "train_global_mean_ratio", "train_kappa_collapse_curve",
]  # fmt: skip


def run(arm: str, seed: int, accuracy: float, *, kappa: float = 2.0, cdnv: float = 0.5, gap: float = 5.0) -> Record:
    """A run whose last row is as given; its surrogate is nine times its kappa, gamma is 1."""
    name, *variant = arm.split("+")
    predicted = float(kappa_at_collapse(gap, 10, 1.0))
    rows = [[s, s, accuracy, kappa, 9 * kappa, cdnv, 2 * cdnv, gap, 1.0, predicted] for s in (0, 1, 2)]
    config = {"experiment": "cifar10", "preset": "cpu", "arm": name, "variant": variant, "seed": seed}
    config |= {"data": {"augment": "augment" in variant}, "model": {}, "training": {}}
    return Record(config, "0" * 8, {}, "cpu", "0" * 7, 1.0, COLUMNS, rows, {})


def runs(arm: str, *accuracies: float, **more: float) -> list[Record]:
    return [run(arm, seed, accuracy, **more) for seed, accuracy in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.1, 0.2, 0.3), "equal within 2 points"),
        ((5.0, 5.5, 6.0), "higher"),
        ((-5.0, -5.5, -6.0), "lower"),
        ((1.0, 1.1, 1.2), "equal within 2 points"),  # surely higher, by less than the margin
        ((-3.0, 0.0, 3.0), "not told apart with 3 seeds"),  # no difference seen is no equality
        ((3.0, 3.5, -4.0), "not told apart with 3 seeds"),
        ((0.0,), "one seed"),
        ((0.0, math.nan), "undefined"),
        ((math.nan,), "undefined"),
    ],
)
def test_verdicts(values: tuple[float, ...], verdict: str) -> None:
    assert Difference.of(values).verdict() == verdict


def test_the_interval_is_students() -> None:
    found = Difference.of((1.0, 2.0, 4.0))
    half = 4.5265 * np.std((1.0, 2.0, 4.0), ddof=1) / math.sqrt(3)  # t at two sigma, two degrees of freedom
    assert found.mean == pytest.approx(7 / 3)
    assert found.high - found.mean == pytest.approx(half, rel=0.01)
    assert str(found) == f"+2.3 [{found.low:+.1f}, {found.high:+.1f}]"
    assert str(Difference.of((1.0,))) == "+1.0"


def test_it_holds_the_truth_19_times_in_20() -> None:
    """Of two or three normal numbers; Student's distribution function is elementary there."""
    two, three = (Difference.of(values) for values in ((0.0, 2.0), (0.0, 1.0, 2.0)))
    t = (two.high - two.mean) / 1.0  # the standard error of (0, 2)
    assert 2 / math.pi * math.atan(t) == pytest.approx(0.95, abs=0.005)
    t = (three.high - three.mean) * math.sqrt(3)
    assert t / math.sqrt(2 + t * t) == pytest.approx(0.95, abs=0.005)


def test_pairs_are_of_the_same_seed() -> None:
    first, second = [run("ncc_prevent", 2, 0.5), run("ncc_prevent", 0, 0.4)], runs("baseline", 0.3, 0.9, 0.45)
    found = accuracy_difference(first, second)
    assert found.seeds == 2
    assert found.mean == pytest.approx((10 + 5) / 2)
    assert accuracy_difference(first, second[::-1]) == found


def test_tables() -> None:
    records = [
        *runs("baseline", 0.50, 0.51, 0.52), *runs("ncc_prevent", 0.40, 0.41, 0.43, kappa=20.0, cdnv=5.0),
        *runs("flatness_release+at0.25+fork", 0.55), *runs("ncc_prevent+augment", 0.6),
    ]  # fmt: skip
    rows = {row[0]: row for row in table(records, ["baseline"])}
    assert next(iter(rows)) == "baseline"
    assert rows["baseline"][4] == ""
    assert rows["ncc_prevent"][4].startswith("-9.7 [")
    assert rows["ncc_prevent"][5:9] == ("20", "180", "9", "5")
    assert rows["flatness_release+at0.25+fork"][1] == PUBLISHED["flatness_release"]
    found = {row[0]: row for row in differences_table(records)}
    assert list(found) == ["ncc_prevent against baseline", "ncc_prevent+augment against ncc_prevent"]
    assert found["ncc_prevent against baseline"][3:5] == ("lower", "10")


def test_the_baseline_is_of_the_same_data() -> None:
    records = [*runs("baseline", 0.5), *runs("baseline+augment", 0.8), *runs("ncc_prevent+augment", 0.7)]
    rows = {row[0]: row for row in table(records)}
    assert rows["ncc_prevent+augment"][4] == "-10.0"
    assert rows["baseline+augment"][4] == ""
    assert {row[0]: row for row in table([records[0], records[2]])}["ncc_prevent+augment"][4] == ""


def test_what_has_no_value_is_said_to_have_none() -> None:
    flat, broken = run("ncc_encourage", 0, 0.5, kappa=0.0), run("ncc_prevent", 0, math.nan, kappa=math.nan)
    records = [*runs("baseline", 0.5), flat, broken]
    rows = {row[0]: row for row in table(records)}
    assert rows["ncc_encourage"][7] == "undefined"
    assert rows["ncc_prevent"][3:6] == ("undefined",) * 3
    found = {row[0]: row for row in differences_table(records)}
    assert found["ncc_prevent against baseline"][2:5] == ("undefined",) * 3
    assert found["ncc_encourage against baseline"][4] == "0"


def test_what_paper_a_says() -> None:
    assert published("flatness_release+at0.25+fork") == published("flatness_release") != published("ncc_prevent")
    assert published("control_norm") == published("ncc_prevent+flatness_prevent") == "not in the paper"
    shown = {arm for pair in COMPARED for arm in pair} | {f"ncc_prevent+lambda{v}" for v in ("0.01", "1e-3", "1e-4")}
    assert {published(arm) for arm in shown} >= set(PUBLISHED.values())
    assert published("ncc_prevent+lambda0.01") != published("ncc_prevent")


def test_the_collapse_curve(tmp_path: Path) -> None:
    exact = float(kappa_at_collapse(5.0, 10, 1.0))
    collapsed, loose = run("ncc_encourage", 0, 0.5, kappa=exact), run("baseline", 0, 0.5, kappa=3 * exact)
    scaled, ratio = curves(collapsed, "train")
    assert ratio == pytest.approx(1.0)
    assert scaled == pytest.approx(float(kappa_at_collapse(5.0, 10)))
    assert curves(loose, "train")[1] == pytest.approx(3.0)
    records = [collapsed, loose, *runs("ncc_prevent+flatness_prevent", 0.4), *runs("ncc_prevent+lambda0.01", 0.4)]
    path = tmp_path / "curve.png"
    save(collapse_curve_figure(records), path)
    assert path.stat().st_size > 10_000
    looks = {(look(r.arm)["color"], look(r.arm)["marker"], look(r.arm).get("mfc")) for r in records}
    assert len(looks) == 4


def test_every_compared_arm_has_its_own_mark_and_name() -> None:
    arms = {arm for pair in COMPARED for arm in pair}
    looks = [tuple(look(arm).get(key) for key in ("color", "marker", "mfc", "mec", "fillstyle")) for arm in arms]
    assert len(set(looks)) == len(arms)
    assert len({look(arm)["label"] for arm in arms}) == len(arms)
    assert look("control_schedule+fork") == look("control_schedule")


def test_the_legend_of_all_arms_lies_on_the_page() -> None:
    arms = {arm for pair in COMPARED for arm in pair} | {"ncc_encourage+flatness_encourage", "ncc_prevent+lambda1e-3"}
    figure = collapse_curve_figure([run(arm, 0, 0.5) for arm in sorted(arms)])
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    page, box = figure.bbox, legend.get_window_extent()
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert len(legend.get_texts()) == len(arms) + 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("train_kappa", 0.0), ("train_logit_gap", -1.0), ("train_cdnv", math.nan), ("train_kappa_collapse_curve", 0.0)],
)
def test_numbers_without_a_place_on_a_log_axis_are_left_out(column: str, value: float, tmp_path: Path) -> None:
    good, bad = runs("baseline", 0.5, 0.6)
    for row in bad.rows:
        row[COLUMNS.index(column)] = value
    for records in ([good, bad], [bad])[value == 0 :]:
        save(collapse_curve_figure(records), tmp_path / "curve.png")
