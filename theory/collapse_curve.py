"""Under neural collapse kappa is an explicit function of the logit gap (B1).

The derivation for every K at once is in :mod:`theory.algebra.collapse`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra.class_symmetry import CENTRING, IDENTITY, K, softmax_hessian
from theory.algebra.collapse import IMPURITY, derive, gamma, p_other, p_true, q
from theory.formulas import kappa_at_collapse
from theory.numeric.broken_collapse import COLLAPSE, drop_collapse, gap_and_gamma
from theory.numeric.configurations import collapsed
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.proof import Proof
from theory.statement import Statement

COLLAPSE_CURVE = Statement(
    "collapse_curve",
    label="B1",
    claim="Under balanced collapse kappa = (1+gamma^2) ((K-1)/K) Delta^2 U(Delta), whatever the global mean.",
    latex=r"\kappa = (1+\gamma^2)\,\tfrac{K-1}{K}\,\Delta^2\,U(\Delta),\quad U = 1-\lVert p\rVert^2",
    assumptions=COLLAPSE | {"cross_entropy": "the loss is softmax cross-entropy"},
    source="new; the published bound is its corollary B3",
    kind="equality",
)


@COLLAPSE_CURVE.certificate("symbolic", covers="every K >= 2, Delta > 0, gamma >= 0", relies_on="sympy", whole=True)
def _curve_for_every_k(proof: Proof) -> None:
    """From the softmax Hessian and the Gram matrix of the simplex, with K, q, M, lambda and gamma as symbols."""
    derive(proof, (1 + gamma**2) * (K - 1) / K)


@COLLAPSE_CURVE.certificate("symbolic", covers="K = 2, 3 (m = 2), every Delta and M", relies_on="sympy")
def _curve_written_out(proof: Proof) -> None:
    """The loss differentiated twice entry by entry at the simplex, nothing assumed about its Hessian."""
    r, radius, mean = sympy.symbols("r M G", positive=True)  # q = r^(2K), so that every exponential is rational
    vertices = {
        2: [(1, 0), (-1, 0)],
        3: [(1, 0), (-sympy.Rational(1, 2), sympy.sqrt(3) / 2), (-sympy.Rational(1, 2), -sympy.sqrt(3) / 2)],
    }
    for classes, rows in vertices.items():
        kappa = sum(_written_out(rows, c, radius, mean, r) for c in range(classes)) / classes
        gap_squared = sympy.Symbol("D") ** 2
        u = IMPURITY.subs({K: classes, q: r ** (2 * classes)})
        factor = (1 + mean**2 / radius**2) * sympy.Rational(classes - 1, classes)
        proof.identity(f"K = {classes}", kappa, factor * gap_squared * u)
    for classes in (2, 3, 4):
        explicit = softmax_hessian(p_true, p_other).explicit(classes)
        p = sympy.Matrix([p_true, *[p_other] * (classes - 1)]).subs(K, classes)
        proof.identity(f"the one-class algebra is matrix algebra, K = {classes}", explicit, sympy.diag(*p) - p * p.T)
        product = (softmax_hessian(p_true, p_other) @ CENTRING).explicit(classes)
        proof.identity("... and so are its products", product, explicit * CENTRING.explicit(classes))
    proof.identity("the identity has trace K", IDENTITY.trace(), K)


def _written_out(rows: list[tuple[Any, Any]], c: int, radius: Any, mean: Any, r: Any) -> Any:
    """kappa of one sample of class c, by second derivatives of its loss with mu_G in a third direction."""
    classes = len(rows)
    w = sympy.Matrix(classes, 3, lambda s, j: sympy.Symbol(f"w{s}{j}", real=True))
    h = sympy.Matrix([radius * rows[c][0], radius * rows[c][1], mean])
    logits = w * h
    loss = sympy.log(sum(sympy.exp(z) for z in logits)) - logits[c]
    scale = sympy.Symbol("D") * sympy.Rational(classes - 1, classes) / radius
    at = {w[s, j]: (scale * rows[s][j] if j < 2 else 0) for s in range(classes) for j in range(3)}
    total = sympy.Integer(0)
    for s in range(classes):
        for u in range(s + 1):
            inner = sum(at[w[s, j]] * at[w[u, j]] for j in range(3))
            trace = sum(loss.diff(w[s, j]).diff(w[u, j]) for j in range(3))
            total += (1 if s == u else 2) * inner * trace.subs(at)
    # e^(-k D / (2K)) = r^k, term by term.
    return total.replace(sympy.exp, lambda z: r ** (-2 * classes * sympy.expand(z) / sympy.Symbol("D")))


def _curve_by_hessian(proof: Proof, formula: Callable[[float, int, float], float]) -> None:
    for classes in range(2, 2 + proof.cases(6, 11)):
        for ratio in (0.0, 0.8):
            gap = 0.7 + 1.3 * classes
            head = collapsed(classes, K=classes, m=classes + 1, gap=gap, gamma=ratio, counts=2)
            text = f"K = {classes}, Delta = {gap:.1f}, gamma = {ratio}"
            proof.close(text, kappa_by_hessian(head), formula(gap, classes, ratio), rel=1e-9)


@COLLAPSE_CURVE.certificate("numeric", covers="K = 2..7, mu_G in any direction", relies_on="exact Hessians")
def _curve_numeric(proof: Proof) -> None:
    """Explicit collapsed heads, dense Hessians and Hessian-vector products in float64."""
    _curve_by_hessian(proof, lambda gap, classes, ratio: float(kappa_at_collapse(gap, classes, ratio)))
    tilted = collapsed(
        3, K=4, m=5, gap=3.0, radius=1.0, mean=torch.tensor([0.3, -1.0, 0.2, 0.5, 0.1], dtype=torch.float64)
    )
    ratio = float(tilted.features.mean(dim=0).norm())
    expected = float(kappa_at_collapse(3.0, 4, ratio))
    proof.close("mu_G oblique, dense Hessian", kappa_by_hessian(tilted), expected, rel=1e-9)
    proof.close("mu_G oblique, Hessian-vector products", kappa_matrix_free(tilted), expected, rel=1e-9)


@COLLAPSE_CURVE.sibling
def _curve_without_gamma(proof: Proof) -> None:
    """The global mean does not matter: kappa = ((K-1)/K) Delta^2 U."""
    derive(proof, (K - 1) / K)
    _curve_by_hessian(proof, lambda gap, classes, ratio: float(kappa_at_collapse(gap, classes)))


drop_collapse(COLLAPSE_CURVE, lambda head: float(kappa_at_collapse(gap_and_gamma(head)[0], 3, gap_and_gamma(head)[1])))


@COLLAPSE_CURVE.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """The same collapsed head under squared loss: ||W||_F^2 mean ||h||^2, which no outputs enter."""
    head = collapsed(1, K=3, m=4, gap=3.0, radius=1.0)
    proof.differ("kappa against the curve", kappa_by_hessian(head, "squared"), float(kappa_at_collapse(3.0, 3)))
