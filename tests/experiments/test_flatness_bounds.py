"""The bounds of kappa along a run: read from its kept checkpoints, equal to what the run itself measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import flatness_bounds, grokking
from grokcore import UsageError
from grokcore.training.schedules import log_spaced_steps
from tests.experiments.small import metrics, small

TRANSFORMER = ["--preset", "transformer", "--p", "7", "--width", "16", "--batch-size", "8", "--measurements", "12"]


MEASURED = log_spaced_steps(60, 12)[6]


def run_of(tmp_path: Path, *more: str, transformer: bool = False) -> Path:
    flags = [*TRANSFORMER, "--runs", str(tmp_path), "--steps", "60"] if transformer else small(tmp_path)
    assert grokking.main([*flags, *more]) == 0
    (folder,) = tmp_path.glob("grokking/baseline/seed*")
    return folder


@pytest.mark.parametrize("transformer", [False, True])
def test_rows_are_the_runs_own_kappa_between_its_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], transformer: bool
) -> None:
    folder = run_of(tmp_path, "--keep", str(MEASURED), "60", transformer=transformer)
    capsys.readouterr()
    assert flatness_bounds.main([str(folder)]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for line in lines:
        step, data, kappa, gap, _, *ratios = line.split()
        row = next(each for each in metrics(folder) if each["step"] == int(step))
        assert float(kappa) == pytest.approx(row[f"{data}_kappa"], rel=6e-3)
        assert float(gap) == pytest.approx(row[f"{data}_logit_gap"], rel=6e-3)
        assert len(ratios) == 8
        assert all(float(ratio.rstrip(",")) >= 0.999 for ratio in ratios)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run's folder"):
        flatness_bounds.main([str(tmp_path)])
    folder = run_of(tmp_path)
    for kept in folder.glob("checkpoint*.pt"):
        kept.unlink()
    with pytest.raises(UsageError, match="has no checkpoint"):
        flatness_bounds.main([str(folder)])
