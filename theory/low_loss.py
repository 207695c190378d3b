"""Collapse with low loss is flat, with the sharp constant (B2), and the published bound as its corollary (B3).

B2 and B3 are about the paper "Flatness is Necessary, Neural Collapse is Not" (NeurIPS 2025): B2 turns its
inequality into an equality and a sharp bound, B3 says by how much the published bound is loose, and where it fails.
"""

from __future__ import annotations

import math
from typing import Any

import sympy
import z3

from theory.algebra.class_symmetry import K
from theory.algebra.collapse import IMPURITY, M, averaged, derive, gamma, lam, p_true, q
from theory.formulas import gap_of_loss, kappa_at_collapse, loss_of_published_bound
from theory.numeric.broken_collapse import COLLAPSE, broken, drop_collapse, gap_and_gamma
from theory.numeric.configurations import collapsed
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

PAPER = '"Flatness is Necessary, Neural Collapse is Not" (NeurIPS 2025)'

LOW_LOSS = Statement(
    "collapse_and_low_loss_is_flat",
    label="B2",
    claim="Under balanced collapse kappa is a function of the loss eps: (1+gamma^2) ((K-1)/K) log^2((K-1)/(e^eps-1)) "
    "x (2-Kx/(K-1)) with x = 1-e^-eps. Hence kappa <= 2 (1+gamma^2) ((K-1)/K) x log^2((K-1)/(e^eps-1)), sharp as "
    "eps -> 0, and kappa -> 0 with the loss.",
    latex=r"\kappa \le 2(1+\gamma^2)\tfrac{K-1}{K}\,x\,\log^2\tfrac{K-1}{e^\varepsilon-1}"
    r" \le 2(1+\gamma^2)\tfrac{K-1}{K}\,\varepsilon\log^2\tfrac{K-1}{e^\varepsilon-1}",
    assumptions=COLLAPSE
    | {"low_loss": "eps -> 0; collapse alone is not flat", "bounded_mean": "gamma = ||mu_G||/M stays bounded"},
    source=f"sharpens {PAPER}",
    kind="upper",
)

eps, x, t, r = sympy.symbols("epsilon x t r", positive=True)


def _loss_form(proof: Proof) -> None:
    """The gap eliminated: q, p and U in terms of the loss."""
    at_loss = {q: x / ((1 - x) * (K - 1))}
    proof.identity("eps = -log p_true, so p_true = 1 - x at q = (e^eps-1)/(K-1)", p_true.subs(at_loss), 1 - x)
    proof.identity("(e^eps-1)/(K-1) = x/((1-x)(K-1))", ((1 / (1 - x)) - 1) / (K - 1), at_loss[q])
    proof.identity("U = x (2 - Kx/(K-1))", IMPURITY.subs(at_loss), x * (2 - K * x / (K - 1)))


def _bounded(proof: Proof, constant: Any) -> None:
    """constant x - U >= 0 for every K >= 2 and 0 < x < 1, as a polynomial."""
    room = (constant * x - x * (2 - K * x / (K - 1))).subs(K, 2 + t)
    proof.nonnegative(f"U <= {constant} x, every K = 2 + t", room.subs(x, 1 / (1 + r)))


@LOW_LOSS.certificate("symbolic", covers="every K >= 2, 0 < eps < log K", relies_on="sympy", whole=True)
def _loss_for_every_k(proof: Proof) -> None:
    """B1 with the gap eliminated, the inequality as a polynomial in K - 2 and x, and the limit."""
    derive(proof, (1 + gamma**2) * (K - 1) / K)
    _loss_form(proof)
    _bounded(proof, 2)
    proof.identity("eps - x vanishes at eps = 0", (eps - 1 + sympy.exp(-eps)).subs(eps, 0), 0)
    slope = sympy.diff(eps - 1 + sympy.exp(-eps), eps)
    proof.nonnegative("... and its slope 1 - e^-eps is positive (e^eps = 1 + r)", slope.subs(eps, sympy.log(1 + t)))
    ratio = x * (2 - K * x / (K - 1)) / (2 * x)
    proof.identity("sharp: kappa/bound = 1 - Kx/(2(K-1)) -> 1", sympy.limit(sympy.cancel(ratio), x, 0), 1)
    a = sympy.Symbol("a", real=True)
    # (K-1)/(e^eps-1) = (K-1) (1-x)/x, and x -> 0 with the loss.
    flat = sympy.limit(x * (a + sympy.log(1 - x) - sympy.log(x)) ** 2, x, 0)
    proof.identity("kappa -> 0: x (a + log((1-x)/x))^2 -> 0 for a = log(K-1)", flat, 0)


