"""Seeds trained as one batched model against the same seeds trained alone."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from experiments.arms import ARMS
from grokcore import DivergedError, Intervention, UsageError
from grokcore.data.modular import modular_arithmetic
from grokcore.data.split import Split
from grokcore.errors import InterruptedRunError
from grokcore.models.mlp import EmbeddingMLP
from grokcore.models.transformer import EquationTransformer
from grokcore.training.checkpoint import load_checkpoint
from grokcore.training.cohort import Cohort
from grokcore.training.config import Parameters, TrainingConfig
from grokcore.training.loop import Run, train, train_together
from grokcore.training.run_folder import RunFolder
from grokcore.training.step import Trainer

CONFIG = TrainingConfig(steps=200, batch_size=20, measurements=8)
EVERYTHING = Intervention(
    cdnv_weight=-0.02, cdnv_cap=3.0, kappa_weight=0.01, kappa_cap=40.0, surrogate_weight=-0.001, gini_weight=0.1,
    head_norm_cap=2.5, release_at=0.5, release_lr=2.0, release_weight_decay=2.0, release_schedule="cosine",
)  # fmt: skip
P = 11


def mlp() -> nn.Module:
    return EmbeddingMLP(P, P, embedding=8, hidden=(16, 12), head_bias=True)


def transformer(vocabulary: int | None = None) -> nn.Module:
    return EquationTransformer(P, P, layers=1, heads=2, width=8, vocabulary=vocabulary)


def data(seed: int) -> Split:
    return modular_arithmetic("x+y", P, train_fraction=0.4, seed=seed)


def trainer(
    seed: int,
    arm: Intervention = EVERYTHING,
    model: Callable[[], nn.Module] = mlp,
    config: TrainingConfig = CONFIG,
    dtype: torch.dtype = torch.float64,
    **other: Any,
) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(model().to(dtype), "head", other.get("split", data(seed)), config, arm, other.get("order", seed))


def trainers(seeds: Sequence[int] = (0, 1, 2), **how: Any) -> list[Trainer]:
    return [trainer(seed, **how) for seed in seeds]


def difference(one: Trainer, other: Trainer) -> float:
    """The largest between two states' parameters and moments."""
    pairs = list(zip(one.model.parameters(), other.model.parameters(), strict=True))
    states = [(one.optimizer.state[a][k], other.optimizer.state[b][k]) for a, b in pairs for k in ("exp_avg", "step")]
    return max((a - b).abs().max().item() for a, b in [*pairs, *states])


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-8, abs_tol=1e-10)


@pytest.mark.parametrize("model", [mlp, transformer])
def test_two_hundred_steps_agree_with_the_single_runs(model: Callable[[], nn.Module]) -> None:
    """Every penalty, both caps and the release; objectives and raw penalties at each step."""
    alone, together = trainers(model=model), trainers(model=model)
    cohort = Cohort(together)
    for step in range(200):
        for single, (loss, raw) in zip(alone, cohort.step(), strict=True):
            wanted, terms = single.step()
            assert close(loss.item(), wanted.item())
            assert raw.keys() == terms.keys()
            assert len(raw) == (4 if step < 100 else 0)
            assert all(close(raw[name].item(), terms[name].item()) for name in raw)
    assert max(difference(a, b) for a, b in zip(alone, together, strict=True)) < 1e-8
    # Seeds are far apart, so that it says something.
    assert difference(alone[0], together[1]) > 1e-2


def assert_equal_after(steps: int, alone: list[Trainer], together: list[Trainer]) -> None:
    cohort = Cohort(together)
    for _ in range(steps):
        cohort.step()
        for single in alone:
            single.step()
    assert max(difference(a, b) for a, b in zip(alone, together, strict=True)) < 1e-10


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm(arm: str) -> None:
    arm_of_preset = replace(ARMS[arm].quick, release_at=10.0) if ARMS[arm].quick.release_at else ARMS[arm].quick
    alone, together = (trainers(arm=arm_of_preset) for _ in range(2))
    assert_equal_after(25, alone, together)
    if arm != "baseline":
        other = trainer(0, arm=Intervention())
        for _ in range(25):
            other.step()
        assert difference(other, together[0]) > 1e-6


