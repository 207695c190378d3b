"""The dynamics experiment, small: names, batches, what is logged against the theorems it is about."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments import dynamics
from experiments.dynamics_rows import feature_columns, imbalance
from grokcore import UsageError
from grokcore.models.image_mlp import ImageMLP
from grokcore.models.one_layer_vit import OneLayerViT
from tests.cases import random_head
from tests.experiments.tiny import tiny, tiny_data

TINY = ["--preset", "quick", "--train-images", "50", "--hidden", "9", "8", "--batch-size", "25", "--measurements", "6"]


def run(runs: Path, *more: str, steps: int = 12) -> list[Path]:
    assert dynamics.main([*TINY, "--runs", str(runs), "--steps", str(steps), *more]) == 0
    return sorted(runs.glob("dynamics/*/seed*"))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_one_command_one_run_a_weight_decay_and_seed(tmp_path: Path) -> None:
    """Batched, and named by data, model and decay; each run is the one that it would be alone, to rounding."""
    decays = ["--weight-decays", "0.5", "0.001"]
    folders = run(tmp_path / "together", *decays, "--seeds", "0", "1", "--together", "batched")
    assert [f"{f.parent.name} {f.name[:5]}" for f in folders] == [
        "digits-mlp-wd0.5 seed0", "digits-mlp-wd0.5 seed1", "digits-mlp-wd1e-3 seed0", "digits-mlp-wd1e-3 seed1",
    ]  # fmt: skip
    alone = run(tmp_path / "alone", *decays, "--seeds", "0", "1", "--together", "no")
    assert [f.name for f in alone] == [f.name for f in folders]
    for mine, theirs in zip(alone, folders, strict=True):
        last, other = rows(mine)[-1], rows(theirs)[-1]
        assert last["train_kappa_squared"] == pytest.approx(other["train_kappa_squared"], rel=1e-4)
        assert last["weight_norm"] == pytest.approx(other["weight_norm"], rel=1e-5)
    norms = [rows(folder)[-1]["weight_norm"] for folder in folders]
    assert norms[0] < norms[2]  # decay
    config = json.loads((folders[0] / "config.json").read_text())["config"]
    assert config["arm"] == "digits-mlp-wd0.5"
    assert "hidden9x8" in config["variant"]
    assert not [each for each in config["variant"] if each.startswith(("weightdecay", "source", "network"))]


def test_what_is_logged_keeps_its_theorems(tmp_path: Path) -> None:
    (folder,) = run(tmp_path, "--weight-decays", "0.1")
    found = rows(folder)
    assert len(found) == 7
    for row in found:
        for split in ("train", "test"):
            error = 1 - row[f"{split}_accuracy"]
            assert error <= row[f"{split}_cantelli_directional"] + 1e-12
            assert row[f"{split}_cantelli_directional"] <= row[f"{split}_cantelli"] + 1e-12
            for noise in ("0.1", "1"):
                assert row[f"{split}_information_logdet_{noise}"] <= row[f"{split}_information_trace_{noise}"]
            ratio = row[f"{split}_within_class_variance"] / row[f"{split}_norm_sup"] ** 2
            assert row[f"{split}_rnc1_sup"] == pytest.approx(ratio, rel=1e-3)
            assert row[f"{split}_margin_least"] <= row[f"{split}_margin_mean"]
            assert row[f"{split}_kappa_squared"] > row[f"{split}_kappa"]
    assert found[-1]["train_squared_loss"] < found[0]["train_squared_loss"]


def test_information_is_asked_for(tmp_path: Path) -> None:
    """Estimates lie under E2's bounds, and every one of them has its null."""
    (folder,) = run(
        tmp_path, "--weight-decays", "0.1", "--information", "--train-images", "200", "--hidden", "40", "30", steps=3
    )
    config = json.loads((folder / "config.json").read_text())["config"]
    assert "information" in config["variant"]
    last = rows(folder)[-1]
    for split in ("train", "test"):
        for s in ("0.1", "1"):
            found, error = (last[f"{split}_information_given_label_{s}{word}"] for word in ("", "_error"))
            assert last[f"{split}_information_given_label_{s}_null"] < found
            if split == "train":  # there all of the set is used
                assert found <= last[f"{split}_information_logdet_{s}"] + 5 * error
        for name in ("nhsic_inputs", "nhsic_labels"):
            assert last[f"{split}_{name}"] > last[f"{split}_{name}_null"] + 5 * last[f"{split}_{name}_null_std"]
        assert abs(last[f"{split}_ksg_information_null"]) < 0.3
        assert last[f"{split}_entropies_information"] != last[f"{split}_entropies_information_unpaired"]


def test_batches_in_processes(tmp_path: Path) -> None:
    """Two decays and two seeds as two batches of two: the same runs as in one."""
    more = ["--weight-decays", "0.5", "0.1", "--seeds", "0", "1"]
    mine = run(tmp_path / "batches", *more, "--together", "batches")
    theirs = run(tmp_path / "one", *more, "--together", "batched")
    assert [f.name for f in mine] == [f.name for f in theirs]
    for one, other in zip(mine, theirs, strict=True):
        assert rows(one)[-1]["weight_norm"] == pytest.approx(rows(other)[-1]["weight_norm"], rel=1e-5)


