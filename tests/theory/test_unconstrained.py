"""D1, D4 and D5: the unconstrained-features model with cross-entropy, with smoothed targets, with the squared loss.

Three channels that share no code: the formulas, an optimiser on the objective itself (theory.numeric.ufm, which
knows no optimum), and kappa from the dense Hessian of the definition (theory.numeric.oracle). Matrix words are
tested against numpy.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokcore.collapse import collapse_report
from grokcore.geometry import ClassMoments
from tests.theory.strategies import seeds
from theory.algebra.matrix_words import IDENTITY, letters
from theory.algebra.squared_loss_duals import minimisers
from theory.formulas import gap_of_loss, kappa_at_collapse, kappa_of_ufm, ufm_gap
from theory.numeric.configurations import generator_of, normal
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.numeric.ufm import FreeFeatures, balanced
from theory.proof import Proof
from theory.ufm_minimiser import minimiser_for_every_size, off_class


@st.composite
def models(draw: st.DrawFn, *, smoothing: st.SearchStrategy[float] = st.just(0.0)) -> FreeFeatures:
    """Balanced models with L < (1-a)/K, unequal decays, with and without bias."""
    K, n, a = draw(st.integers(2, 4)), draw(st.integers(1, 2)), draw(smoothing)
    L = draw(st.floats(0.02, 0.8)) * (1 - a) / K
    ratio = draw(st.floats(0.3, 3))
    m = K - 1 + draw(st.integers(0, 2))
    decays = (L / math.sqrt(n) * ratio, L / math.sqrt(n) / ratio)
    return balanced(K, n, m, *decays, bias=draw(st.booleans()), smoothing=a)


def minimised(model: FreeFeatures, seed: int = 0) -> tuple[float, torch.Tensor]:
    """kappa by the dense Hessian and the probabilities, at a minimiser the optimiser finds."""
    head = model.head(model.minimise(seed))
    return kappa_by_hessian(head), head.probabilities


@given(model=models(), seed=seeds)
@settings(max_examples=10)
def test_kappa_of_the_optimiser_is_the_formulas(model: FreeFeatures, seed: int) -> None:
    kappa, _ = minimised(model, seed)
    assert kappa == pytest.approx(float(kappa_of_ufm(model.L, model.K)), rel=1e-8)


@given(model=models(smoothing=st.floats(0.01, 0.6)), seed=seeds)
@settings(max_examples=10)
def test_smoothed_kappa_of_the_optimiser_is_the_formulas(model: FreeFeatures, seed: int) -> None:
    kappa, probabilities = minimised(model, seed)
    assert kappa == pytest.approx(float(kappa_of_ufm(model.L, model.K, model.smoothing)), rel=1e-7)
    least = probabilities.min(dim=1).values
    torch.testing.assert_close(least, torch.full_like(least, model.L + model.smoothing / model.K), rtol=1e-8, atol=0)


@given(model=models(), seed=seeds)
@settings(max_examples=6)
def test_every_minimiser_is_collapsed_with_mean_zero(model: FreeFeatures, seed: int) -> None:
    """grokcore's metrics, which know nothing of the model."""
    head = model.head(model.minimise(seed))
    moments = ClassMoments(model.K, model.m)
    moments.update(head.features, head.labels)
    report = collapse_report(moments, head.weight)
    assert report.nc1_trace_ratio < 1e-14
    assert report.nc3_duality < 1e-7
    assert report.nc2_equinorm < 1e-7
    assert report.global_mean_ratio < 1e-7


@given(model=models(), seed=seeds)
@settings(max_examples=6)
def test_minimisers_are_balanced(model: FreeFeatures, seed: int) -> None:
    head = model.head(model.minimise(seed))
    left, right = model.l_W * head.weight.T @ head.weight, model.l_H * head.features.T @ head.features
    torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-10)


def test_a_bias_moves_neither_kappa_nor_the_outputs() -> None:
    plain, with_bias = (balanced(4, 2, 4, 0.03, 0.01, bias=bias) for bias in (False, True))
    assert minimised(plain)[0] == pytest.approx(minimised(with_bias)[0], rel=1e-10)
    bias = with_bias.head(with_bias.minimise(0)).bias
    torch.testing.assert_close(bias - bias.mean(), torch.zeros_like(bias), atol=1e-10, rtol=0)


def test_matrix_free_kappa_agrees() -> None:
    model = balanced(4, 2, 5, 0.02, 0.03)
    assert kappa_matrix_free(model.head(model.minimise(1))) == pytest.approx(float(kappa_of_ufm(model.L, 4)), rel=1e-9)


