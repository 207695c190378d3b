"""The paper: its figures' catalogue, files and manifest, its tables, macros and checks, and what starts its runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from experiments import cifar10, dynamics, grokking, limits
from experiments.command import Command, Experiment
from experiments.commands import command_variant, commands_of
from experiments.naming import plain_data
from grokcore import UsageError
from grokcore.documents import Table
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.record import read_record
from paper import checks, drawing, latex
from paper.__main__ import drawings, generated, main
from paper.catalogue import FIGURES, figure_named
from paper.constants import CONSTANTS, MACRO_PREFIX
from paper.drawing import Drawing, draw, stale, strays
from paper.every_table import tables
from paper.macros import tex, title
from paper.recorded import RESULTS, Need, records_of, settings
from paper.reproduce import commands_of as commands_of_needs
from paper.reproduce import reproduce


def parsed_limits(words: list[str]) -> tuple[Experiment, list[Command]]:
    study, commands = limits.commands_of(words)
    return limits.experiment_of(study, commands[0]), list(commands)


EXPERIMENTS: dict[str, Callable[[list[str]], tuple[Experiment, list[Command]]]] = {
    "grokking": lambda words: (grokking.EXPERIMENT, commands_of(grokking.EXPERIMENT, words)),
    "cifar10": lambda words: (cifar10.EXPERIMENT, commands_of(cifar10.EXPERIMENT, words)),
    "dynamics": lambda words: (dynamics.GREY, list(dynamics.commands_of(words))),
    "limits": parsed_limits,
}


def test_there_are_twelve_figures_with_names_of_their_own() -> None:
    assert [figure.number for figure in FIGURES] == list(range(1, 13))
    assert len({figure.name for figure in FIGURES}) == 12
    assert figure_named("4") is figure_named("ufm-law")
    with pytest.raises(UsageError, match="no figure '13'"):
        figure_named("13")


EVERY_NEED = list({need.paths[0]: need for figure in FIGURES for need in figure.needs}.values())


@pytest.mark.parametrize("need", EVERY_NEED, ids=lambda need: f"{need.preset}-{need.arm}")
def test_the_command_of_a_need_is_the_one_that_was_recorded(need: Need) -> None:
    """The command, parsed by its experiment, has the recorded config and the result's name."""
    words, module = list(need.words[1:]), need.words[0].removeprefix("experiments.")
    if need.after is not None:
        at = words.index("--from")
        assert words[at + 1].split("@")[0] == need.after.arm
        del words[at : at + 2]
    experiment, parsed = EXPERIMENTS[module](words)
    named = {"+".join([each.arm, *command_variant(experiment, each)]): each for each in parsed}
    command = named[need.arm.removesuffix("+fork")]
    records = records_of([need], RESULTS)
    assert [record.config["seed"] for record in records] == list(need.seeds)
    for record in records:
        for part in ("model", "training", "intervention"):
            asked, known = plain_data(getattr(command, part)) | {"steps": command.steps}, record.config[part]
            assert {key: asked[key] for key in known} == known
        assert ("fork" in record.config) == (need.after is not None)


def test_commands_run_trunks_first_and_each_once() -> None:
    found = commands_of_needs(figure_named("release").needs)
    assert len(found) == len(set(found))
    arms = [words[words.index("--arm") + 1] + "+fork" * ("--from" in words) for words in found if "cpu" in words]
    assert arms.index("flatness_prevent") < arms.index("flatness_release+fork")
    assert arms.index("baseline") < arms.index("control_schedule+fork")


def test_a_dry_run_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "clocks", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "--weight-decays 1 0.5 0.3 0.2 0.1 0.05 0.03 0.02 --seeds 0 1 2 3 4" in said
    assert main(["reproduce", "transfer", "--quick", "--dry-run"]) == 0
    assert "--steps 2000" in capsys.readouterr().out


def test_a_quick_version_is_run_and_drawn_apart(tmp_path: Path) -> None:
    small = ("--p", "11", "--embedding", "8", "--hidden", "16", "12", "--batch-size", "20", "--measurements", "12")
    arms = [("experiments.grokking", *small, "--steps", "20", "--arm", arm) for arm in ("baseline", "ncc_prevent")]
    figure = replace(figure_named("grokking-arms"), quick=tuple(arms))
    path = reproduce(figure, quick=True, runs=tmp_path, results=RESULTS, folder=tmp_path / "none")
    assert path == tmp_path / "quick" / "grokking-arms" / "figures" / "grokking-arms.png"
    assert path.exists()
    assert not (tmp_path / "none").exists()
    assert len(list((path.parents[1] / "results").rglob("*.json"))) == 2


ENDLESS = """
import sys
from dataclasses import replace
from pathlib import Path
from grokcore.commandline import run_command
from paper.catalogue import figure_named
from paper.reproduce import reproduce
words = "experiments.grokking --p 11 --embedding 8 --hidden 16 12 --batch-size 20 --steps 1000000"
words = (*words.split(), "--checkpoint-every", "1000000")
figure = replace(figure_named("grokking-arms"), quick=(words,))
here = Path(sys.argv[1])
run_command(lambda _: reproduce(figure, quick=True, runs=here, results=here, folder=here))
"""


def test_ctrl_c_leaves_the_running_experiment_its_checkpoint(tmp_path: Path) -> None:
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], start_new_session=True, **how)
    rows = 0
    while rows < 10:
        assert process.poll() is None
        time.sleep(0.05)
        rows = sum(len(path.read_text().splitlines()) for path in tmp_path.rglob("metrics.jsonl"))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped; the same command goes on from there" in said
    assert "Traceback" not in said
    (checkpoint,) = tmp_path.rglob("checkpoint.pt")
    assert f"stopped at step {load_checkpoint(checkpoint)['step']};" in said