@LOW_LOSS.certificate("rigorous", covers="the inequality U <= 2x, every real K >= 2, 0 < x < 1", relies_on="z3")
def _loss_by_smt(proof: Proof) -> None:
    """No real K >= 2 and x violate 1 - ||p||^2 <= 2x, p written out."""
    _unsatisfiable_above(proof, 2)


def _unsatisfiable_above(proof: Proof, constant: Any) -> None:
    classes, mass, other = z3.Reals("K x b")
    output = [classes >= 2, mass > 0, mass < 1, other * (classes - 1) == mass]
    impurity = 1 - (1 - mass) ** 2 - (classes - 1) * other * other
    proof.unsatisfiable(f"1 - ||p||^2 > {constant} x has no solution", [*output, impurity > constant * mass])


def _loss_by_hessian(proof: Proof, constant: float) -> None:
    for classes in (2, 3, 5, 8):
        for gap in (0.3, 2.0, 6.0, 11.0):
            head = collapsed(classes, K=classes, m=classes, gap=gap, gamma=0.5)
            mass = -math.expm1(-head.loss)
            factor = 1.25 * (classes - 1) / classes * float(gap_of_loss(head.loss, classes)) ** 2
            kappa = kappa_by_hessian(head)
            text = f"K = {classes}, eps = {head.loss:.3g}"
            proof.close(text, kappa, factor * mass * (2 - classes * mass / (classes - 1)), rel=1e-6)
            proof.at_most(f"{text}: within the bound", kappa, constant * factor * mass, slack=1e-9)


@LOW_LOSS.certificate("numeric", covers="K = 2, 3, 5, 8; Delta 0.3 to 11", relies_on="exact Hessians")
def _loss_numeric(proof: Proof) -> None:
    """The measured loss and the kappa of the dense Hessian, on explicit collapsed heads."""
    _loss_by_hessian(proof, 2.0)


@LOW_LOSS.sibling
def _smaller_constant(proof: Proof) -> None:
    """The constant 2 can be lowered to 1.99."""
    _unsatisfiable_above(proof, 1.99)
    _loss_by_hessian(proof, 1.99)


@LOW_LOSS.without("low_loss")
def _at_its_peak(proof: Proof) -> None:
    """Collapse at K = 8, Delta = 3.11, loss 0.27: kappa is 3.5 and not small."""
    head = collapsed(1, K=8, m=7, gap=3.11)
    proof.exceeds("kappa against 1", kappa_by_hessian(head), 1.0)


@LOW_LOSS.without("bounded_mean")
def _far_mean(proof: Proof) -> None:
    """K = 3 with gamma = e^(Delta/2): the loss falls from Delta = 4 to 10, and kappa rises."""
    near, far = (collapsed(1, K=3, m=3, gap=gap, gamma=math.exp(gap / 2)) for gap in (4.0, 10.0))
    proof.at_most("the loss falls a hundredfold", 100 * far.loss, near.loss)
    proof.exceeds("kappa rises", kappa_by_hessian(far), kappa_by_hessian(near))


drop_collapse(LOW_LOSS, lambda head: float(kappa_at_collapse(gap_of_loss(head.loss, 3), 3, gap_and_gamma(head)[1])))

PUBLISHED_BOUND = Statement(
    "published_bound",
    label="B3",
    claim="The published bound kappa <= lambda^2 K^3 M^4 q/(1+(K-1)q)^2 holds at collapse with mu_G = 0 and is loose "
    "by exactly K^2/(2+(K-2)q), from K at q = 1 to K^2/2 at low loss, so K^2 may stand for its K^3. It fails exactly "
    "where gamma^2 > K^2/(2+(K-2)q) - 1.",
    latex=r"\kappa \le \lambda^2 K^3 M^4 \frac{q}{(1+(K-1)q)^2},\quad \frac{\text{bound}}{\kappa} = "
    r"\frac{K^2}{2+(K-2)q}",
    assumptions={
        "collapse": "NC1 to NC4, balanced",
        "zero_mean": "mu_G = 0, which the published side condition ||mu_c|| <= M for every c amounts to",
    },
    source=PAPER,
    kind="upper",
)


def published(gap: float, classes: int, radius: float) -> float:
    """The published bound at the logit gap Delta (nats), K and the radius M of the centred means."""
    scale = gap * (classes - 1) / (classes * radius**2)
    ratio = math.exp(-gap)
    return scale**2 * classes**3 * radius**4 * ratio / (1 + (classes - 1) * ratio) ** 2


