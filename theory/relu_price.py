"""Non-negative features force a global mean, and it costs flatness a factor K/(K-1) or more (B9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra.class_symmetry import CENTRING, IDENTITY, K, outer, softmax_hessian
from theory.formulas import softmax_impurity
from theory.numeric.broken_collapse import COLLAPSE
from theory.numeric.collapse_spectrum import aligned_head
from theory.numeric.configurations import Head, collapsed
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

RELU_PRICE = Statement(
    "relu_price",
    label="B9",
    claim=(
        "Non-negative features have (K-1) ||mu_G||^2 >= M^2, so at collapse kappa >= Delta^2 U(Delta), with equality "
        "iff the class means have disjoint supports; exactly, kappa = Delta^2 U (1 + S/(K M)^2) with "
        "S = sum_(j != c) <mu_j, mu_c>."
    ),
    latex=(
        r"h \ge 0 \implies (K-1)\|\mu_G\|^2 \ge M^2,\quad "
        r"\kappa = \Delta^2 U(\Delta)\Big(1 + \tfrac{1}{K^2M^2}\sum_{j\ne c}\langle\mu_j,\mu_c\rangle\Big)"
        r" \ge \Delta^2 U(\Delta)"
    ),
    assumptions=COLLAPSE
    | {
        "NC3": "W = lam Mc, lam > 0; Delta = lam M^2 K/(K-1) with lam = ||W||_F/||Mc||_F",
        "nonnegative": "every entry of every class mean is >= 0, as after a ReLU",
    },
    source="new",
    kind="lower",
)


def _price(proof: Proof, factor: Any) -> None:
    """From the Gram matrix N of the class means alone: total = 1^T N 1, trace = Tr N."""
    total, trace, S, square, gap, b = sympy.symbols("tau R S M2 Delta b", positive=True)
    mean = total / K**2
    radius = trace / K - mean
    proof.identity(
        "(K-1) ||mu_G||^2 - M^2 = S/K, S = tau - R, any class means", (K - 1) * mean - radius, (total - trace) / K
    )
    for k, m in ((2, 2), (3, 2), (4, 1)):
        means = sympy.Matrix(k, m, lambda i, j: sympy.Symbol(f"a{i}{j}", positive=True))
        ones = sympy.ones(1, k)
        written = (k - 1) * (ones * means * means.T * ones.T)[0] / k**2
        centred = means - ones.T * ones * means / k
        off = sum(means[i, :].dot(means[j, :]) for i in range(k) for j in range(k) if i != j)
        excess = written - (centred * centred.T).trace() / k
        proof.identity(f"the same in coordinates ({k}, {m})", excess, off / k)
        proof.nonnegative(f"no coefficient is negative ({k}, {m})", excess)
    # Var_p(w) = lam^2 g U, Delta = lam g, g = M^2 K/(K-1): the one-class algebra.
    g = square * K / (K - 1)
    impurity = (softmax_hessian(1 - (K - 1) * b, b) @ CENTRING).trace()
    proof.identity("Tr A_c = U = (K-1) b_o (2 - K b_o)", impurity, (K - 1) * b * (2 - K * b))
    kappa = (square + (square + S / K) / (K - 1)) * (gap / g) ** 2 * g * impurity
    claimed = gap**2 * impurity * (1 + S / (K**2 * square))
    proof.identity("kappa = Delta^2 U (1 + S/(K M)^2)", kappa, claimed)
    t, U = sympy.symbols("t U", positive=True)
    for text, more in (("K > 2", 2 + t), ("K = 2", sympy.Integer(2))):
        bound = (1 + S / (K**2 * square) - factor) * gap**2 * U
        proof.nonnegative(f"kappa >= factor Delta^2 U where S >= 0 ({text})", bound.subs(K, more))
        proof.nonnegative(f"and where S = 0 ({text})", ((1 - factor) * gap**2 * U).subs(K, more))
    # Equality. In one coordinate S gains (sum a_j)^2 - sum a_j^2, every product of two different entries twice; let two
    # classes have x, y there and the others sum to `rest`, with `products` left of their own.
    x, y, rest, products = sympy.symbols("x y R E", positive=True)
    gained = (x + y + rest) ** 2 - x**2 - y**2 - (rest**2 - products)
    for text, others in (
        ("others overlap", {}),
        ("others do not", {products: 0}),
        ("others are 0", {products: 0, rest: 0}),
    ):
        proof.nonnegative(
            f"a coordinate shared by two classes makes S > 0 ({text})", gained.subs(others), strictly=True
        )
    proof.identity("a coordinate that one class holds adds nothing", gained.subs({y: 0, rest: 0, products: 0}), 0)
    price = (claimed - gap**2 * impurity).subs(b, 1 / (K + x))
    for text, more in (("K > 2", 2 + t), ("K = 2", sympy.Integer(2))):
        proof.nonnegative(f"and S > 0 costs, b_o < 1/K ({text})", price.subs(K, more), strictly=True)
    # Their Gram matrix is I: 1^T I 1 = Tr(I 11^T).
    one_hot = (IDENTITY @ outer((0, 1), (0, 1))).trace() - IDENTITY.trace()
    proof.identity("one-hot means have S = 0, so the bound is attained for every K", one_hot, 0)


@RELU_PRICE.certificate("symbolic", covers="every K >= 2, Delta, class means >= 0", relies_on="sympy", whole=True)
def _price_for_every_k(proof: Proof) -> None:
    """The inner products of the class means summed over pairs, K a symbol; a sum of non-negative terms is left."""
    _price(proof, sympy.Integer(1))


def nonnegative_simplices(k: int) -> dict[str, torch.Tensor]:
    """Class means >= 0 whose centred versions are a simplex, by name, (K, m) each; the first two are disjoint."""
    eye = torch.eye(k, dtype=torch.float64)
    block = torch.tensor([0.3, 0.5, 1.1], dtype=torch.float64)
    apart = eye.clone()
    if k == 2:
        apart[0] *= 3  # two classes are a simplex whatever their norms
    return {
        "one-hot": 1.3 * apart,
        "blocks": torch.kron(eye, block),
        "shifted": eye + 0.4,
        "all but one": 2 * (1 - eye) + 0.1,
        "one more unit": torch.cat([eye, torch.full((k, 1), 0.7, dtype=torch.float64)], dim=1),
    }


def _prices(proof: Proof, factor: Callable[[int], float]) -> None:
    for k in range(2, 2 + proof.cases(4, 8)):
        for gap in (0.5, 5.0):
            floor = gap**2 * float(softmax_impurity(gap, k))
            for name, means in nonnegative_simplices(k).items():
                kappa, text = kappa_by_hessian(aligned_head(means, gap)), f"K = {k}, Delta = {gap}, {name}"
                proof.at_most(f"{text}: factor Delta^2 U <= kappa", factor(k) * floor, kappa, slack=1e-10)
                overlap = float((means @ means.T).fill_diagonal_(0.0).sum())
                proof.require(f"{text}: equal iff disjoint", (kappa < floor * (1 + 1e-9)) == (overlap == 0))
                square = float((means - means.mean(dim=0)).square().sum()) / k
                proof.close(f"{text}: kappa", kappa, floor * (1 + overlap / (k**2 * square)), rel=1e-9)


@RELU_PRICE.certificate("numeric", covers="K = 2..5, five kinds of non-negative simplices", relies_on="exact Hessians")
def _prices_measured(proof: Proof) -> None:
    """Exact Hessians at non-negative collapsed configurations, with disjoint and with overlapping supports."""
    _prices(proof, lambda k: 1.0)


def _cheaper(proof: Proof, head: Head, gap: float) -> None:
    floor = gap**2 * float(softmax_impurity(gap, len(head.weight)))
    proof.exceeds("Delta^2 U against kappa", floor, kappa_by_hessian(head))


_EYE = torch.eye(3, dtype=torch.float64)


@RELU_PRICE.without("nonnegative")
def _signed(proof: Proof) -> None:
    """K = 3, a simplex with mean zero."""
    _cheaper(proof, collapsed(0, K=3, m=2, gap=4.0), 4.0)


@RELU_PRICE.without("NC1")
def _idle_half(proof: Proof) -> None:
    """K = 3, features 0 and 2 e_c in equal parts: non-negative, with one-hot class means."""
    head = aligned_head(_EYE, 4.0, [2, 2, 2])
    twice = torch.tensor([0.0, 2.0] * 3, dtype=torch.float64)[:, None]
    _cheaper(proof, head._replace(features=head.features * twice), 4.0)


@RELU_PRICE.without("NC2")
def _in_pairs(proof: Proof) -> None:
    """K = 4, two classes at e_1 and two at e_2."""
    means = torch.eye(2, dtype=torch.float64).repeat_interleave(2, dim=0)
    _cheaper(proof, aligned_head(means, 6.0), 6.0)


@RELU_PRICE.without("NC3")
def _equal_rows(proof: Proof) -> None:
    """K = 3, one-hot means and a head of the same norm with equal rows: nothing varies."""
    head = aligned_head(_EYE, 4.0)
    weight = torch.ones(3, 3, dtype=torch.float64) / 3 * head.weight.norm()
    _cheaper(proof, head._replace(weight=weight, bias=-weight @ _EYE.mean(dim=0)), 4.0)


@RELU_PRICE.without("NC4")
def _one_class_favoured(proof: Proof) -> None:
    """K = 3, one-hot means and a bias of 20 on one class: every output is certain."""
    head = aligned_head(_EYE, 4.0)
    _cheaper(proof, head._replace(bias=head.bias + 20 * _EYE[0]), 4.0)


@RELU_PRICE.without("balanced")
def _short_class_often(proof: Proof) -> None:
    """K = 2, means 2 e_1 and e_2, the second nine times as often."""
    means = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    _cheaper(proof, aligned_head(means, 4.0, [1, 9]), 4.0)


@RELU_PRICE.sibling
def _dearer(proof: Proof) -> None:
    """kappa >= (K/(K-1)) Delta^2 U."""
    _price(proof, K / (K - 1))
    _prices(proof, lambda k: k / (k - 1))
