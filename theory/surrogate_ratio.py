"""At a centred simplex-ETF head the surrogate that published code logs is K - 1 times relative flatness (C2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra.class_symmetry import CENTRING, K, outer
from theory.numeric.configurations import random_head, rows, simplex
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.surrogate import head_of, surrogate
from theory.proof import Proof
from theory.statement import Statement

SURROGATE_RATIO = Statement(
    "surrogate_ratio",
    label="C2",
    claim="At a centred simplex-ETF head the surrogate (temperature 1, raw features) is K - 1 times kappa, for all "
    "features and all outputs.",
    latex=r"\sum_s w_s = 0,\ \text{simplex ETF} \implies s_2 = (K-1)\,\kappa",
    assumptions={
        "simplex": "the rows of W have one norm and one pairwise inner product",
        "centred": "the rows of W sum to zero",
    },
    source="new",
    kind="equality",
)


def _ratio_at_a_simplex(proof: Proof, claimed: Any) -> None:
    r, impurity, norm = sympy.symbols("r U N", positive=True)
    gram = r * K / (K - 1) * CENTRING
    e, ones = (1, 0), (0, 1)
    diagonal = (gram @ outer(e, e)).trace()
    # The other K - 1 entries of row c share the rest of its sum, by symmetry.
    off_diagonal = ((gram @ outer(e, ones)).trace() - diagonal) / (K - 1)
    proof.identity("the rows have squared norm r", diagonal, r)
    proof.identity("and sum to zero", (gram @ outer(ones, ones)).trace(), 0)
    # A2 for one sample, all pairs at one distance: (1/2) sum_{s != t} p_s p_t ||w_s - w_t||^2, and the sum of
    # p_s p_t over s != t is 1 - ||p||^2 = U.
    kappa = norm * (2 * diagonal - 2 * off_diagonal) * impurity / 2
    proof.identity(
        "s2 = (K-1) kappa with K, ||w||, ||h||, U as symbols", gram.trace() * impurity * norm, claimed * kappa
    )


@SURROGATE_RATIO.certificate("symbolic", covers="every K >= 2, every p and h", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Norms and pairwise distances from the Gram matrix r K/(K-1) P, K a symbol; then sums over pairs of classes."""
    _ratio_at_a_simplex(proof, K - 1)


def _numeric_ratio(proof: Proof, claimed: Callable[[int], int]) -> None:
    for classes in range(2, 2 + proof.cases(6, 12)):
        for m in (classes - 1, classes + 1):
            features = random_head(classes, K=classes, m=m, n=5).features
            head = head_of(features, simplex(classes, m, 1.7, seed=classes))
            found, expected = surrogate(head), claimed(classes) * kappa_by_hessian(head)
            proof.close(f"K = {classes}, m = {m}", found, expected, rel=1e-9)


@SURROGATE_RATIO.certificate("numeric", covers="K = 2..7, random features", relies_on="exact Hessians")
def _numeric(proof: Proof) -> None:
    """The surrogate of grokcore against kappa by the dense Hessian."""
    _numeric_ratio(proof, lambda K: K - 1)


@SURROGATE_RATIO.without("centred")
def _shifted(proof: Proof) -> None:
    """K = 3 with orthonormal rows: one norm, one inner product, a simplex around a mean that is not 0."""
    head = head_of(random_head(1, K=3, m=3, n=4).features, torch.eye(3, dtype=torch.float64))
    proof.differ("surrogate against (K-1) kappa", surrogate(head), 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.without("simplex")
def _stretched(proof: Proof) -> None:
    """K = 3 with rows e1, -e1 and 0, at a feature along e1."""
    head = head_of(rows([2.0, 0.0]), rows([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]))
    proof.differ("surrogate against (K-1) kappa", surrogate(head), 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.sibling
def _ratio_of_k(proof: Proof) -> None:
    """The ratio is K."""
    _ratio_at_a_simplex(proof, K)
    _numeric_ratio(proof, lambda K: K)
