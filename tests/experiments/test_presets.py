"""Every preset through the command line at a small size: what its rows hold, and which flags it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.grokking import main
from experiments.grokking_config import (
    PRESETS,
    VOCABULARY,
    DataConfig,
    TransformerCommand,
    TransformerConfig,
    build_model,
    split_of,
)
from grokcore import UsageError, measure, relative_flatness
from grokcore.commandline import run_command
from grokcore.models.mlp import EmbeddingMLP
from grokcore.models.transformer import EquationTransformer
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.measurement import OF_CLASS_ROWS
from grokcore.training.published import product_surrogate
from tests.experiments.small import metrics, only_run, small

TINY = ["--p", "11", "--width", "8", "--heads", "2", "--batch-size", "20", "--measurements", "2", "--steps", "2"]
ANSWER_ROWS = tuple(f"{name}_answer_rows" for name in OF_CLASS_ROWS)
PUBLISHED = ("published_product", "published_product_variance")


def tiny(runs: Path, preset: str, *more: str) -> list[str]:
    if preset == "quick":
        return small(runs, "--measurements", "2", *more, steps=2)
    return ["--preset", preset, *TINY, "--threads", "1", "--runs", str(runs), *more]


def run(runs: Path, preset: str, *more: str) -> tuple[Path, list[dict[str, Any]]]:
    assert main(tiny(runs, preset, *more)) == 0
    folder = only_run(runs)
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [0, 1, 2]
    return folder, rows


def trained(folder: Path, **settings: Any) -> EquationTransformer:
    """The model that the run ended with, built by hand."""
    model = EquationTransformer(11, 11, **{"width": 8, "heads": 2, **settings})
    model.load_state_dict(load_checkpoint(folder / "checkpoint.pt")["model"])
    return model.eval()


def test_what_the_presets_are() -> None:
    """The published protocol: section A-grok."""
    command = PRESETS["paper"]
    training = command.training
    assert (training.steps, training.batch_size, training.learning_rate) == (100_000, 512, 1e-4)
    assert (training.warmup, training.beta1, training.beta2, training.weight_decay) == (10, 0.9, 0.98, 1.0)
    assert (command.data.operation, command.data.p, command.data.train_fraction) == ("x+y", 97, 0.5)
    split = split_of(command.data, 0)
    assert (len(split.train_labels), len(split.test_labels)) == (4704, 4705)
    model = build_model(command, split, 0)
    assert isinstance(model, EquationTransformer)
    assert (len(model.blocks), model.blocks[0].heads, model.head.weight.shape) == (2, 4, (97, 128))
    fast = PRESETS["transformer"]
    assert (fast.data, fast.model) == (command.data, command.model)
    assert (fast.training.steps, fast.training.learning_rate) == (4_000, 1e-3)
    assert isinstance(build_model(PRESETS["quick"], split, 0), EmbeddingMLP)
    assert {name: preset.preset for name, preset in PRESETS.items()} == {name: name for name in PRESETS}
    assert max(preset.training.measurements for preset in PRESETS.values()) < 200  # rows of a recorded result


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_preset_trains(preset: str, tmp_path: Path) -> None:
    folder, rows = run(tmp_path, preset)
    assert rows[-1]["train_loss"] != rows[0]["train_loss"]
    for split in ("train", "test"):
        for name in ("kappa", "nc4", "logit_gap", "kappa_collapse_curve"):
            assert math.isfinite(rows[-1][f"{split}_{name}"])
        # Eight features hold no simplex of 11 classes; twelve do.
        assert math.isfinite(rows[-1][f"{split}_nc3_duality"] or math.nan) == (preset == "quick")
    assert not [name for name in rows[-1] if "published" in name or name.endswith("answer_rows")]
    assert (folder / "figure.png").stat().st_size > 20_000


def test_a_row_is_of_the_float32_model_in_eval_mode(tmp_path: Path) -> None:
    """However it is trained: the first row is the same at both precisions, the next ones are not."""
    split, found = split_of(DataConfig(p=11, train_fraction=0.5), 0), []
    for precision in ("bfloat16", "float32"):
        folder, rows = run(tmp_path / precision, "transformer", "--precision", precision)
        model = trained(folder)
        with torch.no_grad():
            features = model.features_at_targets(split.train_inputs, split.train_labels)[:, 0].double()
            weight = model.head.weight.double()
            loss = torch.nn.functional.cross_entropy(features @ weight.T, split.train_labels)
        assert rows[-1]["train_kappa"] == pytest.approx(float(relative_flatness(features, weight)), rel=1e-5)
        assert rows[-1]["train_loss"] == pytest.approx(float(loss), rel=1e-5)
        found.append(rows)
    rough, exact = found
    assert rough[0] == exact[0]
    assert rough[2]["train_loss"] != exact[2]["train_loss"]
    assert rough[2]["train_loss"] == pytest.approx(exact[2]["train_loss"], rel=0.01)


def test_the_published_head(tmp_path: Path) -> None:
    """Rows of its 239 rows; what is read off the answers' rows says so; the published curve beside kappa."""
    folder, rows = run(tmp_path, "paper", "--head", "vocabulary")
    model = trained(folder, vocabulary=VOCABULARY)
    split = split_of(DataConfig(p=11, train_fraction=0.5), 0)
    last = rows[-1]
    train = measure(model, [(split.train_inputs, split.train_labels)], "head", classes=11)
    test = measure(model, [(split.test_inputs, split.test_labels)], "head", classes=11, reference=train)
    for name, report, inputs, labels in (
        ("train", train, split.train_inputs, split.train_labels),
        ("test", test, split.test_inputs, split.test_labels),
    ):
        for metric in ("loss", "accuracy", "kappa", "frobenius_surrogate", "variance_ratio"):
            assert last[f"{name}_{metric}"] == pytest.approx(getattr(report, metric), rel=1e-5), metric
        assert last[f"{name}_nc4_answer_rows"] == report.nc4
        assert last[f"{name}_logit_gap_answer_rows"] == pytest.approx(report.logit_gap, rel=1e-5)
        assert last[f"{name}_nc3_duality_answer_rows"] is None  # 8 features, 11 classes
        features = model.features_at_targets(inputs, labels)
        for column, value in zip(PUBLISHED, product_surrogate(features, model.head.weight), strict=True):
            assert last[f"{name}_{column}"] == pytest.approx(value, rel=1e-5)
        misnamed = {*OF_CLASS_ROWS, "kappa_collapse_curve"}
        assert not {f"{name}_{metric}" for metric in misnamed} & set(last)
        assert {f"{name}_{metric}" for metric in (*ANSWER_ROWS, *PUBLISHED)} <= set(rows[0])
    assert last["train_loss"] > math.log(11)  # of 239 rows
    assert (folder / "figure.png").stat().st_size > 20_000


