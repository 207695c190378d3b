"""The trace estimators against enumerated expectations, a slow XTrace from its definition, and their own error bars."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import grokcore.estimators as module
from grokcore import Estimate, UsageError
from grokcore.errors import NonFiniteError
from grokcore.estimators import hutchinson, hutchpp, signs, student, xtrace
from tests.cases import orthogonal


@pytest.fixture(autouse=True)
def one_thread(two_threads: None) -> None:
    """The matrices are small."""
    torch.set_num_threads(1)


CPU, DOUBLE = torch.device("cpu"), torch.float64
ALL = [hutchinson, hutchpp, xtrace]


def symmetric(seed: int, d: int, rank: int | None = None) -> Tensor:
    """A random symmetric matrix, indefinite, of the given rank."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(d, d if rank is None else rank, generator=generator, dtype=DOUBLE)
    return half * torch.linspace(-1, 2.1, half.shape[1], dtype=DOUBLE) @ half.T


class Counted:
    """A matrix that counts its products."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def __call__(self, columns: Tensor) -> Tensor:
        self.products += columns.shape[1]
        return self.matrix.to(columns) @ columns


def every_sign(d: int) -> Tensor:
    """All 2^d vectors of signs, (d, 2^d)."""
    bits = torch.arange(2**d)[None] >> torch.arange(d)[:, None]
    return (2 * (bits & 1) - 1).double()


class TestUnbiased:
    def test_hutchinson_over_every_sign(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matrix = symmetric(0, 4)
        monkeypatch.setattr(module, "signs", lambda *_: every_sign(4))
        found = hutchinson(Counted(matrix), 4, probes=16, seed=0)
        assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
        one = hutchinson(Counted(matrix), 4, probes=1, seed=0)
        monkeypatch.undo()
        assert one.value == found.value != hutchinson(Counted(matrix), 4, probes=1, seed=0).value

    def test_hutchpp_over_every_sign_whatever_the_sketch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matrix = symmetric(1, 5)
        for sketch in (every_sign(5)[:, :2], every_sign(5)[:, 7:10]):
            drawn = iter([sketch, every_sign(5)])
            monkeypatch.setattr(module, "signs", lambda *_, drawn=drawn: next(drawn))
            found = hutchpp(Counted(matrix), 5, probes=12, seed=0)
            assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
            assert found.stderr > 0.1
            # A negative: probes that made the basis are not independent of it.
            drawn = iter([sketch, sketch])
            monkeypatch.setattr(module, "signs", lambda *_, drawn=drawn: next(drawn))
            assert hutchpp(Counted(matrix), 5, probes=12, seed=0).value != pytest.approx(
                float(matrix.trace()), rel=1e-2
            )

    def test_xtrace_over_many_seeds(self) -> None:
        """Its vectors lie on a sphere and cannot be enumerated; what it knows of the range alone is far off."""
        spectrum = torch.linspace(-1, 2, 12, dtype=DOUBLE)
        values, known = [], []
        for seed in range(600):
            values.append(xtrace(lambda x: spectrum[:, None] * x, 12, probes=12, seed=seed).value)
            tests = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
            basis = torch.linalg.qr(spectrum[:, None] * tests).Q
            known.append(float((basis * (spectrum[:, None] * basis)).sum()))
        for found, unbiased in ((values, True), (known, False)):
            errors = torch.tensor(found) - spectrum.sum()
            assert (abs(float(errors.mean() / errors.std()) * math.sqrt(600)) < 4) == unbiased


def slow_xtrace(matrix: Tensor, tests: Tensor) -> tuple[Tensor, float]:
    """XTrace from its definition, a QR for each left-out vector, and its variance with a QR for each pair."""
    d, m = tests.shape

    def one(i: int, kept: list[int]) -> float:
        basis = torch.linalg.qr(matrix @ tests[:, kept]).Q
        rest = tests[:, i] - basis @ (basis.T @ tests[:, i])
        return float((basis.T @ matrix @ basis).trace() + (d - len(kept)) * (rest @ matrix @ rest) / (rest @ rest))

    values = torch.tensor([one(i, [k for k in range(m) if k != i]) for i in range(m)], dtype=DOUBLE)
    without = [  # row j: XTrace's values from the vectors but j
        torch.tensor([one(i, [k for k in range(m) if k not in (i, j)]) for i in range(m) if i != j], dtype=DOUBLE)
        for j in range(m)
    ]
    means = torch.stack([row.mean() for row in without])
    jackknife = (means - means.mean()).square().sum()
    naive = torch.stack([row.var() / (m - 1) for row in without]).mean()
    return values, float(values.var() / m * (jackknife / naive) ** 0.4)


class TestXTrace:
    @pytest.mark.parametrize(("d", "m"), [(30, 6), (40, 11), (9, 8)])
    def test_is_the_slow_one(self, d: int, m: int) -> None:
        matrix = symmetric(d, d)
        tests = torch.randn(d, m, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
        values, variance, products = module._leave_one_out(Counted(matrix), tests)
        expected, expected_variance = slow_xtrace(matrix, tests)
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)
        assert variance == pytest.approx(expected_variance, rel=1e-8)
        assert products == 2 * m
        found = xtrace(Counted(matrix), d, probes=2 * m, seed=3)
        assert found.value == pytest.approx(float(expected.mean()), rel=1e-10)
        assert found.stderr == pytest.approx(math.sqrt(expected_variance) * student(m - 1), rel=1e-8)

    @pytest.mark.parametrize("rank", [0, 1, 3, 7])
    def test_is_exact_below_rank_m(self, rank: int) -> None:
        matrix = symmetric(rank, 25, rank)
        found = xtrace(Counted(matrix), 25, probes=16, seed=0)
        assert found.value == pytest.approx(float(matrix.trace()), rel=1e-11, abs=1e-12)
        assert found.stderr <= 1e-11 * float(matrix.norm())
        assert found.probes == 8 + rank

    def test_is_not_exact_at_rank_m(self) -> None:
        matrix = symmetric(8, 25, 8)
        found = xtrace(Counted(matrix), 25, probes=16, seed=0)
        assert found.stderr > 1e-3 * float(matrix.norm())
        assert abs(found.value - float(matrix.trace())) > 1e-4

    @pytest.mark.parametrize("d", [1, 2, 3, 6, 20])
    def test_is_exact_with_as_many_vectors_as_rows(self, d: int) -> None:
        matrix = symmetric(d, d)
        found = xtrace(Counted(matrix), d, probes=40, seed=0)
        assert found.value == pytest.approx(float(matrix.trace()), rel=1e-9, abs=1e-11)
        assert found.stderr == pytest.approx(0, abs=1e-9)

    def test_depends_on_the_spectrum_only(self) -> None:
        """In law; and a rotation of the matrix and of the vectors together changes nothing."""
        matrix, q = symmetric(0, 20), orthogonal(1, 20)
        tests = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
        found = module._leave_one_out(Counted(matrix), tests)
        turned = module._leave_one_out(Counted(q @ matrix @ q.T), q @ tests)
        torch.testing.assert_close(turned[0], found[0], rtol=1e-10, atol=1e-10)
        assert turned[1] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize("rank", [0, 2, 9])
def test_hutchpp_is_exact_below_a_third_of_the_probes(rank: int) -> None:
    matrix = symmetric(rank, 25, rank)
    counted = Counted(matrix)
    found = hutchpp(counted, 25, probes=32, seed=0)
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-11, abs=1e-12)
    assert found.stderr <= 1e-12 * float(matrix.norm())
    assert counted.products == found.probes == 32
    assert hutchpp(Counted(symmetric(0, 25, 14)), 25, probes=32, seed=0).stderr > 1e-2


D = 100
i = torch.arange(1, D + 1, dtype=DOUBLE)
SPECTRA = {
    "flat": torch.linspace(0.5, 1.5, D, dtype=DOUBLE),
    "1/i": 1 / i,
    "1/i^2": 1 / i**2,
    "exponential": 0.9**i,
    "step with a tail": torch.where(i <= 20, 1, 0.1 / i),
    "Hessian-like": torch.where(i <= 9, 50 / i, 0.3 * torch.cos(i).pow(3) + 0.05),
}
"""Outliers over a bulk of both signs is what a classifier's Hessian looks like."""


