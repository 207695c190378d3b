"""Runs in processes of their own: the same rows, and every way in which they can end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from experiments.grokking import main
from experiments.parallel import Failure, Job, Together, run_in_processes, share, usable_cores, way_of
from experiments.progress import ReportedBar, Screen
from grokcore import DivergedError, UsageError
from grokcore.errors import InterruptedRunError
from grokcore.training.checkpoint import load_checkpoint
from tests.experiments.small import ENTRY, metrics, small


def succeed(number: int, bar: Any) -> tuple[int, str]:
    print(f"said by {number}")
    with bar(total=3, initial=0, disable=True) as steps:
        steps.update(3)
    return number, str(torch.get_num_threads())


def diverge(bar: Any) -> None:
    print("before it diverged")
    raise DivergedError("the loss is", 7, float("nan"), {}, {})


def refuse(bar: Any) -> None:
    raise UsageError("no such thing")


def crash(bar: Any) -> None:
    raise KeyError("a bug")


def stop(bar: Any) -> None:
    raise InterruptedRunError(5)


def die(bar: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_job_that_fails_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    works = [partial(succeed, 0), diverge, refuse, die, crash, stop, partial(succeed, 1)]
    found = run_in_processes([Job(f"job {i}", work) for i, work in enumerate(works)], 2)
    assert (found[0][0], found[6][0]) == (0, 1)
    assert all(isinstance(outcome, Failure) for outcome in found[1:6])
    assert [outcome.code for outcome in found[1:6]] == [1, 2, 1, 1, 130]
    printed, complained = capfd.readouterr()
    assert sorted(printed.splitlines()) == ["before it diverged", "said by 0", "said by 1"]
    errors = {line.removeprefix("error: job ") for line in complained.splitlines() if line.startswith("error: ")}
    assert errors == {
        "1 diverged: the loss is not finite at step 7 (loss nan, penalty none active); "
        "its last good checkpoint is kept",
        "2 no such thing",
        "3 its process was ended by SIGKILL",
        "4 'a bug'",
    }
    assert "job 5 stopped at step 5" in complained.splitlines()  # no error: it was asked to
    assert complained.count("Traceback") == 1
    assert [line for line in complained.splitlines() if line.endswith("begun")] == [f"job {i}: begun" for i in range(7)]


def test_no_jobs() -> None:
    assert run_in_processes([], 2) == []


def folders(runs: Path) -> list[Path]:
    return sorted(runs.glob("grokking/*/seed*"))


def test_processes_write_what_one_after_another_writes(tmp_path: Path) -> None:
    """Rows and weights, bit for bit, at the same number of threads."""
    _, threads = share(2, usable_cores())
    both = ["--arm", "ncc_prevent", "--seeds", "0", "1"]
    assert main(small(tmp_path / "a", *both, "--together", "processes", steps=40)) == 0
    assert main(small(tmp_path / "b", *both, "--together", "no", "--threads", str(threads), steps=40)) == 0
    mine, theirs = folders(tmp_path / "a"), folders(tmp_path / "b")
    assert [each.name for each in mine] == [each.name for each in theirs]
    assert len(mine) == 2
    for one, other in zip(mine, theirs, strict=True):
        assert metrics(one) == metrics(other)
        weights, wanted = (load_checkpoint(each / "checkpoint.pt")["model"] for each in (one, other))
        assert all(torch.equal(value, wanted[name]) for name, value in weights.items())
        assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
    assert metrics(mine[0]) != metrics(mine[1])
    assert (tmp_path / "a" / "grokking" / "comparison.png").exists()


def test_batched_seeds_have_the_records_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(tmp_path, "--seeds", "1", steps=30)) == 0  # one has finished before
    assert main(small(tmp_path, "--seeds", "0", "1", "2", "--together", "batched", steps=30)) == 0
    said = capsys.readouterr().out
    assert "seed 1: finished before" in said
    assert [len(metrics(folder)) for folder in folders(tmp_path)] == [13, 13, 13]
    assert main(small(tmp_path / "alone", "--seeds", "2", steps=30)) == 0
    alone = metrics(folders(tmp_path / "alone")[0])
    # So few steps are the same in float32 too, but for rounding.
    assert metrics(folders(tmp_path)[2])[-1]["train_kappa"] == pytest.approx(alone[-1]["train_kappa"], rel=1e-3)


@pytest.mark.parametrize("way", ["batched", "processes"])
def test_runs_that_diverge_are_named(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = small(tmp_path, "--seeds", "0", "1", "--together", way, "--learning-rate", "1e30", steps=30)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert all(f"error: baseline seed {seed} diverged" in said for seed in (0, 1))


def started(runs: Path, *more: str) -> subprocess.Popen[str]:
    """A command of two runs in processes, each of which has taken steps, in a group of its own."""
    flags = ["--seeds", "0", "1", "--together", "processes", "--checkpoint-every", "5", *more]
    command = [*ENTRY, *small(runs, *flags, steps=1_000_000)]
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **how)
    while not all(len(list(folder.glob("checkpoint.pt"))) for folder in folders(runs)) or len(folders(runs)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("whom", ["the terminal's group", "the parent"])
def test_a_signal_leaves_checkpoints_of_every_run(whom: str, tmp_path: Path) -> None:
    process = started(tmp_path)
    if whom == "the parent":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command (without --fresh) goes on" in said
    assert "Traceback" not in said
    for seed, folder in enumerate(folders(tmp_path)):
        step = load_checkpoint(folder / "checkpoint.pt")["step"]
        assert f"baseline seed {seed} stopped at step {step}" in said.splitlines()  # a line of its own, no error
        FileLock(folder / ".lock").acquire(timeout=0)  # nobody is left in it


def test_runs_that_lose_their_parent_stop_by_themselves(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    for folder in folders(tmp_path):
        FileLock(folder / ".lock").acquire(timeout=60)
        assert load_checkpoint(folder / "checkpoint.pt")["step"] > 0


@pytest.mark.parametrize(
    ("asked", "device", "runs", "cores", "way"),
    [
        ("auto", "cpu", 3, 2, "processes"),
        ("auto", "cpu", 3, 1, "no"),
        ("auto", "cpu", 1, 2, "no"),
        ("auto", "cuda", 3, 16, "batched"),
        ("auto", "cuda", 1, 16, "no"),
        ("processes", "cuda", 2, 1, "processes"),
        ("batched", "cpu", 2, 2, "batched"),
        ("no", "cpu", 5, 16, "no"),
    ],
)
def test_which_way(asked: Together, device: str, runs: int, cores: int, way: str) -> None:
    assert way_of(asked, torch.device(device), runs, cores) == way


@pytest.mark.parametrize(
    ("runs", "cores", "wanted"), [(3, 2, (2, 1)), (2, 16, (2, 8)), (30, 16, (16, 1)), (3, 8, (3, 2)), (1, 1, (1, 1))]
)
def test_shares_of_the_cores(runs: int, cores: int, wanted: tuple[int, int]) -> None:
    assert share(runs, cores) == wanted


def test_a_bar_tells_its_parent_and_stops_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    mine, theirs = Pipe()
    with monkeypatch.context() as patch, ReportedBar(theirs, total=50, initial=10, unit="step") as bar:
        patch.setattr(time, "monotonic", lambda: now[0])
        bar.set_postfix_str("words")
        for _ in range(4):
            bar.update(1)
            now[0] += 0.3
    assert [mine.recv(), mine.recv()] == [("bar", 11, 50, "words"), ("bar", 13, 50, "words")]
    assert not mine.poll()
    mine.close()
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    bar.update(1)
    assert raised == [signal.SIGTERM]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_for_each_running_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    screen = Screen(["one", "two", "three"])
    for job in (0, 1):
        screen.begin(job)
        screen.show(job, 20 + job, 100, f"words {job}")
    screen.end(0, "printed\n", "complained\n")
    screen.begin(2)
    screen.show(2, 50, 100, "")
    screen.close()
    drawn = terminal.getvalue()
    assert "begun" not in drawn
    assert "complained" in drawn
    assert capsys.readouterr().out == "printed\n"
    assert all(words in drawn for words in ("one:  20%", "two:  21%", "three:  50%"))


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: now[0])
    screen = Screen(["one", "two"])
    screen.begin(0)
    for seconds in (10, 59, 61, 100, 130):
        now[0] = seconds
        screen.show(0, 50 * seconds, 10_000, "kappa 3")
    assert capsys.readouterr().err.splitlines() == [
        "one: begun",
        "one: step 3,050 of 10,000, kappa 3",
        "one: step 6,500 of 10,000, kappa 3",
    ]
