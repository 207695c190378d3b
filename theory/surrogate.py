"""The surrogate that published code logs under the name of relative flatness, against kappa (C1, C2, C3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from grokcore.flatness import frobenius_surrogate
from theory.class_symmetry import CENTRING
from theory.configurations import Head, generator_of, normal, random_head, simplex
from theory.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

SURROGATE_RATIO = Statement(
    "surrogate_ratio",
    label="C2",
    claim="At a centred simplex-ETF head the surrogate is K - 1 times kappa, for every feature and every output.",
    latex=r"\sum_s w_s = 0,\ \text{simplex ETF} \implies s_2 = (K-1)\,\kappa",
    assumptions={
        "simplex": "the rows of W have one norm and one pairwise inner product",
        "centred": "the rows of W sum to zero",
    },
    source="new",
    kind="equality",
)


def _ratio_for_any_head(proof: Proof, claimed: Any) -> None:
    """kappa and s2 as sums over pairs of classes, where only U = 1 - ||p||^2 of the outputs is left."""
    K, r, impurity, norm = sympy.symbols("K r U N", positive=True)
    # The Gram matrix of the rows is r K/(K-1) P with r = ||w_s||^2: off-diagonal entries -r/(K-1).
    distance = r + r + 2 * r / (K - 1)
    # (1/2) sum_{s != t} p_s p_t ||w_s - w_t||^2, and sum_{s != t} p_s p_t = 1 - ||p||^2.
    kappa = norm * distance * impurity / 2
    surrogate = K * r * impurity * norm
    proof.identity("s2 = (K-1) kappa with K, ||w||, ||h||, U as symbols", surrogate, claimed * kappa)


@SURROGATE_RATIO.certificate("symbolic", covers="every K >= 2, every p and h", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Both sides by the pairwise distances of the Gram matrix, K a symbol."""
    K = sympy.Symbol("K", positive=True)
    _ratio_for_any_head(proof, K - 1)
    proof.identity("||W||_F^2 is the trace of the Gram matrix r K/(K-1) P", CENTRING.trace(), K - 1)


def _numeric_ratio(proof: Proof, claimed: Callable[[int], int]) -> None:
    for K in range(2, 2 + proof.cases(6, 12)):
        m = K + 1
        features = random_head(K, K=K, m=m, n=5).features
        head = Head(features, simplex(K, m, 1.7, seed=K), torch.zeros(K, dtype=torch.float64), torch.arange(5) % K)
        surrogate = float(frobenius_surrogate(head.features, head.weight, head.bias))
        proof.close(f"K = {K}", surrogate, claimed(K) * kappa_by_hessian(head), rel=1e-9)


@SURROGATE_RATIO.certificate("numeric", covers="K = 2..7, random features", relies_on="exact Hessians")
def _numeric(proof: Proof) -> None:
    """The surrogate of grokcore against kappa by the dense Hessian."""
    _numeric_ratio(proof, lambda K: K - 1)


@SURROGATE_RATIO.without("centred")
def _shifted(proof: Proof) -> None:
    """K = 3, the simplex shifted by one vector: kappa stays, the surrogate does not."""
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    features = random_head(1, K=3, m=3, n=4).features
    head = Head(features, simplex(3, 3) + shift, -features.new_zeros(3), torch.arange(4) % 3)
    surrogate = float(frobenius_surrogate(head.features, head.weight, head.bias))
    proof.differ("surrogate against (K-1) kappa", surrogate, 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.without("simplex")
def _stretched(proof: Proof) -> None:
    """K = 3 with rows e1, -e1 and 0."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    head = Head(normal(generator_of(3), 4, 2), weight, torch.zeros(3, dtype=torch.float64), torch.arange(4) % 3)
    surrogate = float(frobenius_surrogate(head.features, head.weight, head.bias))
    proof.differ("surrogate against (K-1) kappa", surrogate, 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.sibling
def _ratio_of_k(proof: Proof) -> None:
    """The ratio is K."""
    _ratio_for_any_head(proof, sympy.Symbol("K", positive=True))
    _numeric_ratio(proof, lambda K: K)
