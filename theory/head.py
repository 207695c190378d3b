"""The Hessian of a linear head under cross-entropy (A1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from theory.algebra.class_pairs import (
    H_J,
    H_K,
    PS,
    PT,
    TARGETS,
    XS,
    XT,
    curvature_form,
    derived_entries,
    expanded,
    moment,
    over_pairs,
)
from theory.numeric.configurations import Head, random_head
from theory.numeric.oracle import head_hessian
from theory.numeric.other_heads import COSINE_HEAD, ONE_SAMPLE, cold, cosine_hessian, trained_with
from theory.proof import Proof
from theory.statement import Statement

HEAD_HESSIAN = Statement(
    "head_hessian",
    label="A1",
    claim="Block (s, t) of one sample's Hessian in W is (p_s d_st - p_s p_t) h h^T: positive semidefinite as a whole "
    "at every W, negative semidefinite off the diagonal, and free of the label.",
    latex=r"H_{st} = (p_s\delta_{st} - p_s p_t)\,h h^\top \implies H \succeq 0,\ H_{st} \preceq 0\ (s \ne t)",
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "linear": "the logits are W h + b, with h and b free of W",
        "targets": "each sample's targets sum to one, as labels and smoothed labels do",
    },
    source="Boehning 1992",
    kind="equality",
)


def _entries_for_every_k(proof: Proof, diagonal: Any, off: Any) -> None:
    """`diagonal` and `off` are the claimed factors of h h^T in the blocks (s, s) and (s, t)."""
    found = derived_entries()
    for name, key, factor in (("s = t", "s", diagonal), ("s != t", "t", off)):
        proof.identity(f"block {name}, entry j, j", found[f"sj, {key}j"], factor * H_J**2)
        proof.identity(f"block {name}, entry j, k", found[f"sj, {key}k"], factor * H_J * H_K)
    proof.require("no target is in any entry", not any(entry.has(*TARGETS) for entry in found.values()))


def _sums_of_squares(proof: Proof, floor: Any) -> None:
    """v^T H v - floor sum_s p_s x_s^2 for x_s = <v_s, h> is a sum of squares."""
    form = curvature_form(XS, XT) - floor * over_pairs(PS * XS**2 * PT)
    squares = over_pairs(PS * PT * (XS - XT) ** 2) / 2
    proof.identity("v^T H v = (1/2) sum p_s p_t (x_s - x_t)^2, every K (Lagrange's identity)", form, squares)
    equal = form.subs({moment(1, 1): 1, moment(1, 2): 1})
    proof.nonnegative("along 1 v^T, where every x_s = 1, v^T H v is not below the floor", equal)
    p_s, p_t, x = sympy.symbols("p_s p_t x", positive=True)
    off = sympy.cancel(derived_entries()["sj, tj"] / H_J**2)
    proof.nonnegative("-v^T H_st v = p_s p_t <v, h>^2", -off.subs({PS: p_s, PT: p_t}) * x**2)


@HEAD_HESSIAN.certificate("symbolic", covers="every K, m, W, b, h", relies_on="sympy differentiation", whole=True)
def _hessian_symbolic(proof: Proof) -> None:
    """Log-sum-exp differentiated with all other classes and features as symbols; Lagrange's identity; small K and m."""
    _entries_for_every_k(proof, PS - PS**2, -PS * PT)
    _sums_of_squares(proof, 0)
    for K, m in ((2, 1), (2, 2), (3, 1), (3, 2)):
        hessian, _, h, p = expanded(K, m)
        blocks = sympy.kronecker_product(sympy.diag(*p) - p * p.T, h * h.T)
        proof.identity(f"written out, K = {K}, m = {m}", hessian, blocks)


