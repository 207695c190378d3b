"""`python -m grokcore measure`: a saved model's report from the shell, and one line for what cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import grokcore
from grokcore import UsageError
from grokcore.__main__ import main
from grokcore.checkpoints import load_weights, read_samples

MODULE = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def loader():
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(30, 6, generator=generator), torch.arange(30) % 3)]


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mymodels.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mymodels", None)
    model = built()
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "ddp.pt"
    )
    inputs, labels = data()
    np.savez(tmp_path / "test.npz", inputs=inputs.numpy(), labels=labels.numpy())
    np.savez(tmp_path / "double.npz", inputs=inputs.double().numpy(), labels=labels.numpy())
    np.savez(tmp_path / "wide.npz", inputs=np.ones((4, 9)), labels=np.arange(4))
    torch.save((inputs, labels), tmp_path / "pair.pt")
    return tmp_path


def built() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(2)), torch.arange(40) % 3


COMMON = ["--model", "mymodels:build", "--head", "2"]


@pytest.mark.parametrize("checkpoint", ["plain.pt", "ddp.pt"])
@pytest.mark.parametrize("samples", ["test.npz", "double.npz", "pair.pt"])
def test_the_report_is_that_of_measure(
    folder: Path, checkpoint: str, samples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", checkpoint, *COMMON, "--data", samples, "--reference", "mymodels:loader", "--batch-size", "7"]
    assert main([*words, "--layers", "all", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    train = [(torch.randn(30, 6, generator=torch.Generator().manual_seed(5)), torch.arange(30) % 3)]
    about = grokcore.measure(built(), train, "2", layers="all")
    report = grokcore.measure(built(), [data()], "2", layers="all", reference=about)
    assert found["kappa"] == pytest.approx(report.kappa, rel=1e-9)
    assert found["nc4"] == report.nc4
    assert found["layers"]["1"]["nearest_mean_accuracy"] == report.layers["1"].nearest_mean_accuracy
    assert ("without 'module.'" in said.err) == (checkpoint == "ddp.pt")
    assert main(words) == 0
    assert "kappa" in capsys.readouterr().out


def test_from_the_shell(folder: Path) -> None:
    words = [sys.executable, "-m", "grokcore", "measure", "plain.pt", *COMMON, "--data", "gone.npz"]
    root = str(Path(grokcore.__file__).parents[1])
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (["gone.pt"], "no file gone.pt"),
        (["plain.pt", "--model", "mymodels:nothing"], "has no nothing"),
        (["plain.pt", "--model", "gone:build"], "cannot be imported"),
        (["plain.pt", "--model", "mymodels:number"], "no function"),
        (["plain.pt", "--model", "mymodels:loader"], "not a torch.nn.Module"),
        (["plain.pt", "--model", "mymodels"], "no module:function"),
        (["plain.pt", "--head", "9"], "9"),
        (["plain.pt", "--key", "weights"], "no state dict under 'weights'"),
        (["plain.pt", "--batch-size", "0"], "--batch-size"),
        (["test.npz"], "cannot be read as a checkpoint"),
        (["pair.pt"], "holds a tuple, not a state dict"),
        (["plain.pt", "--data", "plain.pt"], r"must hold two arrays named inputs and labels \(it holds: 0.weight, 0.b"),
        (["plain.pt", "--data", "gone.npz"], "^there is no file gone.npz$"),
        (["plain.pt", "--data", "wide.npz"], "the model fails on wide.npz: .*shapes cannot be multiplied"),
        (["plain.pt", "--reference", "wide.npz"], "the model fails on wide.npz"),
        (["plain.pt", "--reference", ""], "there is no file"),
        pytest.param(
            ["plain.pt", "--device", "cuda"],
            "--device cuda: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is no mistake"),
        ),
        (["plain.pt", "--device", "nowhere"], "--device nowhere: "),
    ],
)
def test_bad_input_is_named(folder: Path, change: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        main(["measure", "--data", "test.npz", *COMMON, *change])


def test_a_pickle_of_more_than_tensors_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import mymodels  # type: ignore[import-not-found]

    torch.save({"model": mymodels.Evil()}, folder / "evil.pt")
    with pytest.raises(
        UsageError, match=r"was not loaded: files are read with weights_only=True; save model.state_dict"
    ):
        load_weights(built(), folder / "evil.pt")
    assert "unpickled" not in capsys.readouterr().out
    np.savez(folder / "evil.npz", inputs=np.array([mymodels.Evil()], dtype=object), labels=np.zeros(1))
    with pytest.raises(UsageError, match="plain arrays"):
        read_samples(folder / "evil.npz", 5)


def test_another_models_weights_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"it lacks 3\.bias, 3\.weight"):
        load_weights(nn.Sequential(*built(), nn.Linear(3, 3)), folder / "plain.pt")
    with pytest.raises(UsageError, match=r"it has more 2\.bias, 2\.weight"):
        load_weights(built()[:2], folder / "plain.pt")
    with pytest.raises(UsageError, match="size mismatch"):
        load_weights(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), folder / "plain.pt")
