"""Each arm through the smoke preset on real images, where data are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.arms import ARMS
from experiments.cifar10 import main
from tests.experiments.small import metrics
from tests.experiments.tiny import only_folder

STIRRED = ("control_norm", "flatness_release", "control_schedule")
"""Arms whose first epoch learns nothing: a head held at many times its norm, a rate that rises tenfold half-way."""


@pytest.fixture
def smoke(real_cifar10: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flags of a run on real images."""
    path, cache = real_cifar10
    monkeypatch.setenv("GROKCORE_CACHE", str(cache))
    return ["--preset", "smoke", "--data", str(path), "--runs", str(tmp_path)]


@pytest.mark.parametrize("arm", list(ARMS))
def test_an_epoch_of_each_arm(arm: str, smoke: list[str], tmp_path: Path) -> None:
    assert main([*smoke, "--arm", arm, "--epochs", "1"]) == 0
    first, last = metrics(only_folder(tmp_path))
    assert 0.05 < first["test_accuracy"] < 0.16
    if arm not in STIRRED:
        assert last["test_accuracy"] > 0.13


@pytest.mark.slow
@pytest.mark.parametrize("arm", list(ARMS))
def test_the_whole_preset(arm: str, smoke: list[str], tmp_path: Path) -> None:
    assert main([*smoke, "--arm", arm]) == 0
    rows = metrics(only_folder(tmp_path))
    assert rows[-1]["epoch"] == 30
    assert max(row["train_accuracy"] for row in rows) > 0.5
    assert max(row["test_accuracy"] for row in rows) > 0.25
