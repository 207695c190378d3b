"""The Hugging Face callback in a real training run: a small BERT that reads the digits' pixels as tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import grokcore
from tests.grokcore.adapters.digits import digits

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # the framework's own


class Pixels(Dataset[dict[str, Any]]):
    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs, self.labels = inputs.long(), labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.inputs[index], "labels": self.labels[index]}


def fit(folder: Path, *callbacks: Any, epochs: int = 3) -> Any:
    train, test = digits(200, 100)
    transformers.set_seed(1)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=10,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=20, learning_rate=3e-3,
        report_to=[], save_strategy="no", logging_strategy="no", eval_strategy="epoch", use_cpu=True, seed=1,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Pixels(*train), eval_dataset=Pixels(*test), callbacks=list(callbacks)
    )
    trainer.train()
    return trainer


def test_a_run_is_measured_and_not_changed(tmp_path: Path) -> None:
    from grokcore.adapters.huggingface import GrokcoreCallback

    test = digits(200, 100)[1]
    callback = GrokcoreCallback("classifier", loaders={"test": [({"input_ids": test[0].long()}, test[1])]})
    trainer = fit(tmp_path, callback)
    plain = fit(tmp_path)
    for mine, theirs in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    noted = [line for line in trainer.state.log_history if "grokcore/train/kappa" in line]
    assert [round(line["epoch"]) for line in noted] == [1, 2, 3]
    train = digits(200, 100)[0]
    report = grokcore.measure(trainer.model, [({"input_ids": train[0].long()}, train[1])], "classifier")
    assert noted[-1]["grokcore/train/kappa"] == pytest.approx(report.kappa, rel=1e-6)
    assert noted[-1]["grokcore/test/accuracy"] > 0.1
    assert all(math.isfinite(value) for line in noted for value in line.values())
    assert callback.seconds > 0