def test_resnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cifar10 experiment's runs with paper B's columns, a run each weight decay."""
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path / "cache"))
    words = tiny(tiny_data(tmp_path), tmp_path / "runs", "--preset", "resnet", "--weight-decays", "0", "0.01", epochs=2)
    assert dynamics.main(words) == 0
    folders = sorted((tmp_path / "runs").glob("dynamics/*/seed*"))
    assert [f.parent.name for f in folders] == ["cifar10-resnet18-wd0", "cifar10-resnet18-wd0.01"]
    last = rows(folders[0])[-1]
    assert last["step"] == 6
    assert {"test_cantelli", "test_kappa_squared", "train_information_trace_1", "train_rnc1_mean"} <= set(last)
    with pytest.raises(UsageError, match="different numbers"):
        dynamics.main([*words[:-2], "--weight-decays", "-1"])


@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_other_models(tmp_path: Path, network: str) -> None:
    (folder,) = run(tmp_path, "--network", network, "--init-scale", "1", "--weight-decays", "0.1", steps=4)
    assert folder.parent.name == f"digits-{network}-wd0.1"
    assert ("imbalance" in rows(folder)[-1]) == (network == "cnn")


@pytest.mark.parametrize("decay", ["0", "0.5"])
def test_gradient_descent_keeps_a_linear_pair_balanced(tmp_path: Path, decay: str) -> None:
    """D3: W_L^T W_L - W_{L-1} W_{L-1}^T decays as e^{-2 l t} up to the step's size; with a ReLU between it need not."""
    flags = ["--optimizer", "gd", "--batch-size", "50", "--learning-rate", "0.005", "--weight-decays", decay,
             "--init-scale", "2", "--hidden", "30", "8", "8"]  # fmt: skip
    expected = math.exp(-2 * float(decay) * 0.005 * 80)
    (paired,) = run(tmp_path / "pair", *flags, "--linear-pair", steps=80)
    first, last = rows(paired)[0], rows(paired)[-1]
    assert last["imbalance"] / first["imbalance"] == pytest.approx(expected, rel=1e-3)
    assert last["train_squared_loss"] < 0.8 * first["train_squared_loss"]
    (plain,) = run(tmp_path / "plain", *flags, steps=80)
    first, last = rows(plain)[0], rows(plain)[-1]
    assert last["imbalance"] / first["imbalance"] < 0.99 * expected


def test_columns_by_hand() -> None:
    features, weight, bias, labels = random_head(0, n=30, m=4, K=3)
    head = nn.Linear(4, 3).double()
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    found = feature_columns(features, labels, head, 3)
    logits = features @ weight.T + bias
    squared = sum(
        float(((z - nn.functional.one_hot(y, 3)) ** 2).sum()) / 2 for z, y in zip(logits, labels, strict=True)
    )
    margins = [float(z[y] - max(z[k] for k in range(3) if k != y)) for z, y in zip(logits, labels, strict=True)]
    assert found["squared_loss"] == pytest.approx(squared / 30)
    assert found["margin_least"] == pytest.approx(min(margins))
    assert found["margin_mean"] == pytest.approx(sum(margins) / 30)
    assert found["kappa_squared"] == pytest.approx(float(weight.square().sum() * features.square().sum(1).mean()))
    assert found["norm_sup"] == pytest.approx(float(features.norm(dim=1).max()))


def test_imbalance_by_hand_and_where_there_is_no_pair() -> None:
    model = ImageMLP(4, 3, hidden=(6, 5), linear_pair=True).double()
    last, before = model.head.weight, model.body[-1].weight
    assert imbalance(model, model.head)["imbalance"] == pytest.approx(
        float((last.T @ last - before @ before.T).detach().norm())
    )
    with torch.no_grad():
        nn.init.orthogonal_(last)
        before.copy_(torch.cat([last.T, torch.zeros(5, 3)], dim=1))
    assert imbalance(model, model.head)["relative_imbalance"] == pytest.approx(0, abs=1e-12)
    vit = OneLayerViT(8, 10, patch=2, width=8, heads=2)
    assert imbalance(vit, vit.head) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "nothing"], "unknown preset"),
        (["--arm", "ncc_prevent"], "belong to grokking"),
        (["--from", "x@1"], "belong to grokking"),
        (["--weight-decays", "0.1", "0.1"], "different numbers"),
        (["--weight-decays", "-1"], "different numbers"),
        (["--source", "digits", "--data-path", "."], "come with scikit-learn"),
        (["--network", "cnn", "--linear-pair"], "belongs to the mlp"),
        (["--train-images", "5"], "at least 10"),
        (["--init-scale", "0"], "must be positive"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dynamics.main([*TINY, "--runs", str(tmp_path), *words])
    assert not list(tmp_path.iterdir())
