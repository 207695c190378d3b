"""The timing of falls, on runs whose answers are known by construction; each rule with its negative sibling."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokcore.errors import UsageError
from grokcore.training.figures import arms_figure
from grokcore.training.milestones import Passing, half_fall
from grokcore.training.record import Record
from grokcore.training.table import by_setting
from paper.__main__ import main
from paper.charts.published_kappa import timing_figure
from paper.every_table import texts
from paper.recorded import settings
from paper.timing import (
    AFTER,
    BETWEEN,
    FIT,
    FIT_AND_GENERALISATION,
    FLOOR,
    GENERALISATION,
    NEVER,
    NO_FIT,
    NOT_SEEN,
    QUANTITIES,
    UNDEFINED,
    Fall,
    Timing,
    agreed,
    events,
    published_runs,
    timing,
)
from paper.timing_report import HEADER, table, verdict

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
FITTED, RISING, RISEN = 16, 128, 512
"""The known run: train accuracy 99 % at 16, test accuracy 10 % at 128, 60 % at 256, 100 % at 512."""
ACCURACY = {
    "train_accuracy": [0.0] * 5 + [1.0] * 7,
    "test_accuracy": [0.0] * 8 + [0.1, 0.6, 1.0, 1.0],
}


def fall_at(step: int, *, high: float = 100.0, low: float = 1.0) -> list[float]:
    """A curve that drops in one interval, which ends at `step`."""
    return [high if s < step else low for s in STEPS]


def run(seed: int = 0, *, variant: tuple[str, ...] = ("headvocabulary",), arm: str = "baseline",
        preset: str = "paper", fork: bool = False, **curves: list[float | None]) -> Record:  # fmt: skip
    """A record with the known accuracies; a quantity that is not given falls with the fit."""
    names = [*ACCURACY, *(n for n in QUANTITIES if n != "train_inverse_distance"), "train_squared_mean_distance"]
    if "headvocabulary" not in variant:
        names = [name for name in names if "published" not in name]
    columns: dict[str, Any] = {name: fall_at(FITTED) for name in names} | ACCURACY | curves
    config: dict[str, Any] = {
        "experiment": "grokking", "preset": preset, "arm": arm, "seed": seed, "variant": list(variant),
        "data": {"operation": "x+y", "p": 97, "train_fraction": 0.5},
        "model": {"head": "vocabulary" if "headvocabulary" in variant else "answer"},
        "training": {"steps": STEPS[-1] if "steps9" not in variant else 9},
        "intervention": {"release_at": None},
    }  # fmt: skip
    if fork:
        config["fork"] = {"arm": "baseline", "step": 4}
    rows = [[s, *values] for s, *values in zip(STEPS, *columns.values(), strict=True)]
    return Record(config, f"id{seed}", {}, "cpu", "c0ffee", 1.0, ["step", *columns], rows, {"words": []})


def kappa(**changes: Any) -> Timing:
    return timing(run(**changes), "train_kappa")


def test_the_events_of_the_known_run() -> None:
    seen = events(run())
    assert (seen.fit, seen.starts) == (Passing(FITTED, 8), Passing(RISING, 64))
    assert (seen.halfway, seen.done) == (Passing(256, 128), Passing(RISEN, 256))


@pytest.mark.parametrize(
    ("step", "phase", "tied", "exactly"),
    [
        (8, FIT, "", False),
        (FITTED, FIT, "the fit", False),
        (32, BETWEEN, "", False),
        (64, BETWEEN, "", False),
        (RISING, GENERALISATION, "generalisation's start", True),
        (256, GENERALISATION, "", True),
        (RISEN, GENERALISATION, "generalisation's end", False),
        (1024, AFTER, "", False),
    ],
)
def test_each_phase_and_its_edges(step: int, phase: str, tied: str, exactly: bool) -> None:
    found = kappa(train_kappa=fall_at(step))
    assert found.log == found.linear == Fall(phase, step, exactly, tied)
    before = STEPS[STEPS.index(step) - 1]
    # What it is compared with need not lie at the step itself, as pairs are at least `ratio` apart.
    assert before <= found.steepest <= step


def test_generalisation_that_starts_before_the_fit() -> None:
    early = [0.0] * 3 + [0.2] * 5 + [0.6, 0.6, 1.0, 1.0]
    assert kappa(test_accuracy=early, train_kappa=fall_at(8)).log.phase == FIT_AND_GENERALISATION
    assert kappa(test_accuracy=early, train_kappa=fall_at(8)).log.exactly
    assert kappa(test_accuracy=early, train_kappa=fall_at(2)).log.phase == FIT
    assert kappa(test_accuracy=early, train_kappa=fall_at(32)).log.phase == GENERALISATION


def test_what_never_comes() -> None:
    assert kappa(train_kappa=[1.0] * 12).log == Fall(NEVER, math.inf)
    assert kappa(train_kappa=fall_at(64, low=51.0)).linear == Fall(NEVER, math.inf)
    assert kappa(train_kappa=fall_at(64, low=49.0)).linear.step == 64
    assert kappa(train_kappa=[float(s + 1) for s in STEPS]).steepest == math.inf
    unfit = kappa(train_accuracy=[0.5] * 12, train_kappa=fall_at(64))
    assert (unfit.log.phase, unfit.log.step) == (NO_FIT, 64)
    assert math.isnan(unfit.levels[0])
    memorised = {"test_accuracy": [0.0] * 12}
    assert kappa(**memorised, train_kappa=fall_at(64)).log.phase == NOT_SEEN
    assert kappa(**memorised, train_kappa=fall_at(8)).log.phase == FIT
    unfinished = {"test_accuracy": [0.0] * 8 + [0.1, 0.6, 0.9, 0.9]}
    assert kappa(**unfinished, train_kappa=fall_at(1024)).log.phase == GENERALISATION


def test_nan_is_undefined_and_not_never() -> None:
    broken: list[float | None] = [*fall_at(64)]
    broken[6] = None
    found = kappa(train_kappa=broken)
    assert found.log.phase == found.linear.phase == UNDEFINED
    assert math.isnan(found.log.step)
    assert math.isnan(found.steepest)
    assert kappa(train_kappa=[0.0] * 12).log.phase == UNDEFINED
    # At initialisation a quantity may have no value.
    assert kappa(train_kappa=[None, *fall_at(64)[1:]]).log.step == 64
    without = run()
    without.columns[without.columns.index("train_kappa")] = "other"
    assert timing(without, "train_kappa").log.phase == UNDEFINED


def test_log_and_linear_scale_differ() -> None:
    """From 100 to 0.01: below half at 8, below 1 = sqrt(100 * 0.01) at 128."""
    values = [100.0, 100, 100, 100, 20, 18, 15, 10, 0.5, 0.1, 0.05, 0.01]
    found = kappa(train_kappa=values)
    assert (found.linear.phase, found.linear.step) == (FIT, 8)
    assert (found.log.phase, found.log.step) == (GENERALISATION, 128)
    assert found.levels == pytest.approx((0.18, 0.005, 0.0005, 0.0001))


def test_what_is_below_the_floor_has_fallen() -> None:
    """With the floor the half is at a thousandth of the maximum, and a zero is a fall; without it, it is far later."""
    deep = [1.0] * 7 + [1e-4, 1e-5, 1e-20, 1e-40, 1e-60]
    assert half_fall(np.array(STEPS), np.array(deep), lasting=True) == Passing(512, 256)
    assert kappa(train_kappa=deep).log.step == 64
    zero = [1.0] * 7 + [1e-4, 0.0, 0.0, 0.0, 0.0]
    assert half_fall(np.array(STEPS), np.array(zero), lasting=True) is None
    assert kappa(train_kappa=zero).log.step == 64
    assert kappa(train_kappa=zero).levels[-1] == 0.0
    assert FLOOR == 1e-6


def test_a_dip_from_which_a_curve_comes_back_is_no_fall() -> None:
    """As the published curve does: 1e-6 of its maximum before anything is learnt, then back."""
    dipped = [80.0, 1e-4, 1e-4, 60.0, 100, 100, 100, 100, 100, 1, 1, 1]
    assert kappa(train_kappa=dipped).log.step == 256
    first = [100.0, 1e-4, 1e-4, 60.0, 80, 80, 80, 80, 80, 1, 1, 1]
    assert kappa(train_kappa=first).log.step == 256
    assert half_fall(np.array(STEPS), np.array(first)) == Passing(1, 0)
    # One that comes back to less than half stays fallen.
    low = [100.0, 100, 100, 100, 1, 1, 40, 40, 40, 1, 1, 1]
    assert kappa(train_kappa=low).log.step == 8


def test_the_distance_falls_by_its_inverse() -> None:
    growing = run(train_squared_mean_distance=fall_at(32, high=1.0, low=100.0))
    assert timing(growing, "train_inverse_distance").log.step == 32
    shrinking = run(train_squared_mean_distance=fall_at(32))
    assert timing(shrinking, "train_inverse_distance").log.phase == NEVER
    merged = run(train_squared_mean_distance=[0.0] * 12)
    assert timing(merged, "train_inverse_distance").log.phase == UNDEFINED


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=len(STEPS), max_size=len(STEPS)),
    st.floats(1e-3, 1e3),
)
def test_units_change_nothing(values: list[float], unit: float) -> None:
    shares = np.array(values) / max(values)
    # On the very edge of a comparison, rounding decides.
    last = [shares[-1], math.sqrt(shares[-1])]
    if all(abs(math.log(v / edge)) > 1e-9 for v in shares for edge in (0.5, *last) if v != shares[-1]):
        ours, scaled = kappa(train_kappa=values), kappa(train_kappa=[unit * v for v in values])
        assert (ours.log, ours.linear) == (scaled.log, scaled.linear)
        assert ours.levels == pytest.approx(scaled.levels)


def falls(*phases: str, tied: str = "") -> list[Fall]:
    return [Fall(phase, 1.0, False, tied) for phase in phases]


def test_the_verdict_over_seeds() -> None:
    assert agreed(falls(FIT, FIT, FIT)) == "with the fit"
    assert agreed(falls(AFTER, BETWEEN, AFTER)) == "seeds differ: 2 after, 1 between"
    assert agreed(falls(FIT)) == "with the fit (1 seed only)"
    assert agreed(falls(FIT, FIT)) == "with the fit (2 seeds only)"
    assert agreed(falls(FIT, FIT, FIT, tied="the fit")) == "with the fit (3 of 3 in one interval with the fit)"


def three(**curves: list[float]) -> list[Record]:
    return [run(seed, **curves) for seed in range(3)]


def test_the_verdict_in_words() -> None:
    runs = three(train_kappa=fall_at(32), train_published_product=fall_at(256), train_cdnv=fall_at(8))
    said = verdict({"paper": runs}).splitlines()
    assert said[0] == "**paper**"
    assert "seeds 0 1 2" in said[2]
    assert "train accuracy 99 % (the fit): 16;" in said[2]
    assert (
        "- exact kappa: log scale: between, at step 32; linear scale: between, at step 32; left of its maximum: "
        "1 at the fit, 0.01 as generalisation starts, 0.01 at test 99 %, 0.01 at the end"
    ) in said
    assert any(line.startswith("- published curve: log scale: with generalisation, at step 256;") for line in said)
    assert any("before the published curve in 3, in one interval with it in 0, after it in 0" in line for line in said)
    claim = next(line for line in said if "flatness falls exactly" in line)
    assert "exact kappa: 0 on a log scale, 0 on a linear one" in claim
    assert "published curve: 3 on a log scale, 3 on a linear one" in claim
    assert said[-1].endswith("of 3 runs: CDNV: 3 on a log scale, 3 on a linear one")
    turned = verdict({"paper": three(train_kappa=fall_at(256), train_cdnv=fall_at(512))}).splitlines()
    assert any("after it in 3" in line for line in turned)
    assert turned[-1].endswith("of 3 runs: CDNV: 0 on a log scale, 0 on a linear one")


def test_the_table_has_a_row_for_each_event_and_quantity() -> None:
    seeds = [run(0, train_kappa=fall_at(32)), run(1, train_kappa=fall_at(64)), run(2, train_kappa=fall_at(256))]
    rows = table({"paper": seeds})
    assert len(rows) == 4 + len(QUANTITIES)
    assert {len(row) for row in rows} == {len(HEADER)}
    assert rows[0][:4] == ("paper", "train accuracy 99 % (the fit)", "", "16")
    found = next(row for row in rows if row[1] == "exact kappa")
    assert found[2:4] == ("seeds differ: 2 between, 1 with generalisation", "64 [32, 256]")
    assert found[7:9] == ("1", "0.01 [0.01, 1]")


def test_which_runs_count() -> None:
    plain = run(1), run(0)
    others = (
        run(0, arm="ncc_prevent"),
        run(0, fork=True, variant=("headvocabulary", "fork")),
        run(0, variant=("headvocabulary", "steps9")),
    )
    found = published_runs([*plain, *others])
    assert {name: [r.config["seed"] for r in runs] for name, runs in found.items()} == {
        "paper": [0, 1],
        "paper, steps9": [0],
    }
    assert published_runs([run(0, variant=())]) == {}
    other_head = run(0)
    other_head.config["model"]["head"] = "answer"
    assert published_runs([other_head]) == {}
    older = run(0)
    older.columns[older.columns.index("train_published_product")] = "other"
    assert published_runs([older]) == {}


def test_settings_stand_apart() -> None:
    own = [run(s, arm=arm, variant=()) for s in (0, 1) for arm in ("baseline", "ncc_prevent")]
    released = [run(0, arm="flatness_release", variant=("at0.25",))]
    longer = [run(s, variant=("headvocabulary", "steps9")) for s in range(9)]
    head = [run(0)]
    forks = [run(0, variant=("fork",), fork=True), run(0, arm="ncc_prevent", variant=("fork-baseline@4",), fork=True)]
    found = by_setting([*longer, *head, *forks, *own, *released])
    assert next(iter(found)) == ""
    assert {name: len(runs) for name, runs in found.items()} == {
        "": 7,
        "headvocabulary+steps9": 9,
        "headvocabulary": 1,
    }
    assert list(by_setting([*longer, *head])) == ["", "steps1024"]
    weaker = [run(0, arm="ncc_prevent", variant=(f"lambda{value}",)) for value in ("-0.2", "-0.5")]
    assert [len(group) for group in by_setting([*longer, *weaker]).values()] == [9, 2]
    assert by_setting([]) == {}


def written(folder: Path, *records: Record) -> list[str]:
    for record in records:
        record.write(folder)
    return ["--results", str(folder)]


def summarised(record: Record) -> Record:
    """With what the table of arms reads from a summary."""
    record.summary.update({"train_99": {"step": 16, "after": 8}, "test_99": None})
    return record


def test_figures_and_tables_of_the_command(tmp_path: Path) -> None:
    records = [*three(train_kappa=fall_at(32)), *(run(s, arm=a, variant=()) for s in (0, 1) for a in ("baseline", "x"))]
    where = written(tmp_path / "results", *map(summarised, records))
    names = ["grokking-paper-arms", "grokking-paper-timing"]
    for name in ("a", "b"):
        assert main(["figures", *names, *where, "--out", str(tmp_path / name)]) == 0
    drawn = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert drawn == sorted([f"{name}.{kind}" for name in names for kind in ("pdf", "png")] + ["manifest.json"])
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in drawn)
    found = texts(settings(tmp_path / "results"))
    assert list(found) == [
        "grokking/paper", "grokking/paper+headvocabulary", "grokking/timing", "grokking/timing-verdict"
    ]  # fmt: skip
    assert "| paper | exact kappa | between | 32 |" in found["grokking/timing"]
    assert "headvocabulary" not in found["grokking/paper"]


def test_nothing_is_drawn_without_the_published_head(tmp_path: Path) -> None:
    where = written(tmp_path / "results", summarised(run(0, variant=())))
    with pytest.raises(UsageError, match="no figure 'grokking-paper-timing'"):
        main(["figures", "grokking-paper-timing", *where, "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match=r"figure 2 published-kappa \(grokking/transformer/baseline.*and 2 more"):
        main(["figures", "2", "grokking-paper-arms", *where, "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "grokking-paper-arms.png").exists()
    assert list(texts(settings(tmp_path / "results"))) == ["grokking/paper"]


def test_the_arms_figure_names_what_stands_apart() -> None:
    own = [run(0, variant=()), run(0, arm="x", variant=())]
    assert (title := arms_figure(own, apart=["headvocabulary", "fork"]).get_suptitle()).endswith(
        "\nother settings, not drawn here: headvocabulary; fork"
    )
    assert title.startswith("x+y mod 97, 50 % train, paper; seed 0")
    assert "not drawn" not in arms_figure(own).get_suptitle()
    assert (
        "paper, headvocabulary, steps9; seed 0"
        in arms_figure([run(0, variant=("headvocabulary", "steps9"))]).get_suptitle()
    )


def test_the_figure_shows_the_curves() -> None:
    figure = timing_figure("paper", three(train_kappa=fall_at(32, high=8.0, low=2.0)))
    accuracy, flatness, *others = figure.axes
    assert len(others) == 4
    lines = {str(line.get_label()): line for line in flatness.lines}
    shown = [s for s in STEPS if s >= 10]
    assert list(lines["kappa"].get_xdata()) == shown
    assert list(lines["kappa"].get_ydata()) == [1.0 if s < 32 else 0.25 for s in shown]
    assert [line.get_xdata()[0] for line in accuracy.lines if line.get_linestyle() == ":"] == [FITTED] * 3
    assert [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in accuracy.patches] == [(64, RISEN)] * 3
    alone = timing_figure("paper", [run(0, test_accuracy=[0.0] * 12)])
    assert not alone.axes[0].patches
