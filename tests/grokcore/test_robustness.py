"""finite_robustness_bound against its definition in mpmath, sample by sample, and at the ends of float64."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grokcore import NonFiniteError, UsageError, relative_flatness
from grokcore.robustness import RobustnessBound, finite_robustness_bound
from tests.cases import TOLERANCE, collapsed, orthogonal, random_head


def in_mpmath(
    features: Tensor, weight: Tensor, bias: Tensor | None, size: float, *, noise: bool = False
) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Both bounds with 60 digits and no vector operation but sums; of `noise`, `size` is in the features' units."""
    with mpmath.workdps(60):
        rows = [[mpmath.mpf(x) for x in row] for row in weight.double().tolist()]
        offsets = [mpmath.mpf(0)] * len(rows) if bias is None else [mpmath.mpf(x) for x in bias.double().tolist()]
        d, width, logs, leading, largest = mpmath.mpf(size), len(rows[0]), [], [], mpmath.mpf(0)
        for sample in features.double().tolist():
            h = [mpmath.mpf(x) for x in sample]
            logits = [mpmath.fdot(row, h) + b for row, b in zip(rows, offsets, strict=True)]
            masses = [mpmath.exp(z - max(logits)) for z in logits]
            p = [mass / mpmath.fsum(masses) for mass in masses]
            mean = [mpmath.fdot(p, column) for column in zip(*rows, strict=True)]
            scale = d**2 / 2 if noise else d**2 * mpmath.fdot(h, h) / (2 * width)
            x = [scale * mpmath.fsum((a - b) ** 2 for a, b in zip(row, mean, strict=True)) for row in rows]
            logs.append(mpmath.log1p(mpmath.fsum(q * mpmath.expm1(e) for q, e in zip(p, x, strict=True))))
            leading.append(mpmath.fdot(p, x))
            largest = max(largest, *x)
        n = len(logs)
        factor = mpmath.expm1(largest) / largest if largest else mpmath.mpf(1)
        return mpmath.fsum(logs) / n, mpmath.fsum(leading) / n * factor


def close(found: RobustnessBound, expected: tuple[mpmath.mpf, mpmath.mpf], rel: float = 1e-10) -> None:
    for value, exact in zip(found, expected, strict=True):
        assert value == pytest.approx(float(exact), rel=rel, abs=0)


@given(seed=st.integers(0, 10_000), K=st.integers(1, 5), m=st.integers(1, 4), size=st.floats(1e-6, 4))
def test_is_its_definition(seed: int, K: int, m: int, size: float) -> None:
    features, weight, bias, _ = random_head(seed, n=3, m=m, K=K)
    found = finite_robustness_bound(features, weight, bias, size=size)
    close(found, in_mpmath(features, weight, bias, size))
    assert found.exponential <= found.flatness * (1 + 1e-12)


@given(seed=st.integers(0, 10_000), K=st.integers(1, 5), m=st.integers(1, 4), noise=st.floats(1e-6, 4))
def test_of_noise_is_its_definition(seed: int, K: int, m: int, noise: float) -> None:
    features, weight, bias, _ = random_head(seed, n=3, m=m, K=K)
    found = finite_robustness_bound(features, weight, bias, noise=noise)
    close(found, in_mpmath(features, weight, bias, noise, noise=True))
    assert found.exponential <= found.flatness * (1 + 1e-12)


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_noise_raises_the_loss_by_less(noise: float) -> None:
    """E log E_{s ~ p} exp(sigma <w_s - w, z>) of two classes by Gauss-Hermite quadrature, a rise below both bounds and
    above that of a smaller noise's bound."""
    features, weight = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[1.5, 0.0], [-1.5, 0.0]]).double()
    nodes, masses = np.polynomial.hermite_e.hermegauss(200)
    rise = masses @ np.logaddexp(0, -(3 + 3 * noise * nodes)) / math.sqrt(2 * math.pi) - np.logaddexp(0, -3)
    found = finite_robustness_bound(features, weight, noise=noise)
    assert 0 < rise < found.exponential < found.flatness
    assert rise > finite_robustness_bound(features, weight, noise=noise / 3).exponential


