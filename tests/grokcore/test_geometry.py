"""ClassMoments: against a direct computation, under splits, merges, offsets and bad input."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore import ClassMoments, NonFiniteError
from grokcore.geometry import _piece_ends
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


def test_exact_collapse_has_no_scatter_at_all() -> None:
    """Means of 1/3 and offsets of 1e6 round; the differences from the first sample are 0 all the same."""
    rows = torch.tensor([[1 / 3, 1e6], [-0.1, 7.0]], dtype=torch.float64)
    labels = torch.arange(2).repeat(500)
    moments = ClassMoments(2, 2).update(rows[labels], labels)
    assert torch.equal(moments.within, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(moments.scatter_sum, torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(moments.means, rows)


@pytest.mark.parametrize("scatter", ["pooled", "per_class"])
def test_a_far_first_sample_costs_few_digits(scatter: str) -> None:
    """The worst reference: the class's only outlier, 1e6 away, comes first; long batches are cut inside."""
    features, _, _, labels = random_head(3, n=4000, m=5, K=2)
    first = int(torch.nonzero(labels == 1)[0])
    features[first] += 1e6
    moments = ClassMoments(2, 5, scatter=scatter).update(features, labels)
    _, within, scatters = direct(features, labels, 2)
    torch.testing.assert_close(moments.within, within, rtol=1e-11, atol=0)
    wanted = scatters.sum(0) if scatter == "pooled" else scatters
    torch.testing.assert_close(moments.scatter_sum, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("scatter", ["pooled", "per_class", "trace"])
def test_merging_moments_with_other_references(scatter: str) -> None:
    """Each part saw another first sample, some classes only one part; a part merged with itself counts twice."""
    features, _, _, labels = random_head(4, n=60, m=7, K=5, offset=100.0)
    order = labels.argsort()
    features, labels = features[order], labels[order]
    whole = ClassMoments(5, 7, scatter=scatter).update(features, labels)
    parts = [ClassMoments(5, 7, scatter=scatter).update(features[i], labels[i]) for i in torch.arange(60).split(13)]
    merged = ClassMoments(5, 7, scatter=scatter)
    for part in reversed(parts):
        before = part.means
        merged.merge(part)
        assert torch.equal(part.means, before)
    twice = ClassMoments(5, 7, scatter=scatter).merge(whole)
    twice.merge(twice)
    for found, factor in ((merged, 1), (twice, 2)):
        torch.testing.assert_close(found.means, whole.means, rtol=1e-13, atol=0)
        torch.testing.assert_close(found.within, factor * whole.within, rtol=1e-11, atol=0)
        torch.testing.assert_close(found.counts, factor * whole.counts)
        if scatter != "trace":
            torch.testing.assert_close(found.scatter_sum, factor * whole.scatter_sum, rtol=1e-11, atol=1e-10)


def test_traces_alone_keep_no_scatter() -> None:
    features, _, _, labels = random_head(5, n=40, m=6, K=4)
    moments = ClassMoments(4, 6, scatter="trace").update(features, labels)
    torch.testing.assert_close(moments.within, ClassMoments(4, 6).update(features, labels).within)
    with pytest.raises(ValueError, match="keep no scatter"):
        moments.within_covariance()
    with pytest.raises(ValueError, match="same classes"):
        moments.merge(ClassMoments(4, 6))


def test_pieces_grow_no_faster_than_references_can_follow() -> None:
    """Between pieces alone the references leave an outlier that came first: eight times as many samples at most."""
    for samples, seen, classes, rows in (
        (100_000, 0, 2, 87_381),
        (5_000, 17, 4, 256),
        (3, 0, 10, 256),
        (10**6, 1, 3, 10**5),
    ):
        ends = _piece_ends(samples, seen, classes, rows)
        assert (ends[0], ends[-1]) == (0, samples)
        for start, stop in pairwise(ends):
            assert 0 < stop - start <= rows
            assert seen + stop <= 8 * max(classes, seen + start)
        assert len(ends) <= samples / rows + 9  # and not so slowly that it would cost