def test_composition_with_the_published_head(tmp_path: Path) -> None:
    more = ["--operation", "S5", "--p", "97", "--train-fraction", "0.05", "--width", "4", "--steps", "1"]
    assert main(tiny(tmp_path, "transformer", *more, "--head", "vocabulary")) == 0
    last = metrics(only_run(tmp_path))[-1]
    assert math.isfinite(last["train_kappa"])
    assert math.isfinite(last["test_published_product"])
    # 720 train samples: all of 120 classes are there.
    assert math.isfinite(last["test_logit_gap_answer_rows"])


def test_composition_has_a_row_an_answer() -> None:
    command = TransformerCommand(preset="transformer", data=DataConfig(operation="s5"))
    split = split_of(command.data, 0)
    model = build_model(command, split, 0)
    assert model.head.weight.shape == (120, 128)
    assert model(split.train_inputs[:3]).shape == (3, 120)
    assert len(split.train_labels) + len(split.test_labels) == 14_400


@pytest.mark.parametrize(
    ("preset", "flags", "words"),
    [
        ("transformer", ["--hidden", "16"], ["unknown option --hidden", "--help"]),
        ("transformer", ["--embedding", "16"], ["unknown option --embedding"]),
        ("paper", ["--head-bias"], ["unknown option --head-bias", "did you mean --head"]),
        ("quick", ["--width", "16"], ["unknown option --width"]),
        ("quick", ["--head", "vocabulary"], ["unknown option --head"]),
        ("papr", [], ["unknown preset 'papr'", "presets: quick, transformer, paper"]),
        ("paper", ["--heads", "3"], ["--width", "multiple of --heads", "8 and 3"]),
        ("paper", ["--width", "5", "--heads", "1"], ["--width must be even"]),
        ("paper", ["--heads", "0"], ["--heads"]),
        ("paper", ["--layers", "0"], ["--layers"]),
        ("paper", ["--layers", "9" * 30], ["--layers"]),
        ("paper", ["--width", "9" * 30], ["--width"]),
        ("paper", ["--head", "tokens"], ["--head", "answer", "vocabulary"]),
        ("paper", ["--precision", "float16"], ["--precision", "bfloat16", "float32"]),
        ("paper", ["--head", "vocabulary", "--p", "237", "--batch-size", "512"], ["moduli up to 236", "237"]),
        ("paper", ["--operation", "s6"], ["operation"]),
        ("paper", ["--operation", "s5", "--p", "97", "--train-fraction", "1.5"], ["train fraction"]),
        ("paper", ["--operation", "S5"], ["has no modulus"]),
        ("paper", ["--arm", "ncc_prevnt"], ["'ncc_prevent'"]),
    ],
)
@pytest.mark.usefixtures("no_shape_checks")
def test_one_line_and_code_two(
    preset: str, flags: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        run_command(main, tiny(tmp_path / "runs", preset, *flags))
    said = capsys.readouterr().err.strip()
    assert leaving.value.code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 0, said
    assert all(word in said for word in words), said
    assert not list((tmp_path / "runs").rglob("metrics.jsonl"))


def test_the_largest_modulus_of_the_published_vocabulary() -> None:
    head = TransformerConfig(head="vocabulary", width=8, heads=2)
    fits, too_large = (TransformerCommand(preset="paper", data=DataConfig(p=p), model=head) for p in (236, 237))
    assert build_model(fits, split_of(fits.data, 0), 0).head.weight.shape == (VOCABULARY, 8)
    with pytest.raises(UsageError, match="up to 236"):
        build_model(too_large, split_of(too_large.data, 0), 0)
