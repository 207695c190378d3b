"""Forks: ``--from RUN@STEP`` goes on from another run's checkpoint, under another arm, and says where it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from experiments.grokking import main
from grokcore import UsageError
from grokcore.training import run_folder
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.record import record_of
from paper.recorded import refresh
from tests.experiments.small import metrics, small

HALF = 30


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of two arms, and of the release unforked."""
    runs = tmp_path_factory.mktemp("trunks")
    for arm in ("baseline", "flatness_prevent", "flatness_release"):
        assert main(small(runs, "--arm", arm, "--keep", "10", "0.5")) == 0
    return runs


@pytest.fixture
def runs(trunks: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trunks, tmp_path / "runs"))


def newest_of(runs: Path, arm: str) -> Path:
    return max(runs.glob(f"grokking/{arm}/seed*"), key=lambda path: path.stat().st_mtime_ns)


def fork(runs: Path, arm: str, source: str, *more: str) -> Path:
    before = set(runs.glob(f"grokking/{arm}/seed*"))
    assert main(small(runs, "--arm", arm, "--from", source, *more)) == 0
    (made,) = set(runs.glob(f"grokking/{arm}/seed*")) - before
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["model"]


@pytest.mark.parametrize("step", ["0.5", "10"])
def test_release_forked_from_its_first_half_is_the_unforked_release(runs: Path, step: str) -> None:
    whole = newest_of(runs, "flatness_release")
    forked = fork(runs, "flatness_release", f"flatness_prevent@{step}")
    assert metrics(forked) == metrics(whole)
    for name, value in weights(whole).items():
        assert torch.equal(weights(forked)[name], value)


def test_fork_from_another_arm_is_another_run(runs: Path) -> None:
    """The negative sibling: the same release after a first half without the penalty."""
    whole = newest_of(runs, "flatness_release")
    forked = fork(runs, "flatness_release", "baseline@0.5")
    shared = [row for row in metrics(forked) if row["step"] <= HALF]
    assert shared == [row for row in metrics(newest_of(runs, "baseline")) if row["step"] <= HALF]
    assert metrics(forked)[-1]["train_loss"] != metrics(whole)[-1]["train_loss"]


def test_run_by_arm_id_and_folder_are_one(runs: Path) -> None:
    trunk = newest_of(runs, "baseline")
    made = fork(runs, "ncc_prevent", "baseline@30")
    for name in (trunk.name.split("-")[1], str(trunk)):
        assert main(small(runs, "--arm", "ncc_prevent", "--from", f"{name}@30")) == 0  # finished before: the same run
    assert [made] == list(runs.glob("grokking/ncc_prevent/seed*"))


def test_names_tell_forks_apart(runs: Path, tmp_path: Path) -> None:
    fork(runs, "flatness_release", "flatness_prevent@0.5")
    fork(runs, "flatness_release", "baseline@0.5")
    fork(runs, "flatness_release", "flatness_prevent@10")
    inner = fork(runs, "ncc_prevent", "baseline@10", "--keep", "20")
    fork(runs, "ncc_encourage", f"{inner}@20")
    assert refresh(runs, tmp_path / "results") == 8
    names = {path.name for path in (tmp_path / "results").rglob("*.json")}
    shared = "+p11+embedding8+hidden16x12+steps60+batchsize20+measurements12"
    for arm in (
        f"flatness_release{shared}+fork",
        f"flatness_release{shared}+fork-baseline",
        f"flatness_release{shared}+fork@10",
        f"ncc_prevent{shared}+fork@10",
        f"ncc_encourage{shared}+fork-ncc_prevent-fork@10@20",
    ):
        assert f"{arm}-seed0.json" in names, sorted(names)


def test_record_leads_back_to_the_trunk(runs: Path) -> None:
    record = record_of(fork(runs, "control_schedule", "baseline@0.5"))
    trunk = json.loads((newest_of(runs, "baseline") / "config.json").read_text())
    assert record.config["fork"] == {"run_id": trunk["run_id"], "arm": "baseline", "step": HALF}
    assert record.rows[0][record.columns.index("step")] == 0
    assert "fork" not in trunk["config"]