def _looseness(proof: Proof, power: Any, share: Any) -> Any:
    """`share` times the published bound, with K^power for its K^3, against the curve of B1; their ratio at mu_G = 0."""
    gap = lam * M**2 * K / (K - 1)
    kappa = (1 + gamma**2) * (K - 1) / K * gap**2 * IMPURITY
    bound = share * lam**2 * K**power * M**4 * q / (1 + (K - 1) * q) ** 2
    loose = share * K ** (power - 1) / (2 + (K - 2) * q)
    proof.identity("bound/kappa = loose/(1+gamma^2)", bound / kappa, loose / (1 + gamma**2))
    for text, classes in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        room = (loose - 1).subs({K: classes, q: 1 / (1 + r)})
        proof.nonnegative(f"mu_G = 0: kappa <= bound, q = 1/(1+r) ({text})", room)
    return loose


@PUBLISHED_BOUND.certificate("symbolic", covers="every K >= 2, 0 < q < 1, gamma >= 0", relies_on="sympy", whole=True)
def _looseness_for_every_k(proof: Proof) -> None:
    """The ratio of the published bound to the curve of B1, its range, and the exact place where it drops below 1."""
    derive(proof, (1 + gamma**2) * (K - 1) / K)
    loose = _looseness(proof, 3, 1)
    proof.identity("it is loose by K^2/(2+(K-2)q)", loose, K**2 / (2 + (K - 2) * q))
    proof.nonnegative("... which falls with q", -sympy.diff(loose, q).subs({K: 2 + t, q: 1 / (1 + r)}))
    proof.identity("... from K^2/2 at q = 0", loose.subs(q, 0), K**2 / 2)
    proof.identity("... to K at q = 1", loose.subs(q, 1), K)
    _looseness(proof, 2, 1)
    centred, mean, noise = sympy.symbols("m g v")
    excess = averaged((centred + mean) ** 2 - centred**2, centred, noise)
    proof.identity("mean ||mu_c||^2 - M^2 = ||mu_G||^2, so ||mu_c|| <= M for all c forces mu_G = 0", excess, mean**2)


@PUBLISHED_BOUND.certificate("numeric", covers="K = 2, 3, 6; Delta 0.2 to 8", relies_on="exact Hessians")
def _published_by_hessian(proof: Proof) -> None:
    """Exact Hessians on both sides of the edge in gamma where the published bound fails."""
    for classes in (2, 3, 6):
        for gap in (0.2, 2.0, 8.0):
            bound = published(gap, classes, 1.3)
            loose = float(loss_of_published_bound(gap, classes))
            centred = kappa_by_hessian(collapsed(classes, K=classes, m=classes, gap=gap))
            text = f"K = {classes}, Delta = {gap}"
            proof.at_most(f"{text}: within the bound", centred, bound, slack=1e-9)
            proof.close(f"{text}: loose by K^2/(2+(K-2)q)", bound / centred, loose, rel=1e-8)
            edge = math.sqrt(loose - 1)
            inside, outside = (
                kappa_by_hessian(collapsed(classes, K=classes, m=classes, gap=gap, gamma=factor * edge))
                for factor in (0.99, 1.01)
            )
            proof.at_most(f"{text}: holds just below the edge in gamma", inside, bound)
            proof.exceeds(f"{text}: fails just above it", outside, bound)


@PUBLISHED_BOUND.sibling
def _one_percent_less(proof: Proof) -> None:
    """The bound holds with 0.99 K^2 for K^3."""
    _looseness(proof, 2, sympy.Rational(99, 100))
    for classes in (2, 3, 6):
        kappa = kappa_by_hessian(collapsed(classes, K=classes, m=classes, gap=0.2))
        proof.at_most(f"K = {classes}", kappa, 0.99 * published(0.2, classes, 1.3) / classes)


@PUBLISHED_BOUND.without("zero_mean")
def _with_a_mean(proof: Proof) -> None:
    """K = 3, Delta = 4, gamma = 3: kappa exceeds the published bound."""
    head = collapsed(1, K=3, m=3, gap=4.0, radius=1.3, gamma=3.0)
    proof.exceeds("kappa against the published bound", kappa_by_hessian(head), published(4.0, 3, 1.3))


@PUBLISHED_BOUND.without("collapse")
def _without_collapse(proof: Proof) -> None:
    """K = 3, Delta = 3, M = 1 with noise of size 3M inside the classes that no row sees."""
    kappa = kappa_by_hessian(broken("NC1", noise=3.0))
    proof.exceeds("kappa against the published bound", kappa, published(3.0, 3, 1.0))