def plain_figure() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2], [3, 4], label="a line")
    return figure


def test_files_are_the_same_bytes_and_are_known_when_stale(tmp_path: Path) -> None:
    source = RESULTS / "grokking" / "quick" / "baseline-seed0.json"
    results = tmp_path / "results"
    target = results / source.relative_to(RESULTS)
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    figure = Drawing("one", [read_record(target)], plain_figure)
    assert draw([figure], results, tmp_path / "a") == draw([figure], results, tmp_path / "b") == ["one"]
    for name in ("one.pdf", "one.png", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert draw([figure], results, tmp_path / "a", changed=True) == []
    assert stale([figure], results, tmp_path / "a") == strays([figure], tmp_path / "a") == []
    (tmp_path / "a" / "two.png").write_bytes(b"")
    assert strays([figure], tmp_path / "a") == ["two.png"]
    (tmp_path / "a" / "one.pdf").write_bytes(b"changed")
    assert stale([figure], results, tmp_path / "a") == ["one"]
    assert draw([figure], results, tmp_path / "a", changed=True) == ["one"]
    target.write_text(target.read_text() + "\n")  # another file of results
    assert stale([figure], results, tmp_path / "a") == stale([figure], results, tmp_path / "b") == ["one"]
    notes = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert set(notes) == {"one"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a gain of 2.5 points", ["2.5"]),
        (r"a gain of \gcGain{} points, 97 classes, mod 97", []),
        (r"step 5{,}354 and 5,354", ["5,354", "5,354"]),
        ("step 5354, 1e-3", ["5354", "1e-3"]),
        (r"\includegraphics[width=0.8\textwidth]{a} \cite{b2025} % 0.7 in a comment", []),
        (r"100\,\% is 0.3", ["0.3"]),
        (r"$10^{-3}$, $B^2(1-1/K)$", []),
    ],
)
def test_numbers_of_the_text_are_macros(text: str, found: list[str]) -> None:
    assert [number for _, number in checks.bare_numbers(text, {})] == found
    assert checks.bare_numbers(text, dict.fromkeys(found, "listed")) == []


def test_constants_and_macros_of_the_text_are_known() -> None:
    assert checks.unused("a 1{,}000", {"1,000": "", "2.5": ""}) == ["2.5"]
    assert checks.undefined_macros(r"\gcA{} and \gcB, \other", {"gcA": 1}, MACRO_PREFIX) == ["gcB"]
    assert all(CONSTANTS.values())


def test_booktabs() -> None:
    text = latex.booktabs(Table(("a_b", "100 %"), [("x & y", "1 < 2"), ("#", "{}")]))
    assert text.startswith(r"\begin{tabular}{lr}" + "\n" + r"\toprule" + "\n" + r"a\_b & 100 \% \\")
    assert r"x \& y & 1 \ensuremath{<} 2 \\" in text
    assert r"\# & \{\} \\" in text
    full = Table(("arm", "one", "two"), [("x", "1", "2"), ("y", "3", "4")])
    assert latex.chosen(full, {"two": "zwei"}, {"y": "the y", "z": "gone"}) == Table(["", "zwei"], [["the y", "4"]])


def test_other_files_of_the_folder_are_named_and_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.tex").write_text("kept")
    assert latex.write({"a.tex": "text"}, tmp_path) == [tmp_path / "a.tex"]
    assert latex.write({"a.tex": "text"}, tmp_path) == []
    assert latex.strays({"a.tex": "text"}, tmp_path) == ["mine.tex"]
    assert (tmp_path / "mine.tex").read_text() == "kept"


def test_macros() -> None:
    assert title("ncc_prevent+at0.25+fork") == "NccPreventAtZeroTwoFiveFork"
    assert tex("-0.78 [-0.79, -0.76]") == r"\ensuremath{-}0.78~[\ensuremath{-}0.79, \ensuremath{-}0.76]"
    assert tex("5,354 [4,683, 5,354]") == "5{,}354~[4{,}683, 5{,}354]"
    assert tex("1.79e-12") == r"\ensuremath{1.79\cdot10^{-12}}"
    assert tex("+2.7") == r"\ensuremath{+}2.7"


def test_the_paper_is_that_of_its_results(capsys: pytest.CaptureFixture[str]) -> None:
    """What `paper check` says, with the runs behind each number named."""
    assert main(["check"]) == 0
    assert "numbers are those of the results" in capsys.readouterr().out
    recorded = settings(RESULTS)
    text = (latex.GENERATED / latex.NUMBERS).read_text()
    written, numbers = generated(recorded, tables(recorded))
    assert written[latex.NUMBERS] == text
    ids = {record.run_id for records in recorded.values() for record in records}
    named = [re.match(r"% (.*)", block)[1] for block in text.split("\n") if block.startswith("% ")][1:]  # type: ignore[index]
    assert len(named) == len(numbers)
    assert all(line == "no run: theory" or set(line.split()) <= ids for line in named)
    assert not drawings(RESULTS)[1]


def test_a_bad_result_folder_or_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded results"):
        main(["figures", "--results", str(tmp_path), "--out", str(tmp_path)])
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        drawing.manifest(tmp_path)


def test_without_latex_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="apt install latexmk texlive-latex-recommended"):
        main(["pdf"])
