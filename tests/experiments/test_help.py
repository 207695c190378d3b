"""``--help`` of every experiment names its own presets and arms; ``python -m experiments`` names every experiment."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experiments import __main__, cifar10, dynamics, grokking, limits
from experiments.arms import ARMS
from experiments.limits_config import PRESETS, STUDIES, TRANSFER_ARMS

Main = Callable[[Sequence[str]], int]


def helped(main: Main, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What --help prints, on one line; it leaves with code 0."""
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--help"])
    assert not leaving.value.code
    said = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "type: ignore" not in said
    return said


@pytest.mark.parametrize("experiment", [grokking.EXPERIMENT, cifar10.EXPERIMENT], ids=lambda each: each.name)
def test_arms_and_presets_are_named(experiment: grokking.Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    main = {"grokking": grokking.main, "cifar10": cifar10.main}[experiment.name]
    said = helped(main, [], capsys)
    assert all(name in said for name in [*ARMS, *experiment.presets, "factorial"])


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_names_its_own_presets(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(limits.main, [study], capsys)
    said = said[: said.index("--seeds")]
    assert all(f"{preset}: " in said or f"{preset} or " in said for preset in PRESETS[study])
    assert "grey:" not in said
    assert "theory:" not in said
    assert all(name in said for name in TRANSFER_ARMS) == (study == "transfer")


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (grokking.main, ["--preset", "transformer"]),
        (limits.main, ["transfer", "--preset", "cifar10"]),
        (limits.main, ["cascade", "--preset", "grokking"]),
        (dynamics.main, ["--preset", "resnet"]),
    ],
)
def test_other_presets_have_help_of_their_own(main: Main, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "data options" in helped(main, words, capsys)


def test_dynamics_has_no_arms(capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(dynamics.main, [], capsys)
    assert "factorial" not in said
    assert all(preset in said for preset in dynamics.PRESETS)


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_what_help_says_is_no_part_of_a_command(preset: str) -> None:
    """The command keeps its own class, so that it goes to other processes."""
    (command,) = limits.commands_of(["transfer", "--preset", preset, "--seeds", "3"])[1]
    assert type(command) is type(PRESETS["transfer"][preset])
    assert pickle.loads(pickle.dumps(command)) == command


def test_every_experiment_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 0
    assert __main__.main(["grokking"]) == 2
    said = capsys.readouterr().out
    here = Path(__main__.__file__).parent
    runnable = [p.stem for p in here.glob("[!_]*.py") if "run_command(main)" in p.read_text()]
    assert runnable
    assert all(f"python -m experiments.{name}\n" in said for name in runnable)
    assert limits.main(["--help"]) == 0


def test_waiting_threads_give_way_before_pytorch_is_loaded() -> None:
    says = "import sys, experiments, os; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    for more, spins in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")):
        done = subprocess.run(
            [sys.executable, "-c", says], env=plain | more, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["False", spins]