def test_the_published_head_has_two_targets() -> None:
    alone, together = (trainers((3, 4), model=lambda: transformer(20)) for _ in range(2))
    assert_equal_after(20, alone, together)


@pytest.mark.parametrize("wrong", [{"order": 9}, {"split": data(9)}])
def test_other_batches_or_data_disagree(wrong: dict[str, Any]) -> None:
    alone, together = trainer(0, **wrong), trainers()
    cohort = Cohort(together)
    for _ in range(5):
        alone.step()
        cohort.step()
    assert difference(alone, together[0]) > 1e-4


def test_a_member_is_a_trainer_of_its_own() -> None:
    """Its state goes on alone, in place or elsewhere, and neither changes the others."""
    alone, together = trainer(1), trainers()
    cohort = Cohort(together)
    for _ in range(30):
        alone.step()
        cohort.step()
    state = together[1].state()
    assert state["optimizer"]["param_groups"] == alone.state()["optimizer"]["param_groups"]
    elsewhere = trainer(7, order=1, split=data(1))
    elsewhere.load_state(state)
    neighbour = together[0].state()
    for each in (alone, together[1], elsewhere):
        for _ in range(30):
            each.step()
    assert max(difference(alone, together[1]), difference(alone, elsewhere)) < 1e-10
    later = together[0].state()
    assert all(torch.equal(value, later["model"][name]) for name, value in neighbour["model"].items())
    assert torch.equal(neighbour["optimizer"]["state"][0]["step"], later["optimizer"]["state"][0]["step"])
    assert state["step"] == 30  # a snapshot
    assert not torch.equal(state["model"]["head.weight"], together[1].head.weight)
    with pytest.raises(UsageError, match="stepped on their own"):
        cohort.step()


def test_a_members_state_is_no_larger_than_its_own(tmp_path: Path) -> None:
    """A view would be saved with the storage of all members."""
    sizes = []
    for name, one in (("alone", trainer(0)), ("member", Cohort(trainers(range(8))).trainers[0])):
        one.step()
        torch.save(one.state(), tmp_path / name)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]


def test_a_cohort_of_members_in_the_middle_of_training() -> None:
    alone, together = trainers(), trainers()
    for step in range(40):
        if step % 10 == 0:
            cohort = Cohort(together if step % 20 else together[::-1])
        cohort.step()
        for single in alone:
            single.step()
    assert max(difference(a, b) for a, b in zip(alone, together, strict=True)) < 1e-10


def test_bfloat16_blocks() -> None:
    """Autocast rounds in both; the first gradients agree to its precision."""

    def half() -> nn.Module:
        return EquationTransformer(P, P, layers=2, heads=2, width=8, bfloat16=True)

    how = {"model": half, "dtype": torch.float32, "arm": Intervention()}
    alone, together = trainers(**how), trainers(**how)
    cohort = Cohort(together)
    losses = [(loss.item(), single.step()[0].item()) for single, (loss, _) in zip(alone, cohort.step(), strict=True)]
    assert all(math.isclose(a, b, rel_tol=1e-2) for a, b in losses)
    for single, member in zip(alone, together, strict=True):
        key = single.head.weight, member.head.weight
        mine, theirs = (each.optimizer.state[w]["exp_avg"] for each, w in zip((single, member), key, strict=True))
        assert (mine - theirs).norm() < 2e-2 * mine.norm()


@dataclass(frozen=True)
class Squared(TrainingConfig):
    loss: Literal["squared"] = "squared"


@dataclass(frozen=True)
class Descent(Squared):
    momentum: float = 0.0

    def new_optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=10 * self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


