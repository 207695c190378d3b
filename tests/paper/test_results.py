"""Recorded results: made from finished runs and from nothing else, and refused when changed."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from experiments.grokking import main as grokking
from grokcore import UsageError
from grokcore.documents import write_tables
from grokcore.training.record import by_arm, read_record, record_of
from grokcore.training.run_folder import run_id
from grokcore.training.table import spread
from paper.__main__ import main as paper
from paper.checks import check_results
from paper.every_table import texts
from paper.recorded import refresh, settings
from tests.experiments.small import small


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert grokking(small(folder, steps=20)) == 0
    assert grokking(small(folder, "--arm", "flatness_release", "--release-at", "0.25", "--seeds", "4", steps=20)) == 0
    return folder


def test_refresh_writes_one_file_a_finished_run(runs: Path, tmp_path: Path) -> None:
    assert refresh(runs, tmp_path) == 2
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.json"))
    assert [f.split("/")[-1].split("+")[0] for f in files] == ["baseline", "flatness_release"]
    assert all(f.startswith("grokking/quick/") for f in files)
    assert "+p11+" in files[0]
    assert "+hidden16x12+" in files[0]
    assert "+at0.25" in files[1]
    assert files[1].endswith("-seed4.json")
    record = read_record(tmp_path / files[0])
    run = record_of(next(p for p in runs.glob("grokking/baseline/*")))
    assert record.path.as_posix() == files[0]
    assert record.run_id == run.run_id
    assert record.column("train_kappa") == pytest.approx(run.column("train_kappa"), rel=1e-6)
    assert record.final("step") == 20
    text = (tmp_path / files[0]).read_text()
    assert str(runs) not in text
    assert set(json.loads(text)) == {
        "schema", "config", "run_id", "versions", "device", "commit", "wall_s", "columns", "rows", "summary", "sha256"
    }  # fmt: skip


def test_refresh_is_repeatable_and_ignores_what_is_not_finished(runs: Path, tmp_path: Path) -> None:
    refresh(runs, tmp_path / "a")
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    next(copy.glob("grokking/baseline/*/summary.json")).unlink()
    assert refresh(copy, tmp_path / "b") == 1
    (file,) = (tmp_path / "b").rglob("*.json")
    assert file.read_bytes() == (tmp_path / "a" / file.relative_to(tmp_path / "b")).read_bytes()


def test_a_changed_result_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refresh(runs, tmp_path)
    file = next(tmp_path.rglob("*.json"))
    assert check_results(tmp_path) == 2
    content = json.loads(file.read_text())
    content["rows"][-1][3] = 0.5
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="hash does not match"):
        check_results(tmp_path)
    file.write_text("{}")
    with pytest.raises(UsageError, match="not a recorded result"):
        read_record(file)


def test_a_summary_without_its_last_row_is_no_finished_run(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    metrics = next(copy.glob("grokking/baseline/*/metrics.jsonl"))
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UsageError, match="lacks a summary or the row of its last step"):
        refresh(copy, tmp_path / "out")


def test_an_empty_summary_is_no_finished_run(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    next(copy.glob("grokking/baseline/*/summary.json")).write_text("{}")
    with pytest.raises(UsageError, match="no summary"):
        refresh(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_leave_out_what_all_records_share(runs: Path) -> None:
    records = [record_of(p) for p in sorted(runs.glob("grokking/*/*"))]
    assert sorted(by_arm(records)) == ["baseline", "flatness_release+at0.25"]
    assert records[0].arm.startswith("baseline+p11+")


def test_spread_is_a_median() -> None:
    def show(value: float) -> str:
        return f"{value:g}"

    assert spread([3.0, 1.0], show) == "2 [1, 3]"
    assert spread([5.0, 5.0], show) == "5"
    assert spread([1.0, 2.0, math.inf], show) == "2 [1, never]"
    assert spread([math.nan, 2.0, 1.0], show) == "1.5 [1, 2] (1 undefined)"
    assert spread([math.nan], show) == "undefined"


def test_check_of_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded results"):
        paper(["check", "--results", str(tmp_path)])


def test_two_runs_never_share_a_path(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    folder = only_run_of(copy, "baseline")
    content = json.loads((folder / "config.json").read_text())
    content["config"]["training"]["batch_size"] += 1
    twin = folder.with_name("seed0-twin")
    shutil.copytree(folder, twin)
    content["run_id"] = run_id(content["config"])
    (twin / "config.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="both claim"):
        refresh(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_are_written_between_their_markers(runs: Path, tmp_path: Path) -> None:
    refresh(runs, tmp_path / "results")
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- table grokking/quick -->\nold\n<!-- end -->\nafter\n")
    assert write_tables(document, texts(settings(tmp_path / "results")))
    text = document.read_text()
    assert "old" not in text
    assert "| arm |" in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert not write_tables(document, texts(settings(tmp_path / "results")))


def test_figures_are_drawn_from_results_and_are_the_same_bytes_again(runs: Path, tmp_path: Path) -> None:
    refresh(runs, tmp_path / "results")
    flags = ["figures", "grokking-quick-arms", "--results", str(tmp_path / "results"), "--out"]
    assert paper([*flags, str(tmp_path / "a")]) == 0
    assert paper([*flags, str(tmp_path / "b")]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["grokking-quick-arms.pdf", "grokking-quick-arms.png", "manifest.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    with pytest.raises(UsageError, match="no recorded results"):
        paper(["figures", "--results", str(tmp_path / "empty"), "--out", str(tmp_path / "c")])


def only_run_of(runs: Path, arm: str) -> Path:
    (folder,) = runs.glob(f"grokking/{arm}/*")
    return folder


def test_missing_runs_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        refresh(tmp_path / "nowhere", tmp_path)