def covered(estimator: object, matrix: Tensor, probes: int, seeds: int = 200) -> float:
    """The share of seeds whose interval of two standard errors holds the trace."""
    truth, hits = float(matrix.trace()), 0
    for seed in range(seeds):
        found = estimator(lambda x: matrix @ x, len(matrix), probes=probes, seed=seed)  # type: ignore[operator]
        hits += abs(found.value - truth) <= 2 * found.stderr
    return hits / seeds


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(
    ("estimator", "probes"), [(hutchinson, 60), (hutchpp, 30), (hutchpp, 60), (xtrace, 24), (xtrace, 60)]
)
def test_two_standard_errors_hold_the_truth(estimator: object, probes: int, spectrum: str) -> None:
    rotation = orthogonal(0, D)  # signs know a diagonal matrix's trace at once
    matrix = rotation * SPECTRA[spectrum] @ rotation.T
    assert 0.90 <= covered(estimator, matrix, probes) <= 0.99


def test_the_published_error_of_xtrace_holds_it_too_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative: with the vectors' values taken for independent, the same check fails."""
    leave_one_out = module._leave_one_out

    def published(*args: object) -> tuple[Tensor, float, int]:
        values, _, products = leave_one_out(*args)  # type: ignore[arg-type]
        return values, float(values.var()) / len(values), products

    monkeypatch.setattr(module, "_leave_one_out", published)
    assert covered(xtrace, SPECTRA["1/i"].diag(), 60) < 0.90


