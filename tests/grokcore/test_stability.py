"""flatness_sandwich: 50 digits by the definitions, corners by enumeration, laws, limits and refusals."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from grokcore import NonFiniteError, UsageError, measure, relative_flatness
from grokcore.stability import FlatnessSandwich, Sides, flatness_sandwich, least_impurity, log_impurity
from tests.cases import collapsed, orthogonal, random_head
from theory.formulas import kappa_at_collapse, softmax_impurity
from theory.numeric.configurations import generator_of, normal, rows

seeds = st.integers(0, 10_000)
PAIRS = ("exponential", "extremal", "losses", "outputs")


def pairs_of(found: FlatnessSandwich) -> list[Sides]:
    return [getattr(found, name) for name in PAIRS]


def impurity(masses: list[mpmath.mpf]) -> mpmath.mpf:
    total = mpmath.fsum(masses)
    return 2 * mpmath.fsum(x * y for x, y in itertools.combinations(masses, 2)) / total**2


def by_definition(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, gap: float) -> FlatnessSandwich:
    """Every field from its definition, sample by sample and pair by pair, in 50 digits; extrema over all corners."""
    with mpmath.workdps(50):
        H, W, b = ([[mpmath.mpf(x) for x in row] for row in t.tolist()] for t in (features, weight, bias[None]))
        n, K = len(H), len(W)
        D = [[mpmath.fsum((x - y) ** 2 for x, y in zip(r, s, strict=True)) for s in W] for r in W]
        low, high = (f(D[s][t] for s, t in itertools.combinations(range(K), 2)) for f in (min, max))
        U = impurity([mpmath.exp(gap), *[mpmath.mpf(1)] * (K - 1)])
        sums = {name: [mpmath.mpf(0)] * 2 for name in PAIRS}
        kappa = spread = mpmath.mpf(0)
        for h, y in zip(H, labels.tolist(), strict=True):
            z = [mpmath.fsum(x * w for x, w in zip(h, row, strict=True)) + c for row, c in zip(W, b[0], strict=True)]
            p = [mpmath.exp(value - max(z)) for value in z]
            p = [value / mpmath.fsum(p) for value in p]
            norm = mpmath.fsum(x * x for x in h)
            deviation = [value - (gap if s == y else 0) for s, value in enumerate(z)]
            omega = max(deviation) - min(deviation)
            corners = itertools.product((mpmath.mpf(1), mpmath.exp(omega)), repeat=K)
            least = min(impurity([mpmath.exp(gap) * c[0], *c[1:]]) for c in corners)
            nearest = gap - max(-omega, min(omega, gap))
            most = impurity([mpmath.exp(nearest), *[mpmath.mpf(1)] * (K - 1)])
            x = mpmath.fsum(p[s] for s in range(K) if s != y)
            others = [D[y][t] for t in range(K) if t != y]
            rest = high / 2 * mpmath.mpf(K - 2) / (K - 1) * x * x
            sides = {
                "exponential": (low / 2 * U * mpmath.exp(-omega), high / 2 * U * mpmath.exp(omega)),
                "extremal": (low / 2 * least, high / 2 * most),
                "losses": (min(others) * x * p[y], max(others) * x * p[y] + rest),
                "outputs": (low / 2 * impurity(p), high / 2 * impurity(p)),
            }
            for name, both in sides.items():
                sums[name] = [total + norm * side / n for total, side in zip(sums[name], both, strict=True)]
            kappa += norm * mpmath.fsum(p[s] * p[t] * D[s][t] for s, t in itertools.combinations(range(K), 2)) / n
            spread += omega / n
        made = {name: Sides(*map(float, both)) for name, both in sums.items()}
        return FlatnessSandwich(
            float(kappa), gap, float(spread), float(mpmath.sqrt(low)), float(mpmath.sqrt(high)), **made
        )


@pytest.mark.parametrize("K", [2, 3, 5])
@pytest.mark.parametrize("gap", [-2.0, 0.0, 0.3, 6.0])
@pytest.mark.parametrize("scale", [0.3, 3.0, 40.0])
def test_every_field_by_its_definition(K: int, gap: float, scale: float) -> None:
    """Logits up to some hundreds, so exponentials of every size."""
    features, weight, bias, labels = random_head(K, n=5, m=3, K=K)
    assert bias is not None
    found = flatness_sandwich(features, labels, scale * weight, bias, gap=gap)
    expected = by_definition(features, labels, scale * weight, bias, gap)
    for name, value, right in zip(found._fields, found, expected, strict=True):
        assert value == pytest.approx(right, rel=1e-9, abs=1e-300), name


@given(seed=seeds, K=st.integers(2, 7), scale=st.floats(0.02, 30), gap=st.one_of(st.none(), st.floats(-20, 60)))
def test_brackets_kappa(seed: int, K: int, scale: float, gap: float | None) -> None:
    features, weight, bias, labels = random_head(seed, K=K)
    found = flatness_sandwich(features, labels, scale * weight, bias, gap=gap)
    assert found.kappa == pytest.approx(float(relative_flatness(features, scale * weight, bias)), rel=1e-12)
    for lower, upper in pairs_of(found):
        assert 0 <= lower <= found.kappa * (1 + 1e-9)
        assert found.kappa <= upper * (1 + 1e-9)
    assert found.exponential.lower <= found.extremal.lower * (1 + 1e-9)
    assert found.extremal.upper <= found.exponential.upper * (1 + 1e-9)
    assert found.outputs.upper <= found.extremal.upper * (1 + 1e-9)
    assert found.extremal.lower <= found.outputs.lower * (1 + 1e-9)


@given(K=st.integers(2, 8), gap=st.floats(0.5, 300), gamma=st.floats(0.1, 2))
def test_all_meet_at_collapse(K: int, gap: float, gamma: float) -> None:
    """To the rounding of the logits, also where the loss is 1e-130; only the losses leave (1 - x) open below."""
    features, weight, bias, labels = collapsed(3, K=K, m=K, gap=gap, gamma=gamma)
    found = flatness_sandwich(features, labels, weight, bias)
    expected = float(kappa_at_collapse(gap, K, gamma))
    assert found.gap == pytest.approx(gap, rel=1e-12)
    assert found.oscillation < 1e-11
    for lower, upper in (found.exponential, found.extremal, found.outputs):
        assert (lower, upper) == pytest.approx((expected, expected), rel=1e-9)
    assert found.losses.upper == pytest.approx(expected, rel=1e-9)
    wrong = -math.expm1(-math.log1p((K - 1) * math.exp(-gap)))
    assert found.losses.lower == pytest.approx(expected / (1 + (K - 2) / (2 * (K - 1)) * wrong / (1 - wrong)), rel=1e-9)


@given(seed=seeds, shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_invariance(seed: int, shift: float, scale: float) -> None:
    """W -> W + 1 v^T, (aW, h/a), a rotation, and the order of samples and of classes change nothing."""
    features, weight, bias, labels = random_head(seed)
    assert bias is not None
    m, K, A = features.shape[1], len(weight), orthogonal(seed, features.shape[1])
    found = flatness_sandwich(features, labels, weight, bias, gap=2.0)
    order, classes = torch.randperm(len(labels), generator=generator_of(seed)), torch.arange(K).flip(0)
    moved = {
        "shift": (features, labels, weight + shift * normal(generator_of(seed), m), bias),
        "scale": (features / scale, labels, scale * weight, bias),
        "rotation": (features @ A.T, labels, weight @ A.T, bias),
        "samples": (features[order], labels[order], weight, bias),
        "classes": (features, K - 1 - labels, weight[classes], bias[classes]),
    }
    for name, arguments in moved.items():
        again = flatness_sandwich(*arguments, gap=2.0)
        assert again.kappa == pytest.approx(found.kappa, rel=1e-8), name
        for pair, before in zip(pairs_of(again), pairs_of(found), strict=True):
            assert pair == pytest.approx(before, rel=1e-8), name


@given(K=st.integers(2, 7), gap=st.floats(-8, 40), omega=st.floats(0, 30))
def test_least_impurity_over_all_corners(K: int, gap: float, omega: float) -> None:
    with mpmath.workdps(40):
        low, high = mpmath.mpf(1), mpmath.exp(omega)
        exact = min(
            impurity([true * mpmath.exp(gap), *[high] * j, *[low] * (K - 1 - j)])
            for true in (low, high)
            for j in range(K)
        )
    found = least_impurity(gap, torch.tensor([omega], dtype=torch.float64), K)
    assert float(found) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("gap", [-2000.0, -800.0, -5.0, 0.0, 5.0, 800.0])
@pytest.mark.parametrize("omega", [0.0, 1e-12, 1.0, 700.0, 900.0, 5000.0])
@pytest.mark.parametrize("K", [2, 3, 9])
def test_least_impurity_at_extreme_numbers(gap: float, omega: float, K: int) -> None:
    with mpmath.workdps(40):
        corners = itertools.product((0.0, omega), range(K))
        raised = [[gap + up, *[omega] * j, *[0.0] * (K - 1 - j)] for up, j in corners]
        exact = min(impurity([mpmath.exp(value) for value in z]) for z in raised)
    found = least_impurity(gap, torch.tensor([omega], dtype=torch.float64), K)
    assert float(found) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@given(K=st.integers(2, 6), gap=st.floats(-6, 20), omega=st.floats(0, 10), seed=seeds)
def test_no_logits_within_the_oscillation_are_surer(K: int, gap: float, omega: float, seed: int) -> None:
    inside = omega * torch.rand(200, K, generator=generator_of(seed), dtype=torch.float64)
    inside[:, 0] += gap
    p = torch.softmax(inside, dim=1)
    U = (p * (1 - p)).sum(dim=1)
    least = float(least_impurity(gap, torch.tensor([omega], dtype=torch.float64), K))
    assert least <= float(U.min()) * (1 + 1e-9) + 1e-15


@pytest.mark.parametrize("K", [2, 3, 10, 1000])
def test_log_impurity(K: int) -> None:
    gaps = torch.tensor([-800.0, -30.0, -1.0, 0.0, 0.5, 30.0, 700.0, 5000.0], dtype=torch.float64)
    found = log_impurity(gaps, K)
    with mpmath.workdps(50):
        for gap, value in zip(gaps.tolist(), found.tolist(), strict=True):
            q = mpmath.exp(-gap)
            exact = mpmath.log((K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2)
            assert value == pytest.approx(float(exact), rel=1e-13, abs=1e-13)
    assert found[2:6].exp().numpy() == pytest.approx(softmax_impurity(gaps[2:6].numpy(), K), rel=1e-12)


def test_gap_is_that_of_measure() -> None:
    features, weight, bias, labels = random_head(4, n=20)
    assert bias is not None
    model = nn.Sequential(nn.Linear(7, 5, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.copy_(weight)
        model[0].bias.copy_(bias)
    report = measure(model, [(features, labels)], "0")
    found = flatness_sandwich(features, labels, weight, bias)
    assert found.gap == pytest.approx(report.logit_gap, rel=1e-12)
    assert found.kappa == pytest.approx(report.kappa, rel=1e-12)


def test_single_precision_and_no_bias() -> None:
    features, weight, _, labels = random_head(5, bias=False)
    narrow = flatness_sandwich(features.float(), labels.int(), weight.float())
    wide = flatness_sandwich(features.float().double(), labels, weight.float().double(), torch.zeros(5))
    assert narrow == wide


def test_no_gradient_and_no_argument_changed() -> None:
    features, weight, bias, labels = random_head(6)
    before = features.clone(), weight.clone()
    found = flatness_sandwich(features.requires_grad_(), labels, weight.requires_grad_(), bias)
    assert isinstance(found.kappa, float)
    assert torch.equal(features.detach(), before[0])
    assert torch.equal(weight.detach(), before[1])


def test_bounds_beyond_float64_are_infinite_and_the_others_stay() -> None:
    """A sample 2,000 nats on the wrong side: only e^omega has no number."""
    features, weight = torch.tensor([[-1000.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    found = flatness_sandwich(features, torch.tensor([0]), weight, gap=10.0)
    assert found.exponential == (0.0, math.inf)
    assert found.extremal.upper == pytest.approx(1e6 * 2 * 0.5)
    assert found.losses == (0.0, 0.0) == tuple(found.outputs)  # e^-2000 is below the least float64 number


def test_a_feature_of_zero_adds_nothing_however_far_its_logits() -> None:
    features, weight = torch.tensor([[0.0], [3.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    bias = torch.tensor([0.0, 5000.0]).double()
    found = flatness_sandwich(features, torch.tensor([0, 1]), weight, bias, gap=5.0)
    assert not any(math.isnan(side) for pair in pairs_of(found) for side in pair)
    assert math.isfinite(flatness_sandwich(features[:1], torch.tensor([0]), weight, bias, gap=5.0).exponential.upper)


def test_finite_bounds_of_infinite_exponentials_stay() -> None:
    """e^800 has no number; 10^-300 e^800 has, by a short feature or by rows that are close."""
    bias, label = torch.tensor([0.0, 800.0]).double(), torch.tensor([0])
    for h, row in ((1e-150, 1.0), (1.0, 1e-150)):
        weight = rows([row], [-row])
        upper = flatness_sandwich(rows([h]), label, weight, bias, gap=0.0).exponential.upper
        with mpmath.workdps(40):
            assert upper == pytest.approx(float(mpmath.exp(800) / mpmath.mpf(10) ** 300), rel=1e-9)
    equal = flatness_sandwich(torch.ones(1, 2).double(), label, torch.ones(2, 2).double(), 5 * bias, gap=1.0)
    assert all(pair == (0.0, 0.0) for pair in pairs_of(equal))


@pytest.mark.parametrize(("h", "row"), [(1e200, 1e200), (1e160, 1e-160), (1e-170, 1e170)])
def test_squares_beyond_float64_are_refused(h: float, row: float) -> None:
    with pytest.raises(NonFiniteError, match="exceed float64"):
        flatness_sandwich(rows([h]), torch.tensor([0]), rows([row], [-row]))


def test_equal_rows_and_an_absent_class() -> None:
    features, weight, _, _ = random_head(7)
    weight[1] = weight[0]
    found = flatness_sandwich(features, torch.zeros(12, dtype=torch.int64), weight)
    assert found.nearest == 0.0
    assert found.exponential.lower == found.outputs.lower == found.losses.lower == 0.0
    assert found.kappa > 0


@pytest.mark.usefixtures("no_shape_checks")
def test_refusals() -> None:
    features, weight, bias, labels = random_head(8)
    assert bias is not None
    for arguments in (
        (features[:0], labels[:0], weight),
        (features, labels[:-1], weight),
        (features[:, :-1], labels, weight),
        (features, labels, weight, bias[:-1]),
        (features, labels, weight[:1]),
        (features, labels + 5, weight),
        (features, labels - 1, weight),
        (features, labels.double(), weight),
    ):
        with pytest.raises(UsageError):
            flatness_sandwich(*arguments)
    broken = features.clone()
    broken[0, 0] = math.nan
    with pytest.raises(NonFiniteError):
        flatness_sandwich(broken, labels, weight)
    with pytest.raises(NonFiniteError):
        flatness_sandwich(features, labels, weight, gap=math.inf)
