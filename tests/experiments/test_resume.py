"""A run that is killed at any moment and started again ends with the same metrics, bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.grokking import main
from grokcore import ResourceBusyError
from grokcore.errors import InterruptedRunError
from grokcore.training import loop, run_folder
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.step import Trainer
from tests.experiments.small import ENTRY, metrics, only_run, small


class KilledError(BaseException):
    """Stands for a process that ends without a word: nothing in the program may catch it."""


def torn_row(folder: loop.RunFolder, row: dict[str, Any]) -> None:
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row)[:40])


def torn_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.with_suffix(".tmp").write_bytes(b"grokcore checkpoint 1 half a ha")


TORN = {"append": torn_row, "save_checkpoint": torn_checkpoint}


def dies_at(calls: int, real: Callable[..., object], torn: Callable[..., None] | None) -> Callable[..., object]:
    """`real`, until the call of that number, which leaves torn work behind."""
    left = itertools.count(calls - 1, -1)

    def dying(*args: object, **kwargs: object) -> object:
        if next(left) == 0:
            if torn is not None:
                torn(*args, **kwargs)
            raise KilledError
        return real(*args, **kwargs)

    return dying


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["model"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("reference")
    assert main(small(runs, "--arm", "flatness_release", "--checkpoint-every", "7")) == 0
    return only_run(runs)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_steps(seed: int, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before a step, half-way through a row, half-way through a checkpoint's file, or before its
    rename, several times over."""
    draw = random.Random(seed)
    command = small(tmp_path, "--arm", "flatness_release", "--checkpoint-every", "7")

    for _ in range(3):
        owner, name, most = draw.choice(
            [
                (Trainer, "step", 50),
                (loop.RunFolder, "append", 12),
                (run_folder, "save_checkpoint", 8),
                (os, "replace", 10),
            ]
        )
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dies_at(draw.randint(1, most), getattr(owner, name), TORN.get(name)))
            with contextlib.suppress(KilledError):
                main(command)
    assert main(command) == 0
    folder = only_run(tmp_path)
    assert metrics(folder) == metrics(reference)
    weights = final_weights(reference)
    assert all(torch.equal(value, weights[name]) for name, value in final_weights(folder).items())


def test_kill_minus_nine(tmp_path: Path, reference: Path) -> None:
    """The real thing: SIGKILL to the process, once it has a checkpoint."""
    command = small(tmp_path, "--arm", "flatness_release", "--checkpoint-every", "7")
    process = subprocess.Popen([*ENTRY, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("grokking/*/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert main(command) == 0
    assert metrics(only_run(tmp_path)) == metrics(reference)


def test_ctrl_c_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    command = small(tmp_path, "--arm", "ncc_prevent", steps=4000)
    process = subprocess.Popen([*ENTRY, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("grokking/*/*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command (without --fresh) goes on" in said
    folder = only_run(tmp_path)
    stopped_at = load_checkpoint(folder / "checkpoint.pt")["step"]
    assert 0 < stopped_at < 4000
    assert (folder / "figure.png").exists()
    assert main(command) == 0
    assert metrics(folder)[-1]["step"] == 4000


def test_finished_run_says_so_and_fresh_starts_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = small(tmp_path, steps=20)
    assert main(command) == 0
    first = only_run(tmp_path)
    before = (first / "metrics.jsonl").read_bytes()
    assert main(command) == 0
    assert "finished before" in capsys.readouterr().out
    assert (first / "metrics.jsonl").read_bytes() == before
    assert main([*command, "--fresh"]) == 0
    second = first.with_name(first.name + "-2")
    assert metrics(second) == metrics(first)


def test_second_process_is_refused(tmp_path: Path) -> None:
    command = small(tmp_path, steps=100_000)
    process = subprocess.Popen([*ENTRY, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob("grokking/*/*/checkpoint.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(ResourceBusyError, match="another process"):
            main(command)
        assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_thread_count_does_not_name_the_run(tmp_path: Path) -> None:
    """Threads, device and folders decide no result, so they are not in the id."""
    assert main(small(tmp_path / "a", "--threads", "1", steps=5)) == 0
    assert main(small(tmp_path / "b", "--threads", "2", steps=5)) == 0
    assert only_run(tmp_path / "a").name == only_run(tmp_path / "b").name


def test_a_lost_figure_is_drawn_again(tmp_path: Path) -> None:
    command = small(tmp_path, steps=10)
    assert main(command) == 0
    figure = only_run(tmp_path) / "figure.png"
    figure.unlink()
    assert main(command) == 0
    assert figure.exists()


def test_a_stop_in_the_last_step_stops_the_seeds_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Trainer.step

    def interrupted(trainer: Trainer) -> object:
        if trainer.steps_done == 9:
            signal.raise_signal(signal.SIGINT)
        return real(trainer)

    command = small(tmp_path, "--seeds", "0", "1", "--together", "no", steps=10)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(InterruptedRunError):
            main(command)
    assert main(command) == 0
    assert [len(metrics(folder)) for folder in sorted(tmp_path.glob("grokking/*/seed*"))] == [11, 11]


def test_another_thread_count_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = small(tmp_path, steps=10)
    assert main(command) == 0
    folder = only_run(tmp_path)
    (folder / "summary.json").unlink()
    assert main([*command, "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "threads 2, now 1: bit-for-bit" in said
    assert "from its last checkpoint" in said
    assert json.loads((folder / "config.json").read_text())["later"][0]["threads"] == 1
