"""The parts of the gap along a run, from its folder: the run's own losses and kappa; refusals of what is no run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from experiments import cifar10, grokking, representativeness
from experiments.representativeness import public_estimate
from experiments.stored import Features, stored_run
from grokcore import UsageError
from grokcore.training.checkpoint import load_checkpoint, save_checkpoint
from grokcore.training.run_folder import last_path, run_id
from tests.cases import random_head
from tests.experiments.small import metrics, small
from tests.experiments.tiny import only_folder, tiny, tiny_data


def test_parts_are_the_runs_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grokking.main(small(tmp_path, "--keep", "60", steps=60)) == 0
    (folder,) = tmp_path.glob("grokking/baseline/seed*")
    figure = tmp_path / "gap.png"
    capsys.readouterr()
    assert representativeness.main([str(folder), "--figure", str(figure), "--probes", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"run {stored_run(folder).run_id}" in lines[0]
    row = metrics(folder)[-1]
    sizes = [line for line in lines if "0.02 of its norm" in line]
    assert len(sizes) == 1  # step 60 is kept and last, and shown once
    *_, gap, _, _, rob, _, _, rep, leading, bound = sizes[0].split()
    assert float(gap) == pytest.approx(row["test_loss"] - row["train_loss"], rel=1e-3)
    assert float(leading) == pytest.approx(row["train_kappa"] * 0.02**2 / (2 * 12), rel=6e-3)
    assert float(rep) == pytest.approx(float(gap) - float(rob), rel=1e-3)
    assert 0 < float(rob) < 2 * float(bound)
    assert figure.stat().st_size > 10_000


def test_images_and_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path / "cache"))
    data = tiny_data(tmp_path)
    assert cifar10.main(tiny(data, tmp_path / "runs", "--label-noise", "0.2", epochs=2)) == 0
    folder = only_folder(tmp_path / "runs")
    ((step, seen),) = list(stored_run(folder, data).features())[-1:]
    assert step == 6
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    logits = torch.nn.functional.linear(seen.train, seen.weight, seen.bias)
    loss = float(torch.nn.functional.cross_entropy(logits.double(), seen.train_labels))
    assert loss == pytest.approx(last["train_loss"], rel=1e-5)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["data"]["pixels"] = "another"
    config["run_id"] = run_id(config["config"])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="data found here differ"):
        stored_run(folder, data)


def features(seed: int) -> Features:
    train, weight, bias, labels = random_head(seed, n=20, m=4, K=3)
    test, _, _, test_labels = random_head(seed + 1, n=15, m=4, K=3)
    return Features(train, labels, test, test_labels, weight, bias)


def test_the_public_estimate_in_loops() -> None:
    """And that its weights' size drops out, and that it is the test loss but for a share of 1/n."""
    seen = features(0)
    train, test = seen.train.tolist(), seen.test.tolist()

    def loss(h: list[float], y: int) -> float:
        z = [sum(a * b for a, b in zip(row, h, strict=True)) for row in seen.weight.tolist()]
        z = [a + b for a, b in zip(z, seen.bias.tolist(), strict=True)] if seen.bias is not None else z
        return math.log(sum(map(math.exp, z))) - z[y]

    norms = [0.02 * math.hypot(*h) for h in train]
    total = 0.0
    for h, y in zip(test, seen.test_labels.tolist(), strict=True):
        kernels = [math.exp(-math.dist(h, other) / 2) / math.sqrt(2 * math.pi) for other in train]
        density = [w / sum(norms) * k for w, k in zip(norms, kernels, strict=True)]
        total += loss(h, y) - sum(d * loss(other, y) for d, other in zip(density, train, strict=True)) / len(train)
    assert public_estimate(seen, block=4) == pytest.approx(total / len(test))
    plain = sum(loss(h, y) for h, y in zip(test, seen.test_labels.tolist(), strict=True)) / len(test)
    worst = max(loss(h, y) for h in train for y in range(3))
    assert 0 < plain - public_estimate(seen) < 0.4 * worst / len(train)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        representativeness.main([str(tmp_path), "--figure", str(tmp_path / "absent" / "gap.png")])
    with pytest.raises(UsageError, match="not a run's folder"):
        representativeness.main([str(tmp_path)])
    assert grokking.main(small(tmp_path, steps=4)) == 0
    (folder,) = tmp_path.glob("grokking/baseline/seed*")
    with pytest.raises(UsageError, match="made, not read"):
        stored_run(folder, tmp_path)
    text = (folder / "config.json").read_text()
    for key, value in (("seed", -1), ("arm", None), ("data", {"p": "x"})):
        stored = json.loads(text)
        stored["config"][key] = value
        (folder / "config.json").write_text(json.dumps(stored))
        with pytest.raises(UsageError, match="changed, or written by another version"):
            stored_run(folder)
    (folder / "config.json").write_text(text)
    good = load_checkpoint(last_path(folder))
    save_checkpoint(last_path(folder), good | {"run_id": "00000000"})
    with pytest.raises(UsageError, match="belongs to run"):
        list(stored_run(folder).features())
    broken = {key: value * math.nan for key, value in good["model"].items()}
    save_checkpoint(last_path(folder), good | {"model": broken})
    with pytest.raises(UsageError, match="NaN"):
        list(stored_run(folder).features())


def test_a_run_that_goes_on_while_it_is_read(tmp_path: Path) -> None:
    """Its last checkpoint is replaced between looking for steps and reading it: the step is the weights' own."""
    assert grokking.main(small(tmp_path, "--keep", "2", steps=4)) == 0
    (folder,) = tmp_path.glob("grokking/baseline/seed*")
    reading = stored_run(folder).features()
    assert next(reading)[0] == 2
    save_checkpoint(last_path(folder), load_checkpoint(last_path(folder)) | {"step": 9})
    assert next(reading)[0] == 9


def test_forks_and_noisy_labels(tmp_path: Path) -> None:
    assert grokking.main(small(tmp_path, "--label-noise", "0.3", "--keep", "20", steps=40)) == 0
    trunk = next(iter(tmp_path.glob("grokking/baseline/seed*")))
    words = ("--label-noise", "0.3", "--arm", "control_schedule", "--from", f"{trunk}@20")
    assert grokking.main(small(tmp_path, *words, steps=40)) == 0
    (folder,) = tmp_path.glob("grokking/control_schedule/seed*")
    ((step, seen),) = list(stored_run(folder).features())
    last = metrics(folder)[-1]
    assert step == last["step"] == 40
    logits = torch.nn.functional.linear(seen.train, seen.weight, seen.bias)
    loss = float(torch.nn.functional.cross_entropy(logits.double(), seen.train_labels))
    assert loss == pytest.approx(last["train_loss"], rel=1e-5)
