"""Bad input gets one clear line and exit code 2, and nothing is lost."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from experiments.grokking import main
from grokcore import UsageError
from grokcore.commandline import run_command
from grokcore.training.checkpoint import MAGIC, load_checkpoint, save_checkpoint
from tests.experiments.small import ENTRY, metrics, only_run, small


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run as the command line does; returns the one line on stderr."""
    with pytest.raises(SystemExit) as leaving:
        run_command(main, command)
    said = capsys.readouterr().err.strip()
    assert leaving.value.code == 2, said
    assert said.count("\n") == 0, said
    assert said.startswith("error: ")
    return said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--arm", "ncc_prevnt"], ["'ncc_prevent'", "arms: baseline,", "control_schedule"]),
        (["--arm", "zzz"], ["unknown arm", "arms: baseline,"]),
        (["--preset", "quik"], ["presets: quick"]),
        (["--operation", "x/y", "--p", "10"], ["10 is not prime"]),
        (["--operation", "x+"], ["cannot read the operation"]),
        (["--operation", "x+z"], ["x and y"]),
        (["--operation", "__import__('os')"], ["x and y"]),
        (["--p", "1"], ["modulus"]),
        (["--p", "eleven"], ["--p", "eleven"]),
        (["--train-fraction", "1.0"], ["between 0 and 1"]),
        (["--train-fraction", "0.999"], ["no test data"]),
        (["--train-fraction", "0.001"], ["no train data"]),
        (["--label-noise", "1.5"], ["label noise"]),
        (["--steps", "0"], ["--steps"]),
        (["--measurements", "500"], ["--measurements"]),
        (["--learning-rate", "-1"], ["--learning-rate"]),
        (["--learning-rate", "nan"], ["--learning-rate"]),
        (["--weight-decay", "nan"], ["--weight-decay"]),
        (["--cdnv-weight", "inf"], ["--cdnv-weight"]),
        (["--beta1", "1"], ["--beta1"]),
        (["--cdnv-cap", "0"], ["--cdnv-cap"]),
        (["--temperature", "-2"], ["--temperature"]),
        (["--release-at", "1000"], ["--release-at", "run's end"]),
        (["--head-norm-cap", "3", "--head-norm-hold", "3"], ["exclude"]),
        (["--release-schedule", "linear"], ["--release-schedule"]),
        (["--seeds"], ["--seeds"]),
        (["--seeds", "-1"], ["--seeds"]),
        (["--seeds", "0", "0"], ["--seeds", "different"]),
        (["--seeds", "9" * 30], ["--seeds"]),
        (["--embedding", "99999999999"], ["--embedding"]),
        (["--threads", "99999999999"], ["--threads"]),
        (["--steps", "9" * 30], ["--steps"]),
        (["--operation", "x+1and y"], ["operation"]),
        (["--arm=ncc_prevnt"], ["'ncc_prevent'"]),
        (["--hidden", "0"], ["--hidden"]),
        (["--threads", "0"], ["--threads"]),
        (["--device", "gpu"], ["device"]),
        (["--cdnv-wieght", "1"], ["unknown option --cdnv-wieght", "did you mean --cdnv-weight?"]),
        (["--arm", "all", "--cdnv-weight", "0.5"], ["--arm all"]),
        (["--arm"], ["--arm"]),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_one_line_and_code_two(
    flags: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(small(tmp_path / "runs", *flags), capsys)
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no CUDA GPU" in refused(small(tmp_path, "--device", "cuda"), capsys)


def test_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder should be: refused for root too, whom no mode bits stop."""
    (tmp_path / "runs").write_text("here")
    assert "cannot write to" in refused(small(tmp_path / "runs"), capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    assert "cannot write to" in refused(small(tmp_path / "runs"), capsys)


@pytest.fixture
def half_done(tmp_path: Path) -> tuple[list[str], Path]:
    """A run folder with a checkpoint and without its summary."""
    command = small(tmp_path, steps=30)
    assert main(command) == 0
    folder = only_run(tmp_path)
    (folder / "summary.json").unlink()
    return command, folder


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "one bit", "foreign pickle", "other run", "other model", "no optimizer"]
)
def test_damaged_or_foreign_checkpoint(
    damage: str, half_done: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, folder = half_done
    path = folder / "checkpoint.pt"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "foreign pickle":
        torch.save({"weights": torch.ones(3)}, path)
    else:
        state = load_checkpoint(path)
        changed = {
            "other run": {"run_id": "00000000"},
            "other model": {"model": {"head.weight": torch.ones(3)}},
            "no optimizer": {"optimizer": {}},
        }[damage]
        save_checkpoint(path, state | changed)
    damaged, rows = path.read_bytes(), metrics(folder)
    said = refused(command, capsys)
    assert "checkpoint" in said
    assert "--fresh" in said
    assert path.read_bytes() == damaged
    assert metrics(folder) == rows
    assert main([*command, "--fresh"]) == 0


def test_checkpoint_that_would_run_code_is_not_run(
    half_done: tuple[list[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    command, folder = half_done
    buffer = io.BytesIO()
    torch.save({"step": Payload()}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    (folder / "checkpoint.pt").write_bytes(MAGIC + digest + b"\n" + buffer.getvalue())
    assert "not a checkpoint" in refused(command, capsys)
    assert not (tmp_path / "owned").exists()


def test_config_that_differs(half_done: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    command, folder = half_done
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["training"]["batch_size"] = 21
    path.write_text(json.dumps(stored))
    assert "training.batch_size" in refused(command, capsys)


def test_metrics_shorter_than_the_checkpoint(
    half_done: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, folder = half_done
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert "shorter" in refused(command, capsys)


def test_rows_without_their_checkpoint(half_done: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    command, folder = half_done
    rows = metrics(folder)
    (folder / "checkpoint.pt").unlink()
    assert "is missing" in refused(command, capsys)
    assert metrics(folder) == rows


@pytest.mark.parametrize("content", ["{}", "5", '{"words": 5}', "{"])
def test_damaged_summary(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = small(tmp_path, steps=5)
    assert main(command) == 0
    (only_run(tmp_path) / "summary.json").write_text(content)
    capsys.readouterr()
    assert "summary.json" in refused(command, capsys)


def test_bad_results_are_found_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "results" / "grokking" / "quick" / "baseline-seed0.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    command = small(tmp_path / "runs", "--arm", "ncc_prevent", "--results", str(tmp_path / "results"))
    assert "not a recorded result" in refused(command, capsys)
    assert not (tmp_path / "runs").exists()
    assert "no folder" in refused(small(tmp_path / "runs", "--results", "nowhere"), capsys)


def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(small(tmp_path), capsys)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = small(tmp_path, "--arm", "ncc_prevent", "--learning-rate", "300", "--checkpoint-every", "1", steps=500)
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"diverged: the (loss is|weights are) not finite at step \d+ \(loss \S+, penalty cdnv ", said)
    folder = only_run(tmp_path)
    state = load_checkpoint(folder / "checkpoint.pt")
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert not (folder / "summary.json").exists()
    assert (folder / "figure.png").exists()
    # The same command tries again from there and meets the same end.
    assert main(command) == 1
    again = capsys.readouterr().err.splitlines()[-1]
    assert re.findall(r"at step \d+", again) == re.findall(r"at step \d+", said)


def test_the_shell_sees_code_two(tmp_path: Path) -> None:
    done = subprocess.run([*ENTRY, *small(tmp_path, "--arm", "nope")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown arm 'nope'")
    assert done.stdout == ""


def test_usage_errors_are_value_errors() -> None:
    assert issubclass(UsageError, ValueError)