def test_by_hand() -> None:
    """One sample, p = 1/2 each, rows +-1, h = 2: X = 4 d^2/2 for both, so both bounds are 2 d^2 and e^(2 d^2) - 1."""
    features, weight = torch.tensor([[2.0]]), torch.tensor([[1.0], [-1.0]])
    found = finite_robustness_bound(features, weight, torch.tensor([-2.0, 2.0]), size=0.5)
    assert found.exponential == pytest.approx(0.5)
    assert found.flatness == pytest.approx(math.expm1(0.5))


@pytest.mark.parametrize("gap", [0.5, 20.0, 60.0, 300.0, 700.0])
@pytest.mark.parametrize("size", [1e-4, 0.1, 1.0])
def test_sure_heads_keep_their_digits(gap: float, size: float) -> None:
    features, weight, bias, _ = collapsed(0, K=4, m=5, gap=gap, gamma=0.6)
    expected = in_mpmath(features, weight, bias, size)
    found = finite_robustness_bound(features, weight, bias, size=size)
    # The logits' own rounding is gap * 1e-16 in the exponent; e^X multiplies that of X.
    largest = (size * gap) ** 2
    for value, exact in zip(found, expected, strict=True):
        if exact > mpmath.mpf("1e308"):
            assert value == math.inf
        else:
            assert value == pytest.approx(float(exact), rel=1e-13 * (10 + gap + largest))
            assert value > 0


@given(seed=st.integers(0, 10_000))
def test_is_kappa_over_two_m_for_small_sizes(seed: int) -> None:
    features, weight, bias, _ = random_head(seed)
    found = finite_robustness_bound(features, weight, bias, size=1e-7)
    kappa = float(relative_flatness(features, weight, bias))
    for value in found:
        assert value / 1e-14 == pytest.approx(kappa / (2 * features.shape[1]), rel=1e-8)


@given(seed=st.integers(0, 10_000), small=st.floats(0, 3), large=st.floats(0, 3))
def test_rises_with_the_size(seed: int, small: float, large: float) -> None:
    features, weight, bias, _ = random_head(seed)
    small, large = min(small, large), max(small, large)
    first, second = (finite_robustness_bound(features, weight, bias, size=d) for d in (small, large))
    assert first.exponential <= second.exponential * (1 + 1e-12)
    assert first.flatness <= second.flatness * (1 + 1e-12)


@given(seed=st.integers(0, 10_000))
def test_invariances(seed: int) -> None:
    features, weight, bias, _ = random_head(seed)
    plain = finite_robustness_bound(features, weight, bias, size=0.7)
    turn = orthogonal(seed, 7)
    for other in (
        (features / 3, 3 * weight, bias),
        (features @ turn, weight @ turn, bias),
        (features, weight + turn[0], bias),
        (features, weight, bias + 5),
        (features.repeat(2, 1), weight, bias),
        (features.flip(0), weight, bias),
    ):
        assert tuple(finite_robustness_bound(*other, size=0.7)) == pytest.approx(tuple(plain), rel=1e-9)


def test_a_common_row_costs_no_digits() -> None:
    """Rows that share 2^26 in each entry: only their differences count."""
    features, weight, _, _ = random_head(2, m=3)
    weight, features = weight.float().double(), torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]).double()
    found = finite_robustness_bound(features, weight + 2.0**26, size=0.5)
    assert tuple(found) == pytest.approx(tuple(finite_robustness_bound(features, weight, size=0.5)), rel=1e-7)