@pytest.mark.parametrize("config", [Squared, Descent])
def test_members_keep_their_weight_decays(config: type[Squared]) -> None:
    """Of one seed, under the squared loss: only their decay tells them apart."""
    decays = (0.0, 0.3, 3.0)

    def build() -> list[Trainer]:
        configs = [config(steps=50, batch_size=20, learning_rate=0.01, weight_decay=decay) for decay in decays]
        return [trainer(0, arm=Intervention(), config=config) for config in configs]

    alone, together = build(), build()
    cohort = Cohort(together)
    for _ in range(50):
        for single, (loss, _) in zip(alone, cohort.step(), strict=True):
            assert close(loss.item(), single.step()[0].item())
    for one, other in zip(alone, together, strict=True):
        assert all(
            close(float((a - b).detach().norm()), 0)
            for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
        )
    norms = [weight_norm(each)["norm"] for each in together]
    assert norms == sorted(norms, reverse=True)
    assert norms[2] < 0.8 * norms[0]


def test_what_cannot_be_batched_is_named() -> None:
    class Noisy(EmbeddingMLP):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + torch.randn(inputs.shape[0], P)

    def with_body(*layers: nn.Module) -> Callable[[], nn.Module]:
        def build() -> nn.Module:
            model = EmbeddingMLP(P, P, embedding=8, hidden=(16, 12))
            model.body = nn.Sequential(*model.body, *layers)
            return model

        return build

    moved, shifted = trainers((0, 1)), trainers((0, 1), model=transformer)
    moved[0].step()
    shifted[1].model.positions.add_(1)
    refused: list[tuple[list[Trainer], str]] = [
        ([], "one or more"),
        ([moved[0], moved[0]], "a model of its own"),
        (moved, "differ in their step"),
        (shifted, "different buffers"),
        ([trainer(0), trainer(1, arm=Intervention())], "differ in their arm"),
        ([trainer(0), trainer(1, config=replace(CONFIG, beta1=0.8))], "differ in their config"),
        (trainers((0, 1), config=Descent(momentum=0.9)), "without momentum"),
        ([trainer(0), trainer(1, model=transformer)], "differ in their model, parameters, buffers"),
        ([trainer(0), trainer(1, split=modular_arithmetic("x+y", 7, train_fraction=0.3, seed=0))], "batches, classes"),
        (trainers((0, 1), model=with_body(nn.Dropout(0.1))), "dropout"),
        (trainers((0, 1), model=with_body(nn.BatchNorm1d(12))), "batch norm"),
    ]
    for given, words in refused:
        with pytest.raises(UsageError, match=words):
            Cohort(given)
    Cohort(
        trainers((0, 1), model=with_body(nn.Dropout(0.0), nn.BatchNorm1d(12, affine=False, track_running_stats=False)))
    ).step()
    drawing = Cohort(trainers((0, 1), model=lambda: Noisy(P, P, embedding=8), dtype=torch.float32))
    with pytest.raises(UsageError, match="random numbers"):
        drawing.step()


# The loop.


def weight_norm(of: Trainer) -> dict[str, float]:
    return {"norm": of.head.weight.detach().norm().item()}


class Folders:
    """Run folders of seeds below one root, and the loop over them."""

    def __init__(self, root: Path, **how: Any) -> None:
        self.root, self.how = root, {"arm": Intervention(surrogate_weight=-0.001, head_norm_cap=2.5)} | how

    def __call__(self, seeds: Sequence[int], **loop: Any) -> list[Any]:
        folders = [RunFolder(self.root, {"experiment": "e", "arm": "a", "seed": seed}, {}) for seed in seeds]
        runs = []
        try:
            for seed, folder in zip(seeds, folders, strict=True):
                folder.__enter__()
                one = trainer(seed, **self.how)
                runs.append(Run(one, folder, lambda one=one: weight_norm(one)))
            return train_together(runs, checkpoint_every=50, **loop)
        finally:
            for run in runs:
                run.folder.__exit__(None, None, None)

    def of(self, seed: int) -> Path:
        (folder,) = (self.root / "e" / "a").glob(f"seed{seed}-*")
        return folder


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def test_rows_and_checkpoints_are_those_of_single_runs(tmp_path: Path) -> None:
    together, alone = Folders(tmp_path / "together"), Folders(tmp_path / "alone")
    batched = together((0, 1, 2), keep=(70, 200))
    for seed, rows in enumerate(batched):
        (single,) = alone((seed,), keep=(70, 200))
        assert [row["step"] for row in rows] == [row["step"] for row in single]
        for mine, theirs in zip(without_time(rows)[1:], without_time(single)[1:], strict=True):
            assert mine.keys() == theirs.keys()
            assert all(close(mine[key], theirs[key]) for key in mine)
        assert rows[-1]["wall_s"] > 0
        for name in ("checkpoint.pt", "checkpoint-70.pt", "checkpoint-200.pt"):
            mine, theirs = (load_checkpoint(each.of(seed) / name) for each in (together, alone))
            assert mine["step"] == theirs["step"]
            torch.testing.assert_close(dict(mine["model"]), dict(theirs["model"]), rtol=0, atol=1e-8)
        assert len(list(together.of(seed).glob("checkpoint-*.pt"))) == 2


