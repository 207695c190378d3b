"""Every metric against its contract: laws obeyed, laws broken, exact collapse; and wrong metrics refuted by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.clouds import Cloud, clouds, random_cloud
from tests.contracts.laws import LAWS
from tests.contracts.metrics import (
    METRICS,
    Metric,
    check_collapse,
    check_definition,
    check_law,
    check_off_collapse,
    definition_of,
)
from tests.contracts.wrong_metrics import WRONG, Wrong, always_collapsed

SHARES_OF_SAMPLES = ("accuracy", "nc4", "nc4_about_reference")


# Rounding decides the last one's value, so it breaks every law.
SUBTLE = [w for w in WRONG if w.refuted_by == "definition" and w.metric.name != "every_direction"]
DRAWN = [random_cloud(seed, K=4, m=6) for seed in range(5)]


def refuted(check: Callable[..., None], metric: Metric, *args: Any, **options: Any) -> bool:
    """Whether a check of the contract fails on this metric."""
    try:
        check(metric, *args, **options)
    except AssertionError as error:
        return str(error).startswith(metric.name)
    return False


@pytest.mark.parametrize("law", LAWS)
@given(cloud=clouds(), seed=st.integers(0, 10_000))
def test_every_metric_obeys_its_laws(law: str, cloud: Cloud, seed: int) -> None:
    for metric in METRICS:
        if law not in metric.breaks:
            check_law(metric, law, cloud, seed)


@pytest.mark.parametrize(
    ("metric", "law"),
    [
        pytest.param(metric, law, id=f"{metric.name}-{law}")
        for law in LAWS
        for metric in METRICS
        if law in metric.breaks
    ],
)
def test_every_metric_breaks_the_laws_it_does_not_obey(metric: Metric, law: str) -> None:
    assert any(refuted(check_law, metric, law, cloud, 0) for cloud in DRAWN)


@pytest.mark.parametrize(
    ("K", "m", "gap", "radius", "gamma"),
    [
        (2, 1, 3.0, 1.3, 0.0),
        (3, 2, 0.5, 0.2, 0.0),
        (5, 9, 20.0, 4.0, 1.5),
        (10, 12, 4.0, 1.3, 30.0),
        (12, 11, 6.0, 1, 0),
    ],
)
def test_closed_forms_at_exact_collapse(K: int, m: int, gap: float, radius: float, gamma: float) -> None:
    for metric in METRICS:
        check_collapse(metric, K=K, m=m, gap=gap, radius=radius, gamma=gamma)


@pytest.mark.parametrize("noise", [1e-2, 1e-4])
def test_no_metric_takes_noise_for_collapse(noise: float) -> None:
    for metric in METRICS:
        if metric.definition not in SHARES_OF_SAMPLES:
            check_off_collapse(metric, K=5, m=7, noise=noise)
    assert refuted(check_off_collapse, always_collapsed, K=5, m=7, noise=noise)


@pytest.mark.parametrize("wrong", [pytest.param(w, id=f"{w.metric.name}-{w.refuted_by}") for w in WRONG])
def test_the_contract_refutes_a_wrong_metric(wrong: Wrong) -> None:
    metric, by = wrong.metric, wrong.refuted_by
    if by == "collapse":
        assert refuted(check_collapse, metric, K=5, m=9, gap=3.0, radius=1.3, gamma=1.5)
        return
    if by == "definition":
        assert any(refuted(check_definition, metric, cloud, definition_of(cloud)) for cloud in DRAWN)
    else:
        assert any(refuted(check_law, metric, by, cloud, 0) for cloud in DRAWN)


@pytest.mark.parametrize("wrong", [pytest.param(w, id=w.metric.name) for w in SUBTLE])
def test_what_only_the_definition_refutes_passes_the_easy_laws(wrong: Wrong) -> None:
    """Laws alone would not have found these: why the contract has an oracle as well."""
    for law in ("rotate", "permute_classes", "permute_samples", "repeat"):
        check_law(wrong.metric, law, DRAWN[0], 0)