class TestEstimate:
    def test_a_single_probe_has_no_error(self) -> None:
        found = hutchinson(Counted(symmetric(0, 5)), 5, probes=1, seed=4)
        assert math.isnan(found.stderr)
        assert (found.probes, found.seed) == (1, 4)

    def test_hutchinson_is_the_mean_over_its_probes(self) -> None:
        """Across more than one block of columns; the error is the sample's times Student's factor."""
        matrix = symmetric(2, 6)
        signs, blocks = torch.Generator().manual_seed(5), []
        for k in (64, 36):
            blocks.append(2.0 * torch.randint(0, 2, (6, k), generator=signs, dtype=torch.int8) - 1)
        z = torch.cat(blocks, dim=1).double()
        values = (z * (matrix @ z)).sum(dim=0)
        found = hutchinson(Counted(matrix), 6, probes=100, seed=5)
        assert found.value == pytest.approx(float(values.mean()), rel=1e-12)
        assert found.stderr == pytest.approx(float(values.std()) / 10 * student(99), rel=1e-12)

    def test_of_probes_and_exact(self) -> None:
        found = Estimate.of_probes(torch.tensor([1.0, 2.0, 6.0], dtype=DOUBLE), seed=1)
        assert (float(found), found.probes, found.seed) == (3.0, 3, 1)
        assert found.stderr == pytest.approx(math.sqrt(7 / 3) * student(2))
        assert Estimate.exact(2.0) == Estimate(2.0, 0.0, 0, None)

    # Half of the t quantile at 0.97725, from a table.
    @pytest.mark.parametrize(
        ("degrees", "half"), [(2, 2.26327), (4, 1.43465), (9, 1.15990), (30, 1.04342), (99, 1.01278)]
    )
    def test_students_factor(self, degrees: int, half: float) -> None:
        assert student(degrees) == pytest.approx(half, rel=1e-2 if degrees < 4 else 2e-3)


@pytest.mark.parametrize("estimator", ALL)
class TestEach:
    def test_the_seed_decides(self, estimator: object) -> None:
        first, again, other = (
            estimator(Counted(symmetric(0, 30)), 30, probes=18, seed=s)  # type: ignore[operator]
            for s in (7, 7, 8)
        )
        assert first == again
        assert first.value != other.value
        assert first.seed == 7

    @pytest.mark.parametrize("probes", [12, 18, 70])
    def test_probes_are_the_products(self, estimator: object, probes: int) -> None:
        counted = Counted(symmetric(0, 90))
        found = estimator(counted, 90, probes=probes, seed=0)  # type: ignore[operator]
        assert found.probes == counted.products == probes

    def test_float32(self, estimator: object) -> None:
        matrix = symmetric(0, 40)
        double, single = (
            estimator(Counted(matrix), 40, probes=18, seed=0, device=CPU, dtype=dtype)  # type: ignore[operator]
            for dtype in (DOUBLE, torch.float32)
        )
        assert single.value == pytest.approx(double.value, rel=1e-4)
        assert single.stderr == pytest.approx(double.stderr, rel=1e-3)

    def test_what_is_refused(self, estimator: object) -> None:
        counted = Counted(torch.full((20, 20), torch.nan, dtype=DOUBLE))
        with pytest.raises(NonFiniteError, match="product with the matrix is not finite"):
            estimator(counted, 20, probes=12, seed=0)  # type: ignore[operator]
        with pytest.raises(UsageError, match=r"probes must be at least \d+, got 0"):
            estimator(counted, 20, probes=0, seed=0)  # type: ignore[operator]
        with pytest.raises(UsageError, match="at least one row"):
            estimator(counted, 0, probes=12, seed=0)  # type: ignore[operator]


def test_too_few_probes_to_tell_the_error_by() -> None:
    counted = Counted(symmetric(0, 20))
    for estimator in (hutchpp, xtrace):
        with pytest.raises(UsageError, match="at least 12, got 10"):
            estimator(counted, 20, probes=10, seed=0)
    with pytest.raises(UsageError, match="even number of probes, two for each test vector, got 13"):
        xtrace(counted, 20, probes=13, seed=0)


def test_signs_are_fair_and_their_own() -> None:
    drawn = signs((1000, 4), torch.Generator().manual_seed(0), CPU, DOUBLE)
    assert torch.equal(drawn.abs(), torch.ones(1000, 4, dtype=DOUBLE))
    assert float(drawn.mean(dim=0).abs().max()) < 0.12
    assert float((drawn.T @ drawn / 1000 - torch.eye(4)).abs().max()) < 0.12
