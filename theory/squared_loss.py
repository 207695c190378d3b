"""The squared loss: relative flatness has a floor there that low loss does not lift (D5).

Loss (1/2N) sum_i ||W h_i + b - e_{y_i}||^2, so that H_st = d_st (1/N) sum_i h_i h_i^T at every W.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from theory.algebra.class_symmetry import K
from theory.algebra.squared_loss_duals import Value, bounds_at_exact_fit, closed_form, minimisers
from theory.numeric.configurations import Head, generator_of, normal, simplex
from theory.numeric.oracle import head_hessian, kappa_by_hessian
from theory.numeric.ufm import FreeFeatures
from theory.proof import Proof
from theory.statement import Statement

SQUARED_LOSS_DOES_NOT_FLATTEN = Statement(
    "squared_loss_does_not_flatten",
    label="D5",
    claim=(
        "With loss (1/2N) sum ||Wh + b - e_y||^2, kappa = ||W||_F^2 mean ||h||^2 >= ||WH||_*^2/N. At exact fit "
        "kappa >= (sum_c sqrt n_c)^2/N without bias, which is K iff balanced, and kappa >= (K-1)^2/K with a bias and "
        "balanced classes, with equality iff NC1, NC2 with mu_G = 0, NC3 and equal biases. At every global minimiser "
        "of the unconstrained-features model, whatever m, kappa = (r^2/K)(1-KL)^2 for L < 1/K, with r = min(m, K) "
        "without bias and r = min(m, K-1) with one: K (1-KL)^2 and ((K-1)^2/K)(1-KL)^2 where it is wide; for "
        "L >= 1/K it is 0."
    ),
    latex=(
        r"\kappa = \|W\|_F^2\,\overline{\|h\|^2} \ge \tfrac1N\|WH\|_*^2;\quad "
        r"WH = Y \implies \kappa \ge \tfrac1N\Big(\sum_c \sqrt{n_c}\Big)^2;\quad"
        r"\kappa_L = \tfrac{\min(m,K)^2}K(1-KL)^2"
    ),
    assumptions={
        "exact fit": "of the bounds (K-1)^2/K and (sum sqrt n_c)^2/N: W h_i + b = e_{y_i} for every sample",
        "no bias": "of the bound (sum sqrt n_c)^2/N: b = 0",
        "balanced": "of the bound with a bias and of the values at the minimisers: every class has n samples",
        "minimiser": "of the values: W and H (and b) are a global minimiser",
        "free": "of the values: the features are free variables",
    },
    source="new (the minimisers without their flatness: Zhou et al. 2022)",
    kind="equality",
)


def kappa_of_rank(L: Any, K: Any, r: Any) -> Any:
    """What is claimed for L < 1/K."""
    return r**2 / K * (1 - K * L) ** 2


@SQUARED_LOSS_DOES_NOT_FLATTEN.certificate(
    "symbolic",
    covers="every K >= 2, counts, n, m and decay",
    relies_on="sympy, matrix words; duality of the nuclear norm and convexity by name",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """Dual matrices for the nuclear norm of the targets, with and without bias; soft thresholding for the model."""
    closed_form(proof)
    bounds_at_exact_fit(proof, (K - 1) ** 2 / K)
    minimisers(proof, kappa_of_rank)


def minimised(proof: Proof, claimed: Value, models: list[FreeFeatures]) -> None:
    """F minimised from a random start; kappa from the dense Hessian."""
    for model in models:
        rank = min(model.m, model.K - 1 if model.bias else model.K)
        expected = claimed(model.L, model.K, rank) if model.K * model.L < 1 else 0.0
        head = model.head(model.minimise(0))
        name = f"K = {model.K}, n = {model.counts[0]}, m = {model.m}{', bias' if model.bias else ''}, L = {model.L:.3g}"
        proof.close(f"kappa, {name}", kappa_by_hessian(head, "squared"), expected, rel=1e-8, scale=expected or 1.0)


def _model(K: int, n: int, m: int, L: float, *, bias: bool = False) -> FreeFeatures:
    l_H = L / math.sqrt(4 * n)
    return FreeFeatures((n,) * K, m, 4 * l_H, l_H, bias, loss="squared")


def exact_fits(proof: Proof, claimed: Callable[[list[int]], float], *, bias: bool, counts: list[list[int]]) -> None:
    """Random exact fits W = B T, H = T^-1 B'(Y - b1'): kappa by the dense Hessian is never below the claim."""
    for case, sizes in enumerate(counts):
        labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        targets = torch.nn.functional.one_hot(labels).to(torch.float64)
        for seed in range(proof.cases(3, 20)):
            draw = generator_of(100 * case + seed)
            # Seed 0 is the balanced factorisation at the best bias; the others move away from it.
            away = 0.0 if seed == 0 else 0.3
            offset = torch.full((len(sizes),), 1 / len(sizes), dtype=torch.float64) + away * normal(draw, len(sizes))
            offset = offset if bias else torch.zeros_like(offset)
            left, values, right = torch.linalg.svd((targets - offset).T, full_matrices=False)
            mix = torch.linalg.matrix_exp(away * normal(draw, len(values), len(values)))
            keep = values > 1e-12
            weight, features = (left * values.sqrt()) @ mix, torch.linalg.solve(mix, values.sqrt()[:, None] * right)
            head = Head(features.T.contiguous(), weight, offset, labels)
            proof.close("an exact fit", head.features @ weight.T + offset, targets, rel=1e-9)
            kappa = kappa_by_hessian(head, "squared")
            proof.at_most(f"counts {sizes}, bias {bias}: bound <= kappa", claimed(sizes), kappa, slack=1e-9)
            if seed == 0:
                proof.close(f"attained at rank {int(keep.sum())}", kappa, claimed(sizes), rel=1e-9)


def _without_bias(counts: list[int]) -> float:
    return sum(math.sqrt(c) for c in counts) ** 2 / sum(counts)


def _with_bias(counts: list[int]) -> float:
    return (len(counts) - 1) ** 2 / len(counts)


@SQUARED_LOSS_DOES_NOT_FLATTEN.certificate(
    "numeric", covers="K = 2..5, n = 1..3, random exact fits", relies_on="L-BFGS, Newton, exact Hessians"
)
def _numeric(proof: Proof) -> None:
    """Random exact fits, the model minimised from random starts, and the Hessian's blocks."""
    head = Head(
        normal(generator_of(0), 5, 3),
        normal(generator_of(1), 4, 3),
        torch.zeros(4, dtype=torch.float64),
        torch.arange(5) % 4,
    )
    blocks = torch.einsum("st,jk->sjtk", torch.eye(4, dtype=torch.float64), head.features.T @ head.features / 5)
    proof.close("H = I_K (x) mean hh'", head_hessian(head, "squared"), blocks)
    exact_fits(proof, _without_bias, bias=False, counts=[[1, 1], [2, 2, 2], [4, 1, 1], [1, 2, 3, 4]])
    exact_fits(proof, _with_bias, bias=True, counts=[[1, 1], [2, 2, 2], [2, 2, 2, 2, 2]])
    without = [(2, 1, 2, 0.1), (3, 2, 4, 0.05), (4, 1, 2, 0.05), (4, 1, 4, 0.4)]
    with_one = [(2, 2, 1, 0.1), (4, 2, 5, 0.05), (4, 1, 2, 0.05)]
    minimised(proof, kappa_of_rank, [_model(*size) for size in without])
    minimised(proof, kappa_of_rank, [_model(*size, bias=True) for size in with_one])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _the_floor_of_no_bias(proof: Proof) -> None:
    """A bias does not lower the floor: kappa >= K at exact fit."""
    bounds_at_exact_fit(proof, K)
    exact_fits(proof, lambda counts: float(len(counts)), bias=True, counts=[[2, 2, 2]])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _linear_in_the_decay(proof: Proof) -> None:
    """kappa = (r^2/K)(1-KL) at the minimiser."""
    minimisers(proof, lambda L, K, r: r**2 / K * (1 - K * L))
    minimised(proof, lambda L, K, r: r**2 / K * (1 - K * L), [_model(3, 2, 4, 0.05)])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _every_width_alike(proof: Proof) -> None:
    """kappa = K (1-KL)^2 without bias in every width: false at m = K - 1, where a singular value is lost."""
    minimisers(proof, lambda L, K, r: K * (1 - K * L) ** 2)
    minimised(proof, lambda L, K, r: K * (1 - K * L) ** 2, [_model(3, 2, 2, 0.05)])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _balanced_floor_for_any_counts(proof: Proof) -> None:
    """Without bias kappa >= K at exact fit, whatever the counts."""
    exact_fits(proof, lambda counts: float(len(counts)), bias=False, counts=[[2, 2, 2], [4, 1, 1]])


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("exact fit")
def _halfway(proof: Proof) -> None:
    """Half of an exact fit: kappa = K/4."""
    eye = torch.eye(3, dtype=torch.float64)
    head = Head(eye, eye / 2, torch.zeros(3, dtype=torch.float64), torch.arange(3))
    proof.exceeds("the bound against kappa", 3.0, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("no bias")
def _centred_by_a_bias(proof: Proof) -> None:
    """An exact fit by a centred simplex and the bias 1/3: kappa = 4/3, below K = 3."""
    rows = simplex(3, 2, math.sqrt(2 / 3))
    head = Head(rows, rows, torch.full((3,), 1 / 3, dtype=torch.float64), torch.arange(3))
    proof.close("an exact fit", rows @ rows.T + head.bias, np.eye(3))
    proof.exceeds("the bound against kappa", 3.0, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("balanced")
def _nine_to_one(proof: Proof) -> None:
    """K = 2, counts 9 and 1, bias (0.9, 0.1): an exact fit with kappa = 0.18, below (K-1)^2/K = 0.5."""
    labels = torch.tensor([0] * 9 + [1])
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    features = torch.tensor([[0.1]] * 9 + [[-0.9]], dtype=torch.float64)
    head = Head(features, weight, torch.tensor([0.9, 0.1], dtype=torch.float64), labels)
    proof.close("an exact fit", features @ weight.T + head.bias, torch.nn.functional.one_hot(labels))
    proof.exceeds("the bound against kappa", 0.5, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("minimiser")
def _origin(proof: Proof) -> None:
    """The origin is critical, and kappa = 0 there."""
    model = _model(3, 2, 4, 0.05)
    zero = torch.zeros(model.size, dtype=torch.float64)
    proof.close("a critical point", model.gradient(zero).norm(), 0.0, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(zero), "squared"), kappa_of_rank(0.05, 3, 3))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("free")
def _tied_features(proof: Proof) -> None:
    """Entries of h within 0.2 of 0: a large decay on W and a small one on h cannot be traded."""
    model = dataclasses.replace(
        _model(3, 2, 4, 0.05), l_W=0.5, l_H=0.005 / 2, features=lambda free: 0.2 * torch.tanh(free)
    )
    point = model.minimise(0)
    proof.close("a critical point", model.gradient(point).norm(), 0.0, rel=1e-6, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(point), "squared"), kappa_of_rank(model.L, 3, 3))
