"""The studies of paper C, small: names, what is logged against its definition, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments import limits, limits_config
from experiments.limits_rows import cascade_row, collapse_on_test_data_row, floor_columns, places_of
from experiments.transfer_rows import HEAD, SuperSplit, halves, transfer_row
from grokcore import ClassMoments, Intervention, UsageError, variance_floor
from grokcore.data.cifar10 import CLASSES
from grokcore.data.split import Split
from grokcore.models.image_mlp import ImageMLP
from grokcore.models.resnet import resnet18
from grokcore.models.small_cnn import SmallCNN
from grokcore.training.config import TrainingConfig
from grokcore.training.step import Trainer
from paper.catalogue import figure_named
from paper.every_table import texts
from paper.recorded import refresh, settings
from tests.experiments.small import SMALL
from tests.experiments.tiny import tiny, tiny_data

TINY = ["--preset", "digits", "--train-images", "60", "--hidden", "12", "9", "--batch-size", "30"]
STEPS = ["--steps", "12", "--measurements", "4"]


def run(study: str, runs: Path, *more: str) -> list[Path]:
    assert limits.main([study, *TINY, *STEPS, "--runs", str(runs), *more]) == 0
    return sorted(runs.glob(f"limits-{study}/*/seed*"))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trainer_of(split: Split, model: nn.Module) -> Trainer:
    return Trainer(model, "head", split, TrainingConfig(steps=4, batch_size=20), Intervention(), 0)


def made_up(classes: int = 4) -> tuple[Split, ImageMLP]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    centres = torch.randn(classes, 1, 3, 3, generator=generator)
    labels = {name: torch.arange(n) % classes for name, n in (("train", 60), ("test", 80))}
    inputs = {n: centres[y] + torch.randn(len(y), 1, 3, 3, generator=generator) for n, y in labels.items()}
    split = Split(inputs["train"], labels["train"], inputs["test"], labels["test"], classes)
    return split, ImageMLP(9, classes, hidden=(7, 6))


def features_of(model: ImageMLP, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model.body(inputs).double()


def ratio(features: Tensor, centres: Tensor, means: Tensor) -> float:
    """Mean squared distance from one centre a sample over the spread of the class means, in loops."""
    spread = sum(float((mu - means.mean(dim=0)).square().sum()) for mu in means) / len(means)
    return sum(float((h - c).square().sum()) for h, c in zip(features, centres, strict=True)) / len(features) / spread


def test_three_kinds_of_means_and_the_floor() -> None:
    split, model = made_up()
    row = collapse_on_test_data_row(trainer_of(split, model), chunk=16)
    train, test = (features_of(model, x) for x, _ in split.sets.values())
    means = torch.stack([train[split.train_labels == c].mean(dim=0) for c in range(4)])
    own = torch.stack([test[split.test_labels == c].mean(dim=0) for c in range(4)])
    with torch.no_grad():
        predicted = model(split.test_inputs).argmax(dim=1)
    assert row["test_variance_ratio"] == pytest.approx(ratio(test, means[split.test_labels], means), rel=1e-5)
    assert row["test_nc1_trace_ratio"] == pytest.approx(ratio(test, own[split.test_labels], own), rel=1e-5)
    assert row["test_variance_ratio_predicted"] == pytest.approx(ratio(test, means[predicted], means), rel=1e-5)
    assert (predicted != split.test_labels).any()
    apart = torch.cdist(test, means)
    nearest = apart.argmin(dim=1)
    confusion = torch.zeros(4, 4)
    for truth, hit in zip(split.test_labels, nearest, strict=True):
        confusion[truth, hit] += 1
    wanted = variance_floor(confusion, means, about="vertices")
    assert row["test_floor_train_means_confusion"] == pytest.approx(wanted.confusion_ratio, rel=1e-5)
    assert row["test_floor_train_means_least_distance"] == pytest.approx(wanted.least_distance_ratio, rel=1e-5)
    assert row["test_nearest_mean_accuracy"] == pytest.approx(float((nearest == split.test_labels).double().mean()))


def test_features_on_the_vertices_stand_on_their_floor() -> None:
    """F2: with every feature on some vertex, V about the train means is the floor of the confusion, and no less."""
    vertices = torch.eye(3, dtype=torch.float64)
    labels, hits = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 2, 0, 1])
    features = vertices[hits]
    found = floor_columns(features, labels, vertices, ClassMoments(3, 3).update(features, labels))
    assert found["test_floor_train_means_confusion"] == pytest.approx(ratio(features, vertices[labels], vertices))
    assert found["test_floor_train_means_least_distance"] == pytest.approx(found["test_floor_train_means_confusion"])
    assert found["test_nearest_mean_accuracy"] == pytest.approx(5 / 8)


def test_layers_along_the_cascade() -> None:
    split, model = made_up()
    row = cascade_row(trainer_of(split, model), chunk=16)
    names = [name.split("/")[1] for name in row if name.startswith("train_variance_ratio/")]
    assert names == ["body.2", "body.4"]  # the activations, first to last
    with torch.no_grad():
        train, test = (model.body[:3](x).double() for x, _ in split.sets.values())
    means = torch.stack([train[split.train_labels == c].mean(dim=0) for c in range(4)])
    assert row["test_variance_ratio/body.2"] == pytest.approx(ratio(test, means[split.test_labels], means), rel=1e-5)
    hits = torch.cdist(train, means).argmin(dim=1) == split.train_labels
    assert row["train_nearest_mean_accuracy/body.2"] == pytest.approx(float(hits.double().mean()))
    assert row["train_variance_ratio/body.4"] == pytest.approx(row["train_variance_ratio"], rel=1e-9)
    assert row["train_cdnv/body.4"] == pytest.approx(row["train_cdnv"], rel=1e-9)


def test_places() -> None:
    assert places_of(SmallCNN(8, 10)) == ("body.2", "body.5", "body.8")  # behind the pools, and the hidden layer
    assert places_of(ImageMLP(4, 3, hidden=(6, 5), linear_pair=True)) == ("body.2", "body.3")
    blocks = tuple(f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2))
    assert places_of(resnet18(width=0.1)) == ("stem", *blocks)


def test_transfer_learns_super_classes_and_probes_fine_ones() -> None:
    split, _ = made_up()
    torch.manual_seed(2)
    pairs = SuperSplit.of(split, (0, 1, 0, 1)).to("cpu")
    assert isinstance(pairs, SuperSplit)
    assert pairs.num_classes == 2
    assert torch.equal(pairs.train_labels, split.train_labels % 2)
    assert torch.equal(pairs.train_fine, split.train_labels)
    row = transfer_row(trainer_of(pairs, ImageMLP(9, 2, hidden=(7, 6))), chunk=16)
    assert row["ceiling"] == 0.5
    assert row["fine_entropy"] == pytest.approx(math.log(2))  # two fine classes in each super-class, equally many
    assert {name.split("/")[1] for name in row if "/" in name} == {"body.2", HEAD}
    assert row[f"probe_transfer/{HEAD}"] > 0.4
    assert row["train_information_logdet_1"] <= row["train_information_trace_1"]
    half = halves(torch.tensor([0, 0, 0, 1, 1, 1, 1]))
    assert half.tolist() == [True, False, True, True, False, True, False]


def test_collapsed_features_transfer_no_more_than_the_ceiling() -> None:
    """A model whose features are the super-class exactly: the probes of the head's input reach F3's ceiling at most."""
    labels = torch.arange(80) % 10
    inputs = torch.cat([nn.functional.one_hot(labels, 10).float(), (labels % 2)[:, None].float()], dim=1)
    split = SuperSplit.of(Split(inputs, labels, inputs, labels, 10), limits_config.EVEN_ODD)

    class Parity(nn.Module):
        def __init__(self, keeps: bool) -> None:
            super().__init__()
            self.keeps, self.body, self.head = keeps, nn.Sequential(nn.Identity(), nn.ReLU()), nn.Linear(11, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x) if self.keeps else self.body(x[:, 10:].expand(-1, 11))
            return self.head(h)

    collapsed, whole = (transfer_row(trainer_of(split, Parity(keeps)), chunk=40) for keeps in (False, True))
    assert collapsed[f"probe_train/{HEAD}"] == pytest.approx(0.2) == collapsed["ceiling"]
    assert collapsed[f"probe_transfer/{HEAD}"] <= 0.2 + 1e-9
    assert whole[f"probe_transfer/{HEAD}"] == 1.0


def test_super_classes_of_cifar10() -> None:
    animals = [name for name, of in zip(CLASSES, limits_config.ANIMALS_VEHICLES, strict=True) if of == 0]
    assert animals == ["bird", "cat", "deer", "dog", "frog", "horse"]


def test_from_commands_to_tables_and_figures(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run("test-collapse", runs, "--seeds", "0", "1", "2")
    run("cascade", runs, "--network", "cnn")
    folders = run("transfer", runs, "--arm", "all", "--seeds", "0")
    assert [folder.parent.name for folder in folders] == [
        "digits-mlp-wd0.3", "digits-mlp-wd0.3+ncc_encourage", "digits-mlp-wd0.3+ncc_prevent",
    ]  # fmt: skip
    config = json.loads((folders[1] / "config.json").read_text())["config"]
    assert config["experiment"] == "limits-transfer"
    assert config["data"]["super_classes"] == "even_odd"
    assert not [token for token in config["variant"] if token.startswith(("lambda", "cdnv", "network", "weight"))]
    changed = run("transfer", tmp_path / "changed", "--arm", "ncc_encourage", "--cdnv-weight", "0.5")
    assert "lambda-0.5" in json.loads((changed[0] / "config.json").read_text())["config"]["variant"]
    assert refresh(runs, tmp_path / "results") == 7
    found = texts(settings(tmp_path / "results"))
    assert {name for name in found if name.startswith("limits")} == {
        "limits/test-collapse", "limits/transfer", "limits/cascade",
    }  # fmt: skip
    assert found["limits/transfer"].count("digits-mlp") == 3
    records = [r for each in settings(tmp_path / "results").values() for r in each]
    for name in ("collapse-on-test-data", "transfer", "cascade"):
        assert figure_named(name).draw(records).axes


def test_along_a_grokking_run_and_a_residual_network(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    words = tiny(data, tmp_path / "runs", epochs=1)
    assert limits.main(["transfer", "--preset", "cifar10", *words, "--arm", "ncc_prevent"]) == 0
    (folder,) = (tmp_path / "runs").glob("limits-transfer/*/seed0*")
    assert folder.parent.name == "cifar10-resnet18-wd5e-4+ncc_prevent"
    last = rows(folder)[-1]
    assert last["ceiling"] == pytest.approx(0.2)
    assert len([name for name in last if name.startswith("probe_fresh/")]) == 9
    grokking = [*SMALL, "--runs", str(tmp_path / "runs"), "--steps", "20"]
    assert limits.main(["test-collapse", "--preset", "grokking", *grokking]) == 0
    (folder,) = (tmp_path / "runs").glob("limits-test-collapse/modular-mlp-wd1/seed0*")
    assert (
        rows(folder)[-1]["test_floor_train_means_error_rates"]
        >= rows(folder)[-1]["test_floor_train_means_least_distance"]
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a study first"),
        (["collapse"], "test-collapse|transfer|cascade"),
        (["cascade", "--preset", "nothing"], "unknown preset"),
        (["cascade", "--arm", "ncc_prevent"], "belongs to the study of transfer"),
        (["transfer", "--arm", "ncc_prevented"], "unknown arm"),
        (["transfer", "--preset", "mnist"], "presets: digits, cifar10"),
        (["transfer", "--lambdas", "1"], "belong to grokking"),
        (["test-collapse", "--stpes", "3"], "did you mean --steps"),
        (["transfer", "--arm", "all", "--cdnv-weight", "0.1"], "its own coefficients"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        limits.main([*words, "--runs", str(tmp_path)] if words else words)
    assert not list(tmp_path.iterdir())
