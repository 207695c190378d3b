"""The CIFAR-10 experiment on a tiny set made here: arms, names, numbers, resumption, forks."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from experiments.arms import ARMS, CELLS
from experiments.cifar10 import EXPERIMENT, main
from experiments.cifar10_config import PRESETS
from experiments.commands import commands_of
from grokcore import measure
from grokcore.data.cifar10 import image_split, load_cifar10
from grokcore.models.resnet import resnet18
from grokcore.models.wide_resnet import WideResNet
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.record import record_of
from grokcore.training.step import Trainer
from paper.recorded import refresh
from tests.experiments.small import metrics
from tests.experiments.test_resume import KilledError, dies_at
from tests.experiments.tiny import only_folder, tiny, tiny_data


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROKCORE_CACHE", str(cache))


@pytest.mark.parametrize("name", [*ARMS, *(cell for cell in CELLS if "+" in cell)])
def test_each_arm_and_cell_runs(name: str, data: Path, tmp_path: Path) -> None:
    assert main(tiny(data, tmp_path, "--arm", name, epochs=2)) == 0
    rows, arm = metrics(only_folder(tmp_path)), EXPERIMENT.presets["cpu"]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    own = (ARMS | CELLS)[name].coefficients[arm.preset]
    weights = {"cdnv": own.cdnv_weight, "surrogate": own.surrogate_weight, "kappa": own.kappa_weight}
    active = {f"penalty_{key}" for key, weight in (weights | {"gini": own.gini_weight}).items() if weight}
    assert {key for key in rows[1] if key.startswith("penalty")} == active
    for split in ("train", "test"):
        for column in ("kappa", "frobenius_surrogate", "cdnv", "nc1_papyan", "nc2_equiangle", "nc4", "accuracy"):
            assert math.isfinite(rows[-1][f"{split}_{column}"])
        least, mean, greatest = (rows[-1][f"{split}_angle_{which}"] for which in ("least", "mean", "greatest"))
        assert 0 <= least <= mean <= greatest <= 180
    assert rows[-1]["train_kappa"] <= rows[-1]["train_frobenius_surrogate"]


def test_a_row_is_what_measure_says_of_the_checkpoint(data: Path, tmp_path: Path) -> None:
    """By another route: the model built by hand, one batch, means of the train set as the test set's reference."""
    assert main(tiny(data, tmp_path, "--label-noise", "0.2", "--augment")) == 0
    folder = only_folder(tmp_path)
    row = metrics(folder)[-1]
    split = image_split(load_cifar10(data), train_images=60, test_images=30, label_noise=0.2, seed=0)
    model = resnet18(width=0.1)
    model.load_state_dict(load_checkpoint(folder / "checkpoint.pt")["model"])
    model.train()
    pixels = split.train_inputs.float() / 127.5 - 1
    train = measure(model, [(pixels, split.train_labels)], "head")
    test = measure(model, [(split.test_inputs, split.test_labels)], "head", reference=train)
    for name, report in (("train", train), ("test", test)):
        for column in ("loss", "accuracy", "kappa", "frobenius_surrogate", "variance_ratio"):
            assert row[f"{name}_{column}"] == pytest.approx(getattr(report, column), rel=2e-4), column
        assert row[f"{name}_cdnv"] == pytest.approx(report.collapse.cdnv, rel=2e-4)
    in_train_mode = model(pixels)
    assert float(in_train_mode.argmax(1).eq(split.train_labels).float().mean()) != row["train_accuracy"]


def test_the_config_says_what_the_data_are_and_not_where(data: Path, tmp_path: Path) -> None:
    assert main(tiny(data, tmp_path / "a")) == 0
    moved = shutil.copy(data, tmp_path / "elsewhere.tar.xz")
    assert main(tiny(Path(moved), tmp_path / "b")) == 0
    first, second = (json.loads((only_folder(tmp_path / name) / "config.json").read_text()) for name in "ab")
    assert first["run_id"] == second["run_id"]
    assert first["config"]["data"]["images"] == "CIFAR-10 (JPEG)"
    assert first["config"]["data"]["pixels"] == load_cifar10(data).pixels
    assert first["config"]["training"]["steps"] == 9
    assert str(tmp_path) not in json.dumps(first["config"])
    assert (only_folder(tmp_path / "a") / "figure.png").stat().st_size > 20_000


