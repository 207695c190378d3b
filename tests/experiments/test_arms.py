"""Each arm for a few steps, and what its switches do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.arms import ARMS
from experiments.commands import command_variant
from experiments.grokking import EXPERIMENT, main
from experiments.grokking_config import PRESETS, build_model, split_of
from grokcore import Intervention, cdnv, frobenius_surrogate, relative_flatness
from grokcore.training.config import TrainingConfig
from grokcore.training.step import Trainer
from tests.experiments.small import metrics, only_run, small


def trainer(intervention: Intervention, steps: int = 20, **training: float) -> Trainer:
    command = replace(PRESETS["quick"], data=replace(PRESETS["quick"].data, p=11))
    split = split_of(command.data, 0)
    config = TrainingConfig(steps=steps, batch_size=40, **training)  # type: ignore[arg-type]
    return Trainer(build_model(command, split, 0), "head", split, config, intervention, 0)


@pytest.mark.parametrize("name", list(ARMS))
def test_each_arm_runs(name: str, tmp_path: Path) -> None:
    assert main(small(tmp_path, "--arm", name, steps=12)) == 0
    rows = metrics(only_run(tmp_path))
    arm = ARMS[name].quick
    wanted = {
        "penalty_cdnv": arm.cdnv_weight,
        "penalty_surrogate": arm.surrogate_weight,
        "penalty_kappa": arm.kappa_weight,
        "penalty_gini": arm.gini_weight,
    }
    before_release = rows[3]
    assert {key for key in before_release if key.startswith("penalty")} == {k for k, w in wanted.items() if w}
    after = rows[-1]
    if arm.release_at is not None:
        assert not any(key.startswith("penalty") for key in after)
    assert all(math.isfinite(after[key]) for key in ("train_kappa", "test_kappa", "train_cdnv", "test_loss"))


def test_all_arms_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(tmp_path, "--arm", "all", "--seeds", "0", "1", "--together", "no", steps=6)) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ARMS)
    assert (tmp_path / "grokking" / "comparison.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("intervention", "penalty"),
    [
        (Intervention(cdnv_weight=0.5), "cdnv"),
        (Intervention(surrogate_weight=0.5), "surrogate"),
        (Intervention(kappa_weight=0.5), "kappa"),
        (Intervention(gini_weight=0.5), "gini"),
    ],
)
def test_objective_is_cross_entropy_plus_the_weighted_penalty(intervention: Intervention, penalty: str) -> None:
    """Each term recomputed from the batch by hand, from the formula."""
    run = trainer(intervention)
    index = run.batches.indices(1)
    labels = run.data.train_labels[index]
    h = run.model.body(run.model.embedding(run.data.train_inputs[index]).flatten(1)).detach()
    weight = run.model.head.weight.detach().clone()
    logits = h @ weight.T
    entropy = torch.nn.functional.cross_entropy(logits, labels)
    soft = torch.softmax(logits / 2, dim=1)
    expected = {
        "cdnv": cdnv(h, labels, 11),
        "surrogate": weight.square().sum() * (1 - soft.square().sum(1)).mean(),
        "kappa": relative_flatness(h, weight),
        "gini": (1 - soft.square().sum(1)).mean(),
    }[penalty]
    loss, terms = run.step()
    assert set(terms) == {penalty}
    torch.testing.assert_close(terms[penalty], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, entropy + 0.5 * expected, rtol=1e-4, atol=1e-6)


def test_capped_penalty_has_no_gradient_past_its_cap() -> None:
    capped = trainer(Intervention(cdnv_weight=-5.0, cdnv_cap=1e-6))
    free = trainer(Intervention())
    for _ in range(3):
        capped.step()
        free.step()
    for a, b in zip(capped.model.parameters(), free.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    pushed = trainer(Intervention(cdnv_weight=-5.0))
    for _ in range(3):
        pushed.step()
    assert not torch.allclose(pushed.model.head.weight, free.model.head.weight)


def test_cap_and_hold_on_the_heads_norm() -> None:
    capped, held = trainer(Intervention(head_norm_cap=1.0)), trainer(Intervention(head_norm_hold=50.0))
    loose = trainer(Intervention(head_norm_cap=1e6))
    for run in (capped, held, loose):
        run.step()
    assert float(capped.head.weight.detach().norm()) == pytest.approx(1.0, rel=1e-5)
    assert float(held.head.weight.detach().norm()) == pytest.approx(50.0, rel=1e-5)
    assert 1.0 < float(loose.head.weight.detach().norm()) < 50.0


@pytest.mark.parametrize("switch", ["penalty", "cap", "lr", "weight_decay", "schedule"])
def test_release_switches_are_independent(switch: str) -> None:
    """Only the named thing changes at the release, after step 10 of 20."""
    off = Intervention(gini_weight=-0.1, head_norm_cap=2.0, release_at=0.5, release_penalty=False, release_cap=False)
    one = {
        "penalty": {"release_penalty": True},
        "cap": {"release_cap": True},
        "lr": {"release_lr": 3.0},
        "weight_decay": {"release_weight_decay": 5.0},
        "schedule": {"release_schedule": "cosine"},
    }[switch]
    run = trainer(replace(off, **one), warmup=0, weight_decay=1.0)  # type: ignore[arg-type]
    for _ in range(10):
        _, terms = run.step()
        group = run.optimizer.param_groups[0]
        assert terms
        assert (group["lr"], group["weight_decay"]) == (1e-3, 1.0)
        assert float(run.head.weight.detach().norm()) <= 2.0 + 1e-5
    for _ in range(10):
        _, terms = run.step()
    group = run.optimizer.param_groups[0]
    assert bool(terms) == (switch != "penalty")
    assert (float(run.head.weight.detach().norm()) > 2.0 + 1e-5) == (switch == "cap")
    assert group["weight_decay"] == (5.0 if switch == "weight_decay" else 1.0)
    expected = {"lr": 3e-3, "schedule": 1e-3 * 0.5 * (1 + math.cos(math.pi * 0.9))}.get(switch, 1e-3)
    assert group["lr"] == pytest.approx(expected)


def test_variants_name_what_differs_from_the_arm() -> None:
    quick = PRESETS["quick"]
    release = replace(quick, arm="flatness_release", intervention=ARMS["flatness_release"].quick)
    assert command_variant(EXPERIMENT, release) == []
    changed = replace(release, intervention=replace(release.intervention, release_at=0.25))
    assert command_variant(EXPERIMENT, changed) == ["at0.25"]
    weighted = replace(release, intervention=replace(release.intervention, surrogate_weight=-1e-4))
    assert command_variant(EXPERIMENT, weighted) == ["surrogateweight-1e-4"]


def test_surrogate_of_the_penalty_is_not_the_measured_one() -> None:
    """tau and normalisation change the number, which is why measurements never use them."""
    h = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    penalty = frobenius_surrogate(h, w, temperature=2.0, normalize_features=True)
    assert float(penalty) != pytest.approx(float(frobenius_surrogate(h, w)), rel=0.05)
