"""The benchmarks' own parts: what is timed in turns, what a row says, what the command line takes and writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.row import Row, table
from benchmarks.timing import interleaved, require_same
from grokcore import UsageError


def fake(name: str, log: list[str], seconds: Callable[[int], float]) -> Callable[[int], float]:
    """A stopwatch of a work whose k-th measurement takes `seconds(k)` a call."""
    taken = [0]

    def watch(count: int) -> float:
        log.append(name)
        taken[0] += 1
        return count * seconds(taken[0])

    return watch


def test_turns_are_taken_in_turn_and_the_best_counts() -> None:
    log: list[str] = []
    # Measurement 1 warms up; 2 to 4 are the rounds, of which the third is the fastest.
    slow = fake("a", log, lambda k: {1: 90.0, 2: 3.0, 3: 2.0, 4: 5.0}[k])
    fast = fake("b", log, lambda k: 1.0)
    assert interleaved(slow, fast, rounds=3, turn=0.2) == [2.0, 1.0]
    assert log == ["a", "b"] + ["a", "b"] * 3


def test_short_works_are_repeated() -> None:
    log: list[str] = []
    short = fake("a", log, lambda k: 2.0**-12)
    assert interleaved(short, rounds=2, turn=0.01) == [2.0**-12]
    # 1, 2, 4 and 8 calls until a measurement takes a millisecond, then 6 measurements a turn of 8 * 2^-12 s each.
    assert len(log) == 4 + 2 * 6


@pytest.mark.parametrize("theirs", [1.001, math.nan, -1.0])
def test_another_number_is_refused(theirs: float) -> None:
    require_same("this", 1.0, 1.00001)
    with pytest.raises(RuntimeError, match="this: the baseline computes"):
        require_same("this", 1.0, theirs)


@pytest.mark.parametrize(
    ("row", "verdict", "wanted"),
    [
        (Row("a", 1.0, ratio=2.0, at_least=2), "met", ">= 2"),
        (Row("a", 1.0, ratio=1.99, at_least=2), "missed", ">= 2"),
        (Row("a", 1.0, ratio=2.4, at_most=2.4), "met", "<= 2.4"),
        (Row("a", 1.0, ratio=2.41, at_most=2.4), "missed", "<= 2.4"),
        (Row("a", 1.0, ratio=math.nan, at_least=2), "missed", ">= 2"),
        (Row("a", 1.0, ratio=2.0), "", ""),
        (Row("a", None, at_least=2, note="not installed"), "", ">= 2"),
    ],
)
def test_verdicts(row: Row, verdict: str, wanted: str) -> None:
    assert (row.verdict, row.wanted) == (verdict, wanted)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5, "s", "2.5 s"),
        (0.0031, "s", "3.1 ms"),
        (0.25, "s", "250 ms"),
        (8.84e-5, "s", "88.4 us"),
        (4e-9, "s", "0.004 us"),
        (147.6, "steps/s", "148 steps/s"),
    ],
)
def test_units(value: float, unit: str, text: str) -> None:
    assert Row("a", value, unit).measured == text


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("first", 0.5, ratio=3.0, at_least=2), Row("second", None, note="not installed")]
    seen: list[torch.device] = []
    monkeypatch.setattr(command, "BENCHMARKS", {"one": lambda device: [seen.append(device), *rows][1:]})
    assert command.main(["one", "--device", "cpu", "--json", str(tmp_path / "out.json")]) == 0
    assert seen == [torch.device("cpu")]
    assert table(rows) in capsys.readouterr().out
    (run,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["runs"]
    assert run["device"] == "cpu"
    assert [(r["ratio"], r["verdict"], r["value"]) for r in run["rows"]] == [(3.0, "met", 0.5), (None, "", None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heads"], "unknown benchmark 'heads'"),
        (["--threads", "0"], "--threads"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_bad_words(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command.main(words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(UsageError, match="no CUDA GPU"):
        command.main(["--device", "cuda"])
