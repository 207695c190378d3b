"""Linear probes: against scikit-learn by hand, against ceilings, and what they must not see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info
from torch import Tensor

from grokcore import NonFiniteError, UsageError, linear_probe, transfer_ceiling
from grokcore.probing import _held_out


def gaussians(n: int, seed: int, *, apart: float = 1.0, m: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = apart * torch.randn(4, m, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % 4
    return means[labels] + torch.randn(n, m, generator=generator), labels


def test_is_a_logistic_regression_of_standardised_features() -> None:
    (x, y), (test_x, test_y) = gaussians(120, 0), gaussians(400, 1)
    found = linear_probe(x * 1e3 + 7, y, test_x * 1e3 + 7, test_y, strengths=(0.01,))
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    model = LogisticRegression(C=0.01, tol=1e-8, max_iter=5_000).fit(((x - mean) / deviation).numpy(), y.numpy())
    assert found.accuracy == pytest.approx(model.score(((test_x - mean) / deviation).numpy(), test_y.numpy()), abs=3e-3)
    assert 0.5 < found.accuracy < 0.999
    assert found.converged
    assert found.strength == 0.01


def test_the_strength_is_chosen_on_held_out_samples_alone() -> None:
    """Many useless features and few samples want a strong penalty; the test labels have no say."""
    x, y = gaussians(60, 0, m=60, apart=0.4)
    test_x, test_y = gaussians(400, 1, m=60, apart=0.4)
    found = linear_probe(x, y, test_x, test_y)
    assert found.strength < 1.0
    assert found.accuracy > 0.5
    assert found.accuracy > linear_probe(x, y, test_x, test_y, strengths=(100.0,)).accuracy - 0.01
    shuffled = linear_probe(x, y, test_x, test_y[torch.randperm(400, generator=torch.Generator().manual_seed(0))])
    assert (shuffled.strength, shuffled.held_out_accuracy) == (found.strength, found.held_out_accuracy)
    assert shuffled.accuracy < 0.4
    assert linear_probe(x, y, test_x, test_y) == found  # repeats


def test_each_class_is_held_out_in_part() -> None:
    y = np.array([0] * 10 + [1] * 2 + [2] * 100)
    chosen = _held_out(y, 0.2, np.random.default_rng(0))
    assert [int(chosen[y == label].sum()) for label in range(3)] == [2, 1, 20]
    assert chosen.sum() < len(y)


def test_no_probe_passes_the_ceiling_of_exact_collapse() -> None:
    """Theory F3: features on two vertices, ten fine classes; and any trace of them, however small, has no ceiling."""
    fine = torch.arange(400) % 10
    vertices = torch.tensor([[1.0, 5.0, 0.0, 0.0], [-1.0, 5.0, 2.0, 0.0]])[fine % 2]
    ceiling = transfer_ceiling(torch.bincount(fine), [label % 2 for label in range(10)])
    collapsed = linear_probe(vertices, fine, vertices, fine)
    assert collapsed.fitted_accuracy == pytest.approx(ceiling) == 0.2
    trace = torch.zeros(400, 10)
    trace[torch.arange(400), fine] = 1e-5
    assert (
        linear_probe(torch.cat([vertices, trace], dim=1), fine, torch.cat([vertices, trace], dim=1), fine).accuracy == 1
    )


def good() -> dict[str, Any]:
    x, y = gaussians(20, 0)
    return {"features": x, "labels": y, "test_features": x, "test_labels": y}


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"features": torch.randn(20)}, UsageError, r"\(n, m\)"),
        ({"test_features": torch.randn(20, 5)}, UsageError, r"\(t, m\)"),
        ({"labels": torch.zeros(19, dtype=torch.int64)}, UsageError, "a label for each"),
        ({"labels": torch.zeros(20, dtype=torch.int64)}, UsageError, "two classes"),
        ({"labels": torch.arange(20)}, UsageError, "two samples"),
        ({"features": torch.full((20, 6), math.nan)}, NonFiniteError, "NaN"),
        ({"strengths": ()}, UsageError, "positive"),
        ({"strengths": (0.0,)}, UsageError, "positive"),
        ({"held_out": 1.0}, UsageError, "held_out"),
    ],
)
def test_refusals(wrong: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        linear_probe(**good() | wrong)


def test_it_keeps_to_pytorchs_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the probes of runs side by side, one a core, wait for each other."""
    seen: list[int] = []
    fit = LogisticRegression.fit

    def watched(*args: Any) -> Any:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(*args)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    threads, features, labels = torch.get_num_threads(), torch.randn(40, 3), torch.arange(40) % 2
    torch.set_num_threads(1)
    try:
        linear_probe(features, labels, features, labels)
    finally:
        torch.set_num_threads(threads)
    assert seen
    assert set(seen) == {1}