def test_killed_while_beginning_begins_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        main(small(runs, "--arm", "control_schedule", "--from", "baseline@0.5"))
    monkeypatch.undo()
    assert main(small(runs, "--arm", "control_schedule", "--from", "baseline@0.5")) == 0
    forked = metrics(newest_of(runs, "control_schedule"))
    assert [row["step"] for row in forked] == [row["step"] for row in metrics(newest_of(runs, "baseline"))]


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [
        ("baseline", (), "takes RUN@STEP"),
        ("baseline@x", (), "takes RUN@STEP"),
        ("@30", (), "takes RUN@STEP"),
        ("baseline@-1", (), "takes RUN@STEP"),
        ("baseline@nan", (), "takes RUN@STEP"),
        ("baseline@29", (), "no checkpoint of step 29 (it has: 10, 30, 60)"),
        ("baseline@60", (), "does not lie within this run of 60 steps"),
        ("ncc_prevent@30", (), "has not been run with this seed"),
        ("baseline@30", ("--seeds", "1"), "has not been run with this seed"),
        ("nothing@30", (), "is no arm, no run's id"),
        ("baseline@30", ("--release-at", "20"), "lies before the fork"),
        ("FOLDER@30", ("--seeds", "1"), "differs from this run in its seed"),
        ("FOLDER@30", ("--p", "13"), "differs from this run in its data"),
        ("FOLDER@30", ("--learning-rate", "0.01"), "differs from this run in its learning_rate"),
    ],
)
def test_what_cannot_be_forked_says_why(runs: Path, source: str, more: tuple[str, ...], words: str) -> None:
    source = source.replace("FOLDER", str(newest_of(runs, "baseline")))
    with pytest.raises(UsageError) as caught:
        main(small(runs, "--arm", "control_schedule", "--from", source, *more))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_longer_fork(runs: Path) -> None:
    folder = newest_of(runs, "baseline")
    trunk, made = metrics(folder), metrics(fork(runs, "baseline", f"{folder}@0.5", "--steps", "90"))
    assert made[-1]["step"] == 90
    assert [row for row in made if row["step"] <= HALF] == [row for row in trunk if row["step"] <= HALF]


def test_a_fork_goes_on_without_its_trunk(runs: Path) -> None:
    """Killed after its own first checkpoint, it needs the trunk's no more."""
    whole = metrics(fork(runs, "control_schedule", "baseline@0.5"))
    made = newest_of(runs, "control_schedule")
    (made / "summary.json").unlink()
    (newest_of(runs, "baseline") / "checkpoint-30.pt").unlink()
    assert main(small(runs, "--arm", "control_schedule", "--from", "baseline@0.5")) == 0
    assert metrics(made) == whole


def test_rows_cut_short_are_not_forked(runs: Path) -> None:
    rows = newest_of(runs, "baseline") / "metrics.jsonl"
    rows.write_bytes(rows.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"is shorter than|is damaged"):
        main(small(runs, "--arm", "control_schedule", "--from", "baseline@0.5"))


def test_a_lost_checkpoint_of_a_fork_costs_no_rows(runs: Path) -> None:
    made = fork(runs, "control_schedule", "baseline@0.5")
    before = (made / "metrics.jsonl").read_bytes()
    for name in ("checkpoint.pt", "summary.json"):
        (made / name).unlink()
    with pytest.raises(UsageError, match=r"has rows and .* is missing"):
        main(small(runs, "--arm", "control_schedule", "--from", "baseline@0.5"))
    assert (made / "metrics.jsonl").read_bytes() == before


def test_a_trunk_of_another_version_is_refused(runs: Path) -> None:
    path = newest_of(runs, "baseline") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "deadbeef"}))
    with pytest.raises(UsageError, match="comes from another version"):
        main(small(runs, "--arm", "control_schedule", "--from", f"{path.parent}@0.5"))


def test_the_trunks_origin_is_the_forks_first(runs: Path, tmp_path: Path) -> None:
    path = newest_of(runs, "baseline") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "cafe-dirty", "threads": 7}))
    made = fork(runs, "control_schedule", "baseline@0.5")
    assert record_of(made).commit.startswith("cafe-dirty, then ")
    assert json.loads((made / "config.json").read_text())["threads"] == 7


def test_forks_from_runs_of_two_lengths_have_two_names(runs: Path, tmp_path: Path) -> None:
    folder = newest_of(runs, "baseline")
    fork(runs, "baseline", f"{folder}@10", "--steps", "90")
    assert main(small(runs, "--arm", "baseline", "--keep", "10", steps=90)) == 0
    fork(runs, "baseline", "baseline@10", "--steps", "90")
    assert refresh(runs, tmp_path / "results") == 6


@pytest.mark.parametrize("name", ["*", "**", "2", "seed0", "[0-9a-f]*"])
def test_an_id_is_taken_letter_by_letter(runs: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no arm"):
        main(small(runs, "--arm", "control_schedule", "--from", f"{name}@30"))


def test_a_fork_that_cannot_be_begun_leaves_no_folder(runs: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint of step 29"):
        main(small(runs, "--arm", "ncc_encourage", "--from", "baseline@29"))
    assert not (runs / "grokking" / "ncc_encourage").exists()