def test_noise_and_augmentation_change_the_run_and_not_what_is_measured(data: Path, tmp_path: Path) -> None:
    found = {}
    for name, flags in {"plain": [], "augmented": ["--augment"], "noisy": ["--label-noise", "0.5"]}.items():
        assert main(tiny(data, tmp_path / name, *flags)) == 0
        found[name] = metrics(only_folder(tmp_path / name))
    plain, augmented, noisy = found.values()
    assert augmented[0] == pytest.approx(plain[0], nan_ok=True)  # the same weights on the same images
    assert augmented[-1]["train_loss"] != plain[-1]["train_loss"]
    assert noisy[0]["test_loss"] == plain[0]["test_loss"]
    assert noisy[0]["train_loss"] != plain[0]["train_loss"]


@pytest.mark.parametrize("calls", [1, 4, 5, 8])
def test_a_killed_run_ends_the_same(calls: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm's running means, momentum, crops, flips and the released rates come back, bit for bit."""
    flags = ["--arm", "flatness_release", "--release-at", "0.4", "--augment"]
    assert main(tiny(data, tmp_path / "whole", *flags)) == 0
    with monkeypatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(Trainer, "step", dies_at(calls, Trainer.step, None))
        main(tiny(data, tmp_path / "killed", *flags))
    assert main(tiny(data, tmp_path / "killed", *flags)) == 0
    whole, killed = only_folder(tmp_path / "whole"), only_folder(tmp_path / "killed")
    assert metrics(whole) == metrics(killed)
    first, second = (load_checkpoint(folder / "checkpoint.pt")["model"] for folder in (whole, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_release_forked_is_the_unforked_one(data: Path, tmp_path: Path) -> None:
    keep = ["--keep", "0.34"]
    for arm in ("flatness_prevent", "flatness_release", "baseline"):
        release = ["--release-at", "0.34"] if arm == "flatness_release" else []
        assert main(tiny(data, tmp_path, "--arm", arm, *keep, *release)) == 0
    whole = only_folder(tmp_path, "flatness_release")
    release = ["--arm", "flatness_release", "--release-at", "0.34"]
    for trunk in ("flatness_prevent", "baseline"):
        assert main(tiny(data, tmp_path, *release, "--from", f"{trunk}@0.34")) == 0
    named = {"+".join(record_of(path).config["variant"][-1:]): path for path in tmp_path.glob("cifar10/flatness_r*/*")}
    assert metrics(named["fork"]) == metrics(whole)
    assert metrics(named["fork-baseline"])[-1] != metrics(whole)[-1]


def test_a_sweep_of_lambdas_is_a_run_each(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--arm", "ncc_prevent", "--lambdas", "1e-2", "1e-4", "--together", "no"]
    assert main(tiny(data, tmp_path / "runs", *flags, epochs=1)) == 0
    assert refresh(tmp_path / "runs", tmp_path / "results") == 2
    names = sorted(path.name for path in (tmp_path / "results/cifar10/cpu").glob("*.json"))
    assert [name.split("+")[-1] for name in names] == ["lambda0.01-seed0.json", "lambda1e-4-seed0.json"]
    table = capsys.readouterr().out
    assert "lambda1e-4" in table


def test_lambdas_are_the_papers_sign() -> None:
    def weights(arm: str, *values: str) -> list[float]:
        found = commands_of(EXPERIMENT, ["--arm", arm, "--lambdas", *values])
        return [each.intervention.cdnv_weight or each.intervention.surrogate_weight for each in found]

    assert weights("ncc_prevent", "1e-2", "1e-3") == [-1e-2, -1e-3]
    assert weights("ncc_encourage", "-0.5") == [0.5]
    assert weights("flatness_prevent", "0.2") == [-0.2]


def test_the_factorial_has_nine_cells() -> None:
    commands = commands_of(EXPERIMENT, ["--arm", "factorial"])
    cells = {(_sign(c.intervention.cdnv_weight), _sign(c.intervention.surrogate_weight)) for c in commands}
    assert cells == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert len(commands) == 9
    for command in commands:
        if "+" in command.arm:
            collapse, flatness = (ARMS[name].cpu for name in command.arm.split("+"))
            both = command.intervention
            assert (both.cdnv_weight, both.cdnv_cap) == (collapse.cdnv_weight, collapse.cdnv_cap)
            assert (both.surrogate_weight, both.head_norm_cap) == (flatness.surrogate_weight, flatness.head_norm_cap)


def test_what_the_presets_are() -> None:
    """The published protocol, sections A-nc and A-rf, and the issue's small presets."""
    for name, epochs in (("paper-nc", 250), ("paper-rf", 400)):
        command = PRESETS[name]
        training = command.training
        assert (training.epochs, training.batch_size, training.learning_rate) == (epochs, 64, 0.01)
        assert (training.momentum, training.weight_decay, training.warmup) == (0.9, 0.0, 0)
        assert (command.data.train_images, command.data.test_images, command.data.augment) == (50_000, 10_000, False)
        assert (command.model.network, command.model.stem, command.model.width) == ("resnet18", "7x7", 1.0)
        assert command.steps == epochs * 781
        prevent, release = ARMS["ncc_prevent"].coefficients[name], ARMS["flatness_release"].coefficients[name]
        assert (prevent.cdnv_weight, prevent.cdnv_cap) == (-1e-3, None)
        assert (release.surrogate_weight, release.temperature, release.head_norm_cap) == (-0.01, 2.0, 50.0)
        assert release.normalize_features
        assert (release.release_at, release.release_lr, release.release_weight_decay) == (0.5, 10.0, 2e-4)
        assert release.release_schedule == "cosine"
        assert ARMS["control_confidence"].coefficients[name].gini_weight == -0.01 * 50**2
        assert ARMS["control_norm"].coefficients[name].head_norm_hold == 50
    cpu = PRESETS["cpu"]
    assert (cpu.data.train_images, cpu.model.width, cpu.training.epochs, cpu.steps) == (5_000, 0.5, 80, 80 * 78)
    assert all(len(p.training.measured_steps(p.train_samples)) < 200 for p in PRESETS.values())
    assert {name: preset.preset for name, preset in PRESETS.items()} == {name: name for name in PRESETS}


def test_other_networks(data: Path, tmp_path: Path) -> None:
    flags = ["--network", "wide_resnet", "--depth", "10", "--width", "1"]
    assert main([*tiny(data, tmp_path, epochs=1), *flags]) == 0
    state = load_checkpoint(only_folder(tmp_path) / "checkpoint.pt")["model"]
    WideResNet(10, depth=10, widen=1).load_state_dict(state)
    assert main([*tiny(data, tmp_path / "small", epochs=1), "--stem", "3x3"]) == 0
    state = load_checkpoint(only_folder(tmp_path / "small") / "checkpoint.pt")["model"]
    resnet18(10, stem="3x3", width=0.1).load_state_dict(state)


def test_bfloat16_trains_near_float32(data: Path, tmp_path: Path) -> None:
    last = {}
    for precision in ("float32", "bfloat16"):
        assert main(tiny(data, tmp_path / precision, "--precision", precision)) == 0
        last[precision] = metrics(only_folder(tmp_path / precision))[-1]
    assert last["bfloat16"]["train_loss"] != last["float32"]["train_loss"]
    assert last["bfloat16"]["train_loss"] == pytest.approx(last["float32"]["train_loss"], rel=0.2)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
