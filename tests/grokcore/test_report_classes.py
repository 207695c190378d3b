"""measure(classes=K): a head with more rows than classes, as one over a vocabulary."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grokcore import ClassMoments, Report, UsageError, collapse_report, measure
from tests.cases import random_head

WHOLE = ("loss", "accuracy", "kappa", "frobenius_surrogate", "head_norm")
OF_CLASSES = ("nc4", "logit_gap")


def vocabulary_head(seed: int = 0, *, rows: int = 9, K: int = 4, m: int = 6, n: int = 24, bias: bool = False) -> Model:
    """A model that is its head, float64, on features around class means, so that predictions are no guesses."""
    features, weight, offset, labels = random_head(seed, n=n, m=m, K=rows, bias=bias)
    labels = labels % K
    centres = torch.randn(K, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    head = nn.Linear(m, rows, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.weight[:K] += 0.5 * centres
        if bias:
            head.bias.copy_(offset)
    return nn.Sequential(nn.Identity(), head), features + centres[labels], labels


Model = tuple[nn.Sequential, Tensor, Tensor]


def cut(model: nn.Sequential, K: int) -> nn.Sequential:
    """The same with the classes' rows alone."""
    head = nn.Linear(model[1].in_features, K, bias=model[1].bias is not None, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(model[1].weight[:K])
        if head.bias is not None:
            head.bias.copy_(model[1].bias[:K])
    return nn.Sequential(nn.Identity(), head)


def in_words(model: nn.Sequential, features: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics of the whole softmax, sample by sample."""
    weight, bias = model[1].weight.detach(), model[1].bias
    sums = dict.fromkeys(WHOLE, 0.0)
    for h, y in zip(features, labels.tolist(), strict=True):
        logits = [float(row @ h) + (0.0 if bias is None else float(bias[k].detach())) for k, row in enumerate(weight)]
        masses = [math.exp(z) for z in logits]
        p = [mass / sum(masses) for mass in masses]
        mean = sum(q * row for q, row in zip(p, weight, strict=True))
        sums["loss"] -= math.log(p[y])
        sums["accuracy"] += logits.index(max(logits)) == y
        sums["kappa"] += float(h @ h) * sum(
            q * float((row - mean) @ (row - mean)) for q, row in zip(p, weight, strict=True)
        )
        sums["frobenius_surrogate"] += float(weight.square().sum()) * (1 - sum(q * q for q in p)) * float(h @ h)
    return {name: value / len(labels) for name, value in sums.items()} | {"head_norm": float(weight.norm())}


@given(seed=st.integers(0, 1000), K=st.integers(2, 5), more=st.integers(1, 6), bias=st.booleans(), parts=st.booleans())
def test_the_whole_softmax_and_the_classes_rows(seed: int, K: int, more: int, bias: bool, parts: bool) -> None:
    model, features, labels = vocabulary_head(seed, rows=K + more, K=K, bias=bias)
    size = 7 if parts else 24
    report = measure(model, zip(features.split(size), labels.split(size), strict=True), "1", classes=K)
    for name, value in in_words(model, features, labels).items():
        assert getattr(report, name) == pytest.approx(value, rel=1e-10), name
    alone = measure(cut(model, K), [(features, labels)], "1")
    for name in (*OF_CLASSES, "variance_ratio", "samples"):
        assert getattr(report, name) == pytest.approx(getattr(alone, name), rel=1e-10), name
    for name in alone.collapse.__dataclass_fields__:
        if name != "reasons":
            found, expected = getattr(report.collapse, name), getattr(alone.collapse, name)
            assert found == pytest.approx(expected, rel=1e-10, nan_ok=True), name
    assert report.collapse.reasons == alone.collapse.reasons


def test_the_other_rows_count_where_they_should_and_nowhere_else() -> None:
    model, features, labels = vocabulary_head()
    whole = measure(model, [(features, labels)], "1", classes=4)
    alone = measure(cut(model, 4), [(features, labels)], "1")
    assert whole.loss > alone.loss + 0.01
    assert whole.accuracy < alone.accuracy
    for name in ("kappa", "frobenius_surrogate", "head_norm"):
        assert getattr(whole, name) != pytest.approx(getattr(alone, name), rel=0.01), name
    louder = copy.deepcopy(model)
    with torch.no_grad():
        louder[1].weight[4:] *= 3
    moved = measure(louder, [(features, labels)], "1", classes=4)
    assert moved.kappa != pytest.approx(whole.kappa, rel=0.01)
    assert moved.accuracy < whole.accuracy
    for name in OF_CLASSES:
        assert getattr(moved, name) == pytest.approx(getattr(whole, name), rel=1e-12), name
    assert moved.collapse == whole.collapse
    # A head of more rows without `classes` has classes without samples.
    plain = measure(model, [(features, labels)], "1")
    assert "class 4" in plain.reasons["nc4"]
    assert (plain.loss, plain.kappa) == (whole.loss, whole.kappa)
    assert plain.logit_gap != pytest.approx(whole.logit_gap, rel=0.01)


@pytest.mark.parametrize("keep", [2**30, 1])
def test_as_without_it_where_every_row_is_a_class(keep: int) -> None:
    """Whether the features are kept or read a second time."""
    model, features, labels = vocabulary_head(rows=4)
    batches = [(features[:9], labels[:9]), (features[9:], labels[9:])]
    plain, named = (measure(model, batches, "1", keep_bytes=keep, classes=K) for K in (None, 4))
    assert named.to_dict() == plain.to_dict()
    wide, *_ = vocabulary_head()
    again, kept = (measure(wide, batches, "1", keep_bytes=b, classes=4) for b in (keep, 2**30))
    assert again.nc4 == kept.nc4
    assert math.isfinite(again.nc4)


def test_fewer_features_than_a_simplex_takes() -> None:
    """As the published head's 128 features for 239 rows: what has no simplex says so, the classes' may have one."""
    model, features, labels = vocabulary_head(rows=9, K=5, m=3)
    report = measure(model, [(features, labels)], "1", classes=5)
    for name in ("nc2_equiangle", "nc2_etf", "nc3_duality"):
        assert math.isnan(getattr(report.collapse, name)), name
        assert report.collapse.reasons[name] == "3 features hold no simplex of 5 classes"
    assert math.isfinite(report.collapse.nc1_papyan)
    # Nine rows on six features hold none, their four classes do.
    model, features, labels = vocabulary_head(rows=9, K=4, m=6)
    report = measure(model, [(features, labels)], "1", classes=4)
    assert not report.collapse.reasons
    moments = ClassMoments(4, 6).update(features, labels)
    assert report.collapse.nc3_duality == pytest.approx(
        collapse_report(moments, model[1].weight[:4].detach()).nc3_duality, rel=1e-12
    )


def test_a_reference_of_the_same_classes() -> None:
    model, features, labels = vocabulary_head(n=48)
    train = measure(model, [(features[:24], labels[:24])], "1", classes=4)
    test = measure(model, [(features[24:], labels[24:])], "1", classes=4, reference=train)
    alone = cut(model, 4)
    expected = measure(alone, [(features[24:], labels[24:])], "1", reference=train)
    assert (test.nc4, test.variance_ratio) == (expected.nc4, expected.variance_ratio)
    own = measure(model, [(features[24:], labels[24:])], "1", classes=4)
    assert own.variance_ratio != pytest.approx(test.variance_ratio, rel=0.01)


def fails(words: str, classes: int | None, reference: Report | ClassMoments | None = None, shift: int = 0) -> None:
    model, features, labels = vocabulary_head()
    with pytest.raises(UsageError, match=words):
        measure(model, [(features, labels + shift)], "1", classes=classes, reference=reference)


def test_bad_classes() -> None:
    fails(r"outside \[0, 4\)", 4, shift=1)
    fails(r"outside \[0, 4\)", 4, shift=-1)
    fails("between 2 and the head's 9 rows, got 10", 10)
    fails("between 2 and the head's 9 rows, got 1", 1)
    fails("between 2 and the head's 9 rows, got 0", 0)
    fails("between 2 and the head's 9 rows, got -3", -3)
    model, features, labels = vocabulary_head()
    of_all_rows = measure(model, [(features, labels)], "1")
    fails(r"the reference has 9 classes of 6 features", 4, of_all_rows)
    fails(r"the reference has 4 classes of 6 features", None, measure(model, [(features, labels)], "1", classes=4))
    measure(model, [(features, labels)], "1", classes=4, reference=ClassMoments(4, 6).update(features, labels))
