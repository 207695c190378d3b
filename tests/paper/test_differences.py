"""Differences over seeds, their words, and paper A's outcomes beside them, on runs made up for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from grokcore.training.figures import save
from grokcore.training.record import Record
from paper.collapse_curve import collapse_curve_figure, curves, look
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
    config = {"experiment": "cifar10", "preset": "cpu", "arm": name, "variant": variant, "seed": seed, "data": {}}
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


def test_what_paper_a_says() -> None:
    assert published("flatness_release+at0.25+fork") == published("flatness_release") != published("ncc_prevent")
    assert published("control_norm") == published("ncc_prevent+flatness_prevent") == "not in the paper"
    assert {published(arm) for pair in COMPARED for arm in pair} >= set(PUBLISHED.values())


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
