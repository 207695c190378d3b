"""Each arm through the smoke preset on real images, where data are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.arms import ARMS
from experiments.cifar10 import main
from grokcore import UsageError
from grokcore.data.cifar10 import load_cifar10
from tests.experiments.small import metrics
from tests.experiments.tiny import only_folder


@pytest.fixture(scope="module", autouse=True)
def _found() -> None:
    try:
        load_cifar10()
    except UsageError as error:
        pytest.skip(f"no data: {error}")


@pytest.mark.parametrize("arm", list(ARMS))
def test_an_epoch_of_each_arm(arm: str, tmp_path: Path) -> None:
    assert main(["--preset", "smoke", "--arm", arm, "--epochs", "1", "--runs", str(tmp_path)]) == 0
    first, last = metrics(only_folder(tmp_path))
    assert 0.05 < first["test_accuracy"] < 0.16
    if arm != "control_norm":  # whose head starts at many times its norm
        assert last["test_accuracy"] > 0.13


@pytest.mark.slow
@pytest.mark.parametrize("arm", list(ARMS))
def test_the_whole_preset(arm: str, tmp_path: Path) -> None:
    assert main(["--preset", "smoke", "--arm", arm, "--runs", str(tmp_path)]) == 0
    rows = metrics(only_folder(tmp_path))
    assert rows[-1]["epoch"] == 30
    assert max(row["train_accuracy"] for row in rows) > 0.5
    assert max(row["test_accuracy"] for row in rows) > 0.25