def softmax_curvature(p: Tensor, labels: Tensor) -> Tensor:
    """diag(p) - p p^T of each sample, (n, K, K); the labels are not used."""
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def _hessian_numeric(proof: Proof, curvature: Callable[[Tensor, Tensor], Tensor], floor: float = 0.0) -> None:
    for seed in range(proof.cases(6, 40)):
        head = random_head(seed, K=2 + seed % 4, m=1 + seed % 3, n=1 + seed % 5)
        K, m = head.weight.shape
        dense = head_hessian(head)
        expected = torch.einsum(
            "ist,ij,ik->sjtk", curvature(head.probabilities, head.labels), head.features, head.features
        )
        proof.close(f"K, m, n = {K}, {m}, {len(head.labels)}: blocks", dense, expected / len(head.labels))
        least = torch.linalg.eigvalsh(dense.reshape(K * m, K * m))[0]
        proof.at_most("the least eigenvalue is not below the floor", floor - 1e-12, least)
        proof.at_most("off-diagonal blocks are negative", torch.linalg.eigvalsh(dense[0, :, 1])[-1], 1e-12)
        other = head._replace(labels=(head.labels + 1) % K)
        proof.close("with other labels", head_hessian(other), dense, rel=1e-12)


@HEAD_HESSIAN.certificate("numeric", covers="K = 2..5, m = 1..3, n = 1..5", relies_on="exact Hessians")
def _hessian_exact(proof: Proof) -> None:
    """Dense Hessians by automatic differentiation: every block, the eigenvalues, and the labels changed."""
    _hessian_numeric(proof, softmax_curvature)


def _first_block(head: Head) -> Tensor:
    p, h = head.probabilities[0], head.features[0]
    return (p[0] - p[0] ** 2) * torch.outer(h, h)


@HEAD_HESSIAN.without("cross_entropy")
def _hessian_squared(proof: Proof) -> None:
    """Squared loss: H = I (x) h h^T, whose first block is h h^T."""
    found = head_hessian(ONE_SAMPLE, "squared")
    proof.differ("trace of the first block", found[0, :, 0].trace().item(), _first_block(ONE_SAMPLE).trace().item())
    proof.close("off-diagonal blocks are 0", found[0, :, 1], 0.0)


@HEAD_HESSIAN.without("temperature")
def _hessian_cold(proof: Proof) -> None:
    """Temperature 1/2 multiplies the Hessian by 4 beside moving p."""
    found = trained_with(ONE_SAMPLE, cold)[0, :, 0].trace().item()
    sharper = ONE_SAMPLE._replace(weight=2 * ONE_SAMPLE.weight, bias=2 * ONE_SAMPLE.bias)
    proof.differ("trace of the first block", found, _first_block(ONE_SAMPLE).trace().item())
    proof.differ("with the p of that temperature", found, _first_block(sharper).trace().item())


@HEAD_HESSIAN.without("linear")
def _hessian_cosine(proof: Proof) -> None:
    """Rows normalised in the forward pass: the Hessian is indefinite, and the label is in it."""
    first, second = (cosine_hessian(COSINE_HEAD._replace(labels=torch.tensor([y]))) for y in (1, 0))
    proof.exceeds("minus the least eigenvalue", -torch.linalg.eigvalsh(first.reshape(4, 4))[0].item(), 0.0)
    proof.differ("trace with label 1 against label 0", first[0, :, 0].trace().item(), second[0, :, 0].trace().item())


@HEAD_HESSIAN.without("targets")
def _hessian_two_labels(proof: Proof) -> None:
    """Two correct classes, each with target 1: the Hessian doubles."""
    proof.identity("block s != t for every K", derived_entries(targets=2)["sj, tk"], -2 * PS * PT * H_J * H_K)
    found = trained_with(ONE_SAMPLE, cross_entropy, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    proof.differ("trace of the first block", found[0, :, 0].trace().item(), _first_block(ONE_SAMPLE).trace().item())


@HEAD_HESSIAN.sibling
def _definite(proof: Proof) -> None:
    """H is positive definite, v^T H v >= sum_s p_s <v_s, h>^2 / 100 (false along 1 v^T)."""
    _sums_of_squares(proof, sympy.Rational(1, 100))
    _hessian_numeric(proof, softmax_curvature, floor=1e-9)


@HEAD_HESSIAN.sibling
def _empirical_fisher(proof: Proof) -> None:
    """H is the empirical Fisher matrix: blocks (p_s - y_s)(p_t - y_t) h h^T (true in the mean over y ~ p only)."""

    def residuals(p: Tensor, labels: Tensor) -> Tensor:
        off = p - one_hot(labels, p.shape[1])
        return off[:, :, None] * off[:, None, :]

    y_s, y_t = TARGETS
    _entries_for_every_k(proof, (PS - y_s) ** 2, (PS - y_s) * (PT - y_t))
    _hessian_numeric(proof, residuals)
