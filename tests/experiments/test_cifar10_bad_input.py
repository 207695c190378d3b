"""Bad input to the CIFAR-10 experiment gets one clear line and exit code 2, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.cifar10 import main
from grokcore.commandline import run_command
from grokcore.data import lookup
from grokcore.models.resnet import ResNet
from grokcore.training.checkpoint import load_checkpoint
from tests.experiments.tiny import only_folder, tiny, tiny_data
from tests.grokcore.data.tiny_cifar10 import jpeg_files, write_files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("GROKCORE_CACHE", str(folder / "cache"))
    monkeypatch.delenv("GROKCORE_DATA", raising=False)
    monkeypatch.setattr(lookup, "ROOT", folder / "checkout")


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as leaving:
        run_command(main, command)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert leaving.value.code == 2, said
    assert said.startswith("error: ")
    return said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--arm", "ncc_prevnt"], ["'ncc_prevent'", "factorial"]),
        (["--arm", "ncc_prevent+control_norm"], ["unknown arm"]),
        (["--preset", "paper"], ["presets: smoke, cpu, paper-nc, paper-rf"]),
        (["--train-images", "55"], ["--train-images", "multiple of 10"]),
        (["--train-images", "0"], ["--train-images"]),
        (["--train-images", "1000"], ["--train-images"]),
        (["--test-images", "1000"], ["--test-images"]),
        (["--label-noise", "1"], ["label noise"]),
        (["--epochs", "0"], ["--epochs"]),
        (["--steps", "5"], ["unknown option --steps"]),
        (["--momentum", "2"], ["--momentum"]),
        (["--width", "0"], ["width"]),
        (["--network", "wide_resnet", "--width", "inf"], ["--width must be a finite number"]),
        (["--network", "wide_resnet", "--width", "nan"], ["--width must be a finite number"]),
        (["--network", "wide_resnet", "--stem", "3x3", "--width", "1"], ["--stem belongs to resnet18"]),
        (["--network", "wide_resnet", "--depth", "11", "--width", "1"], ["depth"]),
        (["--network", "wide_resnet"], ["whole number"]),
        (["--depth", "10"], ["--depth belongs to wide_resnet"]),
        (["--stem", "5x5"], ["--stem"]),
        (["--device", "tpu"], ["device"]),
        (["--together", "batched"], ["batch norm"]),
        (["--lambdas", "0"], ["--lambdas"]),
        (["--lambdas", "nan"], ["--lambdas"]),
        (["--lambdas", "0.1"], ["no penalty"]),
        (["--arm", "ncc_prevent", "--lambdas", "0.1", "--cdnv-weight", "0.2"], ["--lambdas", "leave the weights"]),
        (["--lambdas", "0.1", "--cdnv-weight", "0.2"], ["--lambdas", "leave the weights"]),
        (["--arm", "ncc_prevent+flatness_prevent", "--lambdas", "0.1"], ["several penalties"]),
        (["--arm", "factorial", "--lambdas", "0.1"], ["--arm factorial"]),
        (["--arm", "all", "--cdnv-weight", "1"], ["--arm all"]),
        (["--release-at", "100"], ["--release-at", "run's end"]),
        (["--from", "baseline@0.5"], ["has not been run"]),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_one_line_and_code_two(
    flags: list[str], words: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([*tiny(data, tmp_path / "runs"), *flags], capsys)
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no CUDA GPU" in refused(tiny(data, tmp_path, "--device", "cuda"), capsys)


def test_no_data_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [word for word in tiny(tmp_path, tmp_path / "runs") if word not in ("--data", str(tmp_path))]
    said = refused(command, capsys)
    assert all(word in said for word in ("--data PATH", "$GROKCORE_DATA", "--download")), said


@pytest.mark.usefixtures("no_shape_checks")
def test_data_that_are_missing_corrupt_or_others(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing.tar" in refused(tiny(tmp_path / "nothing.tar", tmp_path / "runs"), capsys)
    cut = tmp_path / "cut.tar.xz"
    cut.write_bytes(data.read_bytes()[:-2000])
    assert "cut.tar.xz" in refused(tiny(cut, tmp_path / "runs"), capsys)
    official = tmp_path / "cifar-10-python.tar.gz"
    official.write_bytes(data.read_bytes())
    assert "MD5" in refused(tiny(official, tmp_path / "runs"), capsys)
    files = {name.replace("/truck/", "/tractor/"): content for name, content in jpeg_files().items()}
    write_files(tmp_path / "others", files)
    said = refused(tiny(tmp_path / "others", tmp_path / "runs"), capsys)
    assert "tractor" in said
    assert not (tmp_path / "runs").exists()


def test_out_of_memory_names_the_batch_that_fits_and_loses_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ResNet.forward

    def hungry(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 10 and hungry.calls >= 4:
            torch.empty(2**60, dtype=torch.uint8)
        hungry.calls += self.training
        return real(self, images)

    hungry.calls = 0
    monkeypatch.setattr(ResNet, "forward", hungry)
    said = refused(tiny(data, tmp_path), capsys)
    assert "out of memory at a batch of 20 on cpu: --batch-size 10 fits" in said
    assert load_checkpoint(only_folder(tmp_path) / "checkpoint.pt")["step"] == 4
    monkeypatch.undo()


def test_out_of_memory_while_measuring(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ResNet.forward

    def hungry(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            torch.empty(2**60, dtype=torch.uint8)
        return real(self, images)

    monkeypatch.setattr(ResNet, "forward", hungry)
    assert "outside a training step" in refused(tiny(data, tmp_path), capsys)