def test_an_interrupted_cohort_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit in float32; each member's checkpoint of the step of the signal is on disk."""
    whole, broken = (Folders(tmp_path / name, dtype=torch.float32) for name in ("whole", "broken"))
    wanted = whole((0, 1, 2))
    real = Cohort.step

    def interrupted(cohort: Cohort) -> Any:
        if cohort.steps_done == 76:
            signal.raise_signal(signal.SIGTERM)
        return real(cohort)

    with monkeypatch.context() as patch:
        patch.setattr(Cohort, "step", interrupted)
        with pytest.raises(InterruptedRunError, match="77"):
            broken((0, 1, 2))
    assert [load_checkpoint(broken.of(seed) / "checkpoint.pt")["step"] for seed in range(3)] == [77, 77, 77]
    for mine, theirs in zip(broken((0, 1, 2)), wanted, strict=True):
        assert without_time(mine)[1:] == without_time(theirs)[1:]


def test_members_that_are_behind_catch_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at steps 77, 77 and 0, and a member that has ended: the records are the single runs'."""
    folders, alone = Folders(tmp_path / "a"), Folders(tmp_path / "b")
    sizes: list[tuple[int, int]] = []
    real = Cohort.step

    def watched(cohort: Cohort) -> Any:
        sizes.append((cohort.steps_done, len(cohort.trainers)))
        if cohort.steps_done == 76 and len(cohort.trainers) == 2 and len(sizes) < 100:
            signal.raise_signal(signal.SIGINT)
        return real(cohort)

    monkeypatch.setattr(Cohort, "step", watched)
    with pytest.raises(InterruptedRunError):
        folders((0, 1))
    folders((3,))
    sizes.clear()
    sizes += [(-1, 0)] * 100
    rows = folders((0, 1, 2, 3))
    assert sizes[100:] == [(step, 3) for step in range(77, 200)]
    for seed, found in enumerate(rows):
        (single,) = alone((seed,))
        for mine, theirs in zip(without_time(found)[1:], without_time(single)[1:], strict=True):
            assert all(close(mine[key], theirs[key]) for key in mine)


def test_a_member_that_diverges_leaves_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = Folders(tmp_path / "a"), Folders(tmp_path / "b")
    real = Cohort.step

    def poisoned(cohort: Cohort) -> Any:
        results = real(cohort)
        if cohort.steps_done == 120:
            with torch.no_grad():
                cohort.trainers[1].model.embedding.weight.fill_(math.nan)
        return results

    monkeypatch.setattr(Cohort, "step", poisoned)
    first, second, third = together((0, 1, 2))
    assert isinstance(second, DivergedError)
    assert second.step == 121
    assert load_checkpoint(together.of(1) / "checkpoint.pt")["step"] == 100
    for seed, rows in ((0, first), (2, third)):
        (single,) = alone((seed,))
        assert all(close(rows[-1][key], single[-1][key]) for key in ("norm", "objective"))


def test_one_run_that_diverges_raises(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {"experiment": "e", "arm": "a", "seed": 0}, {}) as folder:
        one = trainer(0)
        one.head.weight.data.fill_(math.nan)
        with pytest.raises(DivergedError, match="weights"):
            train(one, folder, lambda: weight_norm(one))


def test_nothing_to_train() -> None:
    assert train_together([]) == []