def test_it_is_the_mean_over_samples_and_its_largest_exponent() -> None:
    """An idle sample halves the first bound, and the second too: X stays."""
    features, weight, bias, _ = random_head(1, n=1)
    both = torch.cat([features, torch.zeros_like(features)])
    alone, found = (finite_robustness_bound(h, weight, bias, size=1.0) for h in (features, both))
    assert found.exponential == pytest.approx(alone.exponential / 2)
    assert found.flatness == pytest.approx(alone.flatness / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_are_computed_in_float64(dtype: torch.dtype) -> None:
    features, weight, bias, _ = random_head(3)
    assert bias is not None
    narrow = [x.to(dtype) for x in (features, weight, bias)]
    found = finite_robustness_bound(*narrow, size=0.3)
    assert found == finite_robustness_bound(*(x.double() for x in narrow), size=0.3)
    if dtype is torch.float32:
        expected = finite_robustness_bound(features, weight, bias, size=0.3)
        assert tuple(found) == pytest.approx(tuple(expected), rel=TOLERANCE[torch.float32])


def test_no_gradient_and_nothing_changed() -> None:
    features, weight, bias, _ = random_head(3)
    weight.requires_grad_()
    before = features.clone()
    assert isinstance(finite_robustness_bound(features, weight, bias, size=0.3).exponential, float)
    assert torch.equal(features, before)
    assert weight.grad is None


def test_nothing_moves() -> None:
    features, weight, bias, _ = random_head(4)
    assert finite_robustness_bound(features, weight, bias, size=0.0) == (0, 0)
    assert finite_robustness_bound(features * 0, weight, bias, size=1.0) == (0, 0)
    assert finite_robustness_bound(features, weight[:1].expand(3, -1), size=1.0) == (0, 0)
    assert finite_robustness_bound(features, weight[:1], size=1.0) == (0, 0)  # one class


def test_the_ends_of_float64() -> None:
    features, weight, _, _ = random_head(5)
    plain = finite_robustness_bound(features, weight, size=1.0)
    for scale in (1e160, 1e-160, 1e290):
        assert tuple(finite_robustness_bound(features * scale, weight / scale, size=1.0)) == pytest.approx(tuple(plain))
    smaller = finite_robustness_bound(features * 1e-290, weight * 1e290, size=1e-40)
    assert tuple(smaller) == pytest.approx(
        tuple(finite_robustness_bound(features, weight, size=1e-40)), rel=1e-9, abs=0
    )
    huge = finite_robustness_bound(features, weight, size=1e3)
    assert math.isfinite(huge.exponential)
    assert huge.flatness == math.inf
    assert finite_robustness_bound(features, weight, size=1e200) == (math.inf, math.inf)
    assert finite_robustness_bound(features, weight, size=1e-150).flatness > 0
    assert finite_robustness_bound(features * 1e200, weight[:1], size=1e200) == (0, 0)
    noisy = finite_robustness_bound(features, weight, noise=1.0)
    assert tuple(finite_robustness_bound(features * 1e160, weight / 1e160, noise=1e160)) == pytest.approx(tuple(noisy))
    idle = torch.cat([features[:1] * 0, features])
    assert finite_robustness_bound(idle * 1e150, weight * 1e150, size=1e100) == (math.inf, math.inf)


def test_bad_input(no_shape_checks: None) -> None:
    features, weight, bias, _ = random_head(6)
    assert bias is not None
    for h, W in (
        (features[:, :3], weight),
        (features[:0], weight),
        (features[0], weight),
        (features[:, :0], weight[:, :0]),
    ):
        with pytest.raises(UsageError, match="share m"):
            finite_robustness_bound(h, W, size=1.0)
    with pytest.raises(UsageError, match="needs a bias"):
        finite_robustness_bound(features, weight, bias[:2], size=1.0)
    for size in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="size must be"):
            finite_robustness_bound(features, weight, bias, size=size)
        with pytest.raises(UsageError, match="noise must be"):
            finite_robustness_bound(features, weight, bias, noise=size)
    for both in ({}, {"size": 1.0, "noise": 1.0}):
        with pytest.raises(UsageError, match="one of size and noise"):
            finite_robustness_bound(features, weight, bias, **both)
    for broken in (math.nan, math.inf):
        for h, W, b in (
            (features * broken, weight, bias),
            (features, weight * broken, bias),
            (features, weight, bias * broken),
        ):
            with pytest.raises(NonFiniteError, match="NaN or infinity"):
                finite_robustness_bound(h, W, b, size=1.0)
    with pytest.raises(NonFiniteError, match="logits"):
        finite_robustness_bound(features * 1e200, weight * 1e200, size=1.0)