@pytest.mark.parametrize(("K", "n", "m"), [(2, 1, 1), (3, 2, 1), (5, 1, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_above_one_over_k_all_is_zero_in_any_width(K: int, n: int, m: int, bias: bool) -> None:
    """m >= K - 1 is needed only where the minimiser is not zero: here m is below it too."""
    l_H = 1.2 / (K * math.sqrt(n))
    kappa, probabilities = minimised(balanced(K, n, m, l_H, l_H, bias=bias))
    assert kappa < 1e-12
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / K), atol=1e-9, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_one_dimension_short_the_law_fails(bias: bool) -> None:
    """m = K - 2, even with a bias, which cannot lower the rank needed."""
    model = balanced(4, 1, 2, 0.03, 0.01, bias=bias)
    kappa, probabilities = minimised(model)
    off = probabilities[torch.eye(4) == 0]
    assert float(off.max() - off.min()) > 0.01
    assert abs(kappa / float(kappa_of_ufm(model.L, 4)) - 1) > 0.05


def test_the_law_without_n_fails() -> None:
    """The least stronger claim about L: sqrt(l_W l_H)."""
    model = balanced(3, 3, 3, 0.03, 0.02)
    wrong = float(kappa_of_ufm(model.L / math.sqrt(3), 3))
    assert minimised(model)[0] != pytest.approx(wrong, rel=0.05)


@pytest.mark.parametrize(
    ("K", "L", "gap", "kappa"),
    [
        (2, 0.1, math.log(9), 0.09 * math.log(9) ** 2),
        (3, 0.05, math.log(18), 0.37 / 3 * math.log(18) ** 2),
        (10, 0.01, math.log(91), 0.1539 * math.log(91) ** 2),
    ],
)
def test_worked_numbers(K: int, L: float, gap: float, kappa: float) -> None:
    """By hand: ((K-1)^2/K) L (2-KL) is (1/2)(0.1)(1.8), (4/3)(0.05)(1.85), (81/10)(0.01)(1.9)."""
    assert float(ufm_gap(L, K)) == pytest.approx(gap, rel=1e-9)
    assert float(kappa_of_ufm(L, K)) == pytest.approx(kappa, rel=1e-6)


@given(K=st.integers(2, 60), share=st.floats(1e-9, 0.999))
def test_formulas_agree_with_the_collapse_curve(K: int, share: float) -> None:
    """B1 at the gap of D1: another derivation of the same number."""
    L = share / K
    assert float(kappa_of_ufm(L, K)) == pytest.approx(float(kappa_at_collapse(ufm_gap(L, K), K)), rel=1e-9, abs=1e-14)


@given(K=st.integers(2, 60), share=st.floats(1e-6, 0.99))
def test_the_gap_is_that_of_the_loss(K: int, share: float) -> None:
    L = share / K
    assert float(ufm_gap(L, K)) == pytest.approx(float(gap_of_loss(-math.log1p(-(K - 1) * L), K)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("K", "peak"), [(2, 2.39935728052), (3, 2.58384724609), (10, 3.24671315743)])
def test_rises_to_the_peak_of_b4_then_falls_to_zero(K: int, peak: float) -> None:
    grid = np.geomspace(1e-6, 1 / K, 4001)
    values = kappa_of_ufm(grid, K)
    top = int(values.argmax())
    assert np.all(np.diff(values[: top + 1]) > 0)
    assert np.all(np.diff(values[top:]) < 0)
    assert float(ufm_gap(grid[top], K)) == pytest.approx(peak, rel=5e-3)
    assert values[-1] == pytest.approx(0.0, abs=1e-20)


def test_formulas_take_arrays_and_edges() -> None:
    assert kappa_of_ufm(np.array([[0.01, 0.2], [0.5, 3.0]]), 4).shape == (2, 2)
    assert float(ufm_gap(0.25, 4)) == 0.0
    assert float(kappa_of_ufm(7.0, 4)) == 0.0
    assert float(kappa_of_ufm(0.001, 4, 1.0)) == 0.0
    # Near L = 1/K the gap is (1 - KL) K to first order, with all its digits.
    assert float(ufm_gap((1 - 2**-40) / 4, 4)) == pytest.approx(4 * 2**-40, rel=1e-9)


def test_smoothing_leaves_a_floor_and_hard_labels_none() -> None:
    decays = np.array([1e-4, 1e-6, 1e-8])
    assert np.all(kappa_of_ufm(decays, 10) < np.array([0.2, 0.01, 1e-3]))
    np.testing.assert_allclose(kappa_of_ufm(decays[1:], 10, 0.1), 3.1315, rtol=1e-4)
    assert float(kappa_of_ufm(0.0, 10, 0.1)) == pytest.approx(8.1 * 0.01 * 1.9 * math.log(91) ** 2, rel=1e-12)


@pytest.mark.parametrize(("K", "a", "sharper"), [(10, 0.1, True), (10, 0.7, False)])
def test_the_floor_is_a_limit_and_not_a_minimum(K: int, a: float, sharper: bool) -> None:
    """More decay may flatten: beyond the peak of B4, b = a/K is on the falling side, and kappa drops at once."""
    limit, near = (float(kappa_of_ufm(L, K, a)) for L in (0.0, 0.01 * (1 - a) / K))
    assert (near > limit) == sharper
    assert float(kappa_of_ufm(0.999 * (1 - a) / K, K, a)) < limit


@pytest.mark.parametrize(
    "claim", [lambda L, K, n, a: L + a, lambda L, K, n, a: 2 * L + a / K, lambda L, K, n, a: a / K]
)
def test_the_dual_certificate_finds_a_wrong_probability(claim: object) -> None:
    proof = Proof()
    minimiser_for_every_size(proof, claim, sympy.Symbol("a", positive=True))  # type: ignore[arg-type]
    assert [step.text[:9] for step in proof.steps if not step.holds] == ["-grad f(Z"]


def test_the_dual_certificate_holds_for_the_right_one() -> None:
    proof = Proof()
    minimiser_for_every_size(proof, off_class, sympy.Symbol("a", positive=True))
    assert all(step.holds for step in proof.steps)


def test_the_convex_bound_is_below_f_everywhere() -> None:
    """f(Z) + mu ||Z||_* <= F at random points, and F >= its value at the minimiser."""
    model = balanced(3, 2, 4, 0.03, 0.01)
    best = float(model.objective(model.minimise(0)))
    for seed in range(20):
        point = 0.1 * (seed + 1) * normal(generator_of(seed), model.size)
        head = model.head(point)
        product = head.features @ head.weight.T
        bound = head.loss + math.sqrt(0.03 * 0.01) * float(torch.linalg.matrix_norm(product, "nuc"))
        assert bound <= float(model.objective(point)) * (1 + 1e-12)
        assert best <= bound * (1 + 1e-12)


@given(
    m=st.integers(1, 5),
    K=st.integers(2, 4),
    n=st.integers(1, 2),
    share=st.floats(0.05, 0.9),
    bias=st.booleans(),
    seed=seeds,
)
@settings(max_examples=12)
def test_squared_loss_in_every_width(m: int, K: int, n: int, share: float, bias: bool, seed: int) -> None:
    decay = share / K / math.sqrt(n)
    model = FreeFeatures((n,) * K, m, decay * 1.5, decay / 1.5, bias, loss="squared")
    kappa = kappa_by_hessian(model.head(model.minimise(seed)), "squared")
    assert kappa == pytest.approx(min(m, K - bias) ** 2 / K * (1 - share) ** 2, rel=1e-7)


def test_squared_loss_with_a_bias_is_a_simplex() -> None:
    model = FreeFeatures((2,) * 4, 5, 0.02, 0.01, bias=True, loss="squared")
    head = model.head(model.minimise(0))
    assert kappa_by_hessian(head, "squared") == pytest.approx(9 / 4 * (1 - 4 * model.L) ** 2, rel=1e-9)
    torch.testing.assert_close(head.bias, torch.full_like(head.bias, 1 / 4), rtol=1e-9, atol=0)
    assert float(head.features.mean(dim=0).norm()) < 1e-10


def test_squared_loss_does_not_flatten_while_cross_entropy_does() -> None:
    """The same decays, ever smaller: kappa goes to K with the squared loss, to 0 with cross-entropy."""
    kappas = []
    for decay in (1e-2, 1e-3, 1e-4):
        squared = FreeFeatures((1,) * 3, 3, decay, decay, loss="squared")
        entropy = balanced(3, 1, 3, decay, decay)
        kappas.append((kappa_by_hessian(squared.head(squared.minimise(0)), "squared"), minimised(entropy)[0]))
    squares, entropies = zip(*kappas, strict=True)
    assert list(squares) == sorted(squares)
    assert squares[-1] == pytest.approx(3.0, rel=1e-3)
    assert list(entropies) == sorted(entropies, reverse=True)
    assert entropies[-1] < 0.03


def test_squared_minimisers_are_not_linear_in_the_decay() -> None:
    proof = Proof()
    minimisers(proof, lambda L, K, r: r**2 / K * (1 - K * L))
    assert sum(not step.holds for step in proof.steps) == 1


@given(seed=seeds)
def test_words_are_matrices(seed: int) -> None:
    """Sums, products and transposes of words at explicit matrices against numpy."""
    draw = np.random.default_rng(seed)
    explicit = {"A": draw.normal(size=(2, 3)), "B": draw.normal(size=(3, 2))}
    A, B = letters("A B")
    x = sympy.Symbol("x")
    words = x * (A @ B) - 2 * (B.T @ A.T) + (A @ B).T @ (A @ A.T)
    a, b = explicit["A"], explicit["B"]
    np.testing.assert_allclose(words.at(explicit, {x: 3.0}), 3 * a @ b - 2 * b.T @ a.T + (a @ b).T @ a @ a.T)


def test_words_tell_apart_what_differs() -> None:
    A, B = letters("A B")
    assert not (A @ B).equals(B @ A)
    assert (A @ B).trace().equals((B @ A).trace())
    assert (A @ B).trace().equals((A.T @ B.T).trace())
    assert not (A @ A @ B @ B).trace().equals((A @ B @ A @ B).trace())
    assert (A @ B @ A).given((B @ A, IDENTITY)).equals(A)
    with pytest.raises(ValueError, match="end"):
        A.given((A, A @ A))
