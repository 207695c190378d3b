"""The sentences of the README's "What we found" and of the paper's abstract, held against the recorded runs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from grokcore.training import collapse_verdict
from grokcore.training.record import Record, read_records
from grokcore.training.table import event_step, value_at_event
from grokcore.training.transfer import HEAD
from paper.clock_law import decay_of, event_of
from paper.differences import accuracy_difference
from paper.onsets import generalisation_onset
from paper.recorded import RESULTS, by_full_name
from paper.timing import timing
from theory import statements

SEEDS = (0, 1, 2)


@cache
def runs(experiment: str, preset: str) -> dict[str, list[Record]]:
    return by_full_name(read_records(RESULTS, experiment, preset))


def apart(record: Record, other: Record) -> int:
    """How many measured steps later the first groks than the second."""
    steps = other.column("step").tolist()
    return steps.index(event_step(record, "test_99")) - steps.index(event_step(other, "test_99"))


@pytest.mark.parametrize("seed", SEEDS)
def test_collapse_is_not_necessary(seed: int) -> None:
    found = runs("grokking", "transformer")
    prevented, baseline = found["ncc_prevent"][seed], found["baseline"][seed]
    assert 6 <= prevented.final("train_cdnv") <= 8
    assert baseline.column("train_cdnv").min() < 0.05
    assert abs(apart(prevented, baseline)) <= 2
    assert value_at_event(prevented, "test_99", "train_kappa") > 8 * value_at_event(baseline, "test_99", "train_kappa")


def test_encouraged_collapse_helps() -> None:
    found = runs("grokking", "transformer")
    steps = [[event_step(run, "test_99") for run in found[arm]] for arm in ("ncc_encourage", "baseline")]
    assert sum(b / a > 2.5 for a, b in zip(*steps, strict=True)) == 2
    images = runs("cifar10", "cpu")
    assert accuracy_difference(images["ncc_encourage"], images["baseline"]).low > 0
    assert accuracy_difference(images["ncc_prevent"], images["baseline"]).verdict().startswith("not told apart")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flat_head_is_not_necessary(seed: int) -> None:
    found = runs("grokking", "quick")
    sharp, baseline = found["flatness_prevent_exact"][seed], found["baseline"][seed]
    assert event_step(sharp, "test_99") == event_step(baseline, "test_99")
    ratio = value_at_event(sharp, "test_99", "train_kappa") / value_at_event(baseline, "test_99", "train_kappa")
    assert ratio > 15_000


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_published_penalty_delays_is_not_explained_by_its_kappa(seed: int) -> None:
    found = runs("grokking", "transformer")
    published, prevented = found["flatness_prevent"][seed], found["ncc_prevent"][seed]
    assert np.isinf(event_step(published, "test_99"))
    late = published.column("step") > 500
    assert np.median(published.column("train_kappa")[late]) < value_at_event(prevented, "test_99", "train_kappa") / 2


def test_flatness_does_not_fall_as_generalisation_starts() -> None:
    records = runs("grokking", "transformer")["baseline+headvocabulary"]
    assert len(records) == 3
    for name in ("train_kappa", "train_published_product"):
        timings = [timing(record, name) for record in records]
        assert not any(each.log.exactly or each.linear.exactly for each in timings)


def test_what_the_release_gains_on_cifar10_is_the_schedules() -> None:
    found = runs("cifar10", "cpu")
    control = found["control_schedule+fork"]
    assert accuracy_difference(found["flatness_release+fork"], found["flatness_prevent"]).low > 0
    assert accuracy_difference(control, found["baseline"]).low > 0
    assert accuracy_difference(found["flatness_release+fork"], control).high < 0


def test_contraction_completes_after_generalisation() -> None:
    records = [r for arm, each in runs("dynamics", "grey").items() if arm.startswith("mnist-mlp") for r in each]
    records = [record for record in records if not record.config["variant"]]
    assert len(records) == 60
    late = []
    for record in records:
        onset = generalisation_onset(record)
        assert onset is not None
        if not event_of(record).censored:
            late.append(event_of(record).step / onset.step)
    assert len(late) == 59
    assert (round(min(late), 1), round(max(late), 1)) == (1.3, 3.6)
    weak = [event_of(record).step for record in records if 0 < decay_of(record) <= 0.01]
    assert (len(weak), min(weak), max(weak)) == (15, 55_324, 84_440)


def test_without_decay_the_network_groks_as_at_the_smallest() -> None:
    found = runs("dynamics", "grey")
    assert len(found["mnist-mlp-wd0"]) == 5
    assert sum(event_of(run).censored for run in found["mnist-mlp-wd0"]) == 1
    for run, small in zip(found["mnist-mlp-wd0"], found["mnist-mlp-wd1e-3"], strict=True):
        norm = run.column("weight_norm")
        assert abs(norm[-1] / norm[0] - 1) < 0.01
        assert 0.86 <= round(run.final("test_accuracy"), 3) < 0.89
        steps, onsets = run.column("step").tolist(), [generalisation_onset(each) for each in (run, small)]
        assert None not in onsets
        assert abs(steps.index(onsets[0].step) - steps.index(onsets[1].step)) <= 1


def test_on_the_digits_rnc1_is_at_the_mark_before_anything_is_learned() -> None:
    found = runs("dynamics", "grey")["digits-mlp-wd0.1"]
    assert [event_of(run).step < event_of(run, "tau_1").step / 100 for run in found] == [False, False, True]
    for run in found:
        before = run.column("step") <= event_of(run, "tau_1").step
        assert 0.09 < run.column("train_rnc1_mean")[0] < 0.13
        assert 3.4 < run.column("train_global_mean_ratio")[0] < 4.1
        assert run.column("train_nc1_trace_ratio")[before].min() > 1.5
        assert run.final("train_nc1_trace_ratio") < 1e-3


def test_collapse_reaches_test_data_where_it_says_so() -> None:
    found = {
        (experiment, arm): runs_of
        for experiment in ("grokking", "grokking-mnist", "digits", "mnist", "cifar10")
        for arm, runs_of in runs("limits-test-collapse", experiment).items()
    }
    verdicts = {key: collapse_verdict.verdict(each) for key, each in found.items()}
    strong = {key for key, each in verdicts.items() if each.word == "strong"}
    assert strong == {("grokking", "modular-mlp-wd1"), ("digits", "digits-mlp-wd0.3")}
    assert {each.word for each in verdicts.values()} == {"strong", "none"}
    for run in found["grokking", "modular-mlp-wd1"]:
        assert run.final("test_accuracy") > 0.999
        assert run.final("test_variance_ratio") < 1.2 * run.final("train_nc1_trace_ratio")
    assert len(verdicts) == 7
    for run in found["mnist", "mnist-cnn-wd0.3"]:  # as close to the train means as the train features, which are not
        beyond_errors = run.final(collapse_verdict.STRONG) - run.final(collapse_verdict.FLOOR)
        assert 0.1 < beyond_errors < run.final("train_nc1_trace_ratio")
    along_b = found["grokking-mnist", "mnist-mlp-wd0.1"]
    assert 0.05 < verdicts["grokking-mnist", "mnist-mlp-wd0.1"].excess < 0.0502
    for run in along_b:
        assert run.final(collapse_verdict.FLOOR) > 0.8 * run.final(collapse_verdict.STRONG)
        assert run.final("train_nc1_trace_ratio") < 0.003


def test_what_collapse_costs_transfer() -> None:
    images, head = runs("limits-transfer", "cifar10"), f"probe_transfer/{HEAD}"
    name = "cifar10-resnet18-wd5e-4"
    for seed in SEEDS:
        baseline, more, less = (images[name + arm][seed] for arm in ("", "+ncc_encourage", "+ncc_prevent"))
        assert 0.01 < baseline.final(head) - more.final(head) < 0.035
        assert abs(baseline.final(head) - less.final(head)) < 0.01
        assert more.final("train_variance_ratio") < 0.03 < 1.4 < baseline.final("train_variance_ratio")
        assert baseline.final("probe_transfer/layer1.1") > baseline.final(head) + 0.02
    digits = runs("limits-transfer", "digits")
    for arm, least, most in (("", 0.46, 0.49), ("+ncc_prevent", 0.47, 0.66)):
        for run in digits["digits-mlp-wd0.3" + arm]:
            assert run.column(head).max() > 0.93
            assert least < run.final(head) < most


def test_all_statements_but_two_are_proved() -> None:
    found = [each.status for each in statements()]
    assert (found.count("proved"), found.count("open"), found.count("refuted")) == (len(found) - 2, 1, 1)
