"""ClassMoments: against a direct computation, under splits, merges, offsets and bad input."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore import ClassMoments, NonFiniteError
from tests.cases import random_head


def direct(features: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means (K, m), within sums (K,) and scatters (K, m, m), class by class."""
    means, within, scatters = [], [], []
    for c in range(K):
        rows = features[labels == c].double()
        centred = rows - rows.mean(0)
        means.append(rows.mean(0))
        within.append(centred.square().sum())
        scatters.append(centred.T @ centred)
    return torch.stack(means), torch.stack(within), torch.stack(scatters)


@pytest.mark.parametrize("scatter", ["pooled", "per_class"])
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 40), max_size=4), offset=st.sampled_from([0.0, 1e4]))
@settings(max_examples=25, deadline=None)
def test_any_split_gives_the_direct_answer(scatter: str, seed: int, cuts: list[int], offset: float) -> None:
    features, _, _, labels = random_head(seed, n=40, m=6, K=4, offset=offset)
    bounds = [0, *sorted(cuts), 40]
    streamed = ClassMoments(4, 6, scatter=scatter)
    parts = []
    for low, high in pairwise(bounds):
        streamed.update(features[low:high], labels[low:high])
        parts.append(ClassMoments(4, 6, scatter=scatter).update(features[low:high], labels[low:high]))
    merged = parts[0]
    for part in parts[1:]:
        assert merged.merge(part) is merged
    means, within, scatters = direct(features, labels, 4)
    for moments in (streamed, merged):
        torch.testing.assert_close(moments.means, means, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(moments.within, within, rtol=1e-9, atol=1e-12)
        wanted = scatters.sum(0) if scatter == "pooled" else scatters
        torch.testing.assert_close(moments.scatter_sum, wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(moments.norm_max, features.norm(dim=1).max())
        assert moments.total == 40


def test_offset_that_defeats_a_one_pass_variance() -> None:
    """float32 features at offset 1e4: the sum-of-squares formula is far off, these moments are not."""
    features, _, _, labels = random_head(0, n=400, m=8, K=4)
    shifted = (features + 1e4).float()
    moments = ClassMoments(4, 8).update(shifted, labels)
    _, within, _ = direct(shifted, labels, 4)
    torch.testing.assert_close(moments.within, within, rtol=1e-10, atol=0)
    rows = shifted[labels == 0]
    naive = float(rows.square().sum() - len(rows) * rows.mean(0).square().sum())
    assert abs(naive - float(within[0])) > 0.5 * float(within[0])


def test_per_class_scatters_sum_to_the_pooled_one() -> None:
    features, _, _, labels = random_head(1, n=30, m=5, K=3)
    pooled = ClassMoments(3, 5).update(features, labels)
    split = ClassMoments(3, 5, scatter="per_class").update(features, labels)
    torch.testing.assert_close(split.within_covariance(), pooled.within_covariance())


def test_bad_input_leaves_the_moments_alone() -> None:
    features, _, _, labels = random_head(2, n=20, m=5, K=3)
    moments = ClassMoments(3, 5).update(features, labels)
    before = moments.means.clone()
    broken = features.clone()
    broken[3, 2] = float("nan")
    with pytest.raises(NonFiniteError):
        moments.update(broken, labels)
    with pytest.raises(ValueError, match="outside"):
        moments.update(features, labels + 1)
    with pytest.raises(ValueError, match="outside"):
        moments.update(features, labels - 1)
    with pytest.raises(ValueError, match="same classes"):
        moments.merge(ClassMoments(3, 4))
    assert torch.equal(moments.means, before)
    assert moments.total == 20


def test_absent_classes_are_listed_and_an_empty_batch_is_nothing() -> None:
    moments = ClassMoments(4, 2)
    moments.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert moments.absent == [0, 1, 2, 3]
    moments.update(torch.ones(2, 2), torch.tensor([1, 3]))
    assert moments.absent == [0, 2]
