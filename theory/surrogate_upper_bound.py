"""The surrogate that published code logs under the name of relative flatness is an upper bound of kappa (C1).

The gap between the two is a sum over pairs of classes of squared norms, so it also shows where they meet.
"""

from __future__ import annotations

import itertools
from typing import Any

import sympy
import torch
import z3

from theory.algebra.class_symmetry import K
from theory.numeric.configurations import generator_of, normal, random_head, rows, simplex
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.numeric.surrogate import head_of, surrogate
from theory.proof import Proof
from theory.statement import Statement

SURROGATE_UPPER_BOUND = Statement(
    "surrogate_upper_bound",
    label="C1",
    claim="The surrogate, with p at any temperature of at least 1, is at least kappa. At temperature 1 the constant 1 "
    "is sharp: where some h_i is not 0, the two are equal at K = 2 iff w_1 = -w_2 and at K >= 3 iff W = 0, but "
    "kappa / s2 comes as near to 1 as one likes.",
    latex=r"\kappa \le s_2 = \|W\|_F^2\,\operatorname{mean}_i (1-\|p_i\|^2)\|h_i\|^2",
    assumptions={
        "temperature": "p in the surrogate is the softmax at a temperature of at least 1",
        "raw_features": "the surrogate's last factor has the features' own norms",
        "cross_entropy": "kappa is that of the cross-entropy",
    },
    source="the bound itself is the published code's premise; the constant and the temperatures are new",
    kind="upper",
)


def _bound_by_pairs(proof: Proof, constant: Any) -> None:
    _variance_by_pairs(proof)
    left, right = sympy.Matrix(sympy.symbols("u:3")), sympy.Matrix(sympy.symbols("v:3"))
    together, apart = (left + right).dot(left + right), (left - right).dot(left - right)
    proof.identity("the parallelogram law", 2 * left.dot(left) + 2 * right.dot(right), together + apart)
    # So 2 ||W||_F^2 = sigma + delta + 2 R for every pair of rows: sigma = ||w_s + w_t||^2, delta = ||w_s - w_t||^2,
    # R = the other rows' squared norms, and 1 - ||p||^2 (the form above at orthonormal rows) is the sum of 2 p_s p_t.
    sigma, delta, others = z3.Reals("sigma delta R")
    gap = z3.Q(constant.p, constant.q) * (sigma + delta + 2 * others) - delta
    text = "no pair's share of constant * s2 - kappa is negative, for every K"
    proof.unsatisfiable(text, [sigma >= 0, delta >= 0, others >= 0, gap < 0])


def _variance_by_pairs(proof: Proof) -> None:
    # No coefficient of the quadratic form in p holds an index but its own two: four classes show all of them.
    p = sympy.symbols("p:4")
    gram = sympy.Matrix(4, 4, lambda s, t: sympy.Symbol(f"g{min(s, t)}{max(s, t)}"))
    pairs = [p[s] * p[t] * gram[s, t] for s in range(4) for t in range(4)]
    form = sympy.Poly(sum(p) * sum(p[s] * gram[s, s] for s in range(4)) - sum(pairs), *p)
    for s, t in itertools.combinations_with_replacement(range(4), 2):
        distance = gram[s, s] + gram[t, t] - 2 * gram[s, t]
        text = f"coefficient of p_{s} p_{t} in kappa / ||h||^2: ||w_{s} - w_{t}||^2"
        proof.identity(text, form.coeff_monomial(p[s] * p[t]), distance)


@SURROGATE_UPPER_BOUND.certificate("symbolic", covers="every K >= 2, W, b, h", relies_on="sympy, z3", whole=True)
def _bound(proof: Proof) -> None:
    """The gap over pairs of classes, from kappa = mean ||h||^2 Var_p(w) (A2), for every K; equality; temperature."""
    _bound_by_pairs(proof, sympy.Integer(1))
    for classes in (2, 3):
        _bound_expanded(proof, classes, width=2)
    _sharp_for_every_k(proof)
    _hotter_is_larger(proof)


def _bound_expanded(proof: Proof, classes: int, width: int) -> None:
    exponentials = sympy.symbols(f"x:{classes}", positive=True)
    weight = sympy.Matrix(classes, width, sympy.symbols(f"w:{classes * width}"))
    features = sympy.Matrix(sympy.symbols(f"h:{width}"))
    logsumexp = sympy.log(sum(exponentials))

    # d/dz_s = x_s d/dx_s where x = exp(z): the chain rule, without exponentials.
    def derivative(expression: Any, s: int) -> Any:
        return exponentials[s] * sympy.diff(expression, exponentials[s])

    norm, gram = features.dot(features), weight * weight.T
    p = [derivative(logsumexp, s) for s in range(classes)]
    kappa = sum(gram[s, t] * norm * derivative(p[s], t) for s in range(classes) for t in range(classes))
    gap = sum(
        p[s] * p[t] * (gram[s, s] + 2 * gram[s, t] + gram[t, t] + 2 * (gram.trace() - gram[s, s] - gram[t, t]))
        for s, t in itertools.combinations(range(classes), 2)
    )
    s2 = gram.trace() * (1 - sum(value**2 for value in p)) * norm
    proof.identity(f"s2 - kappa, from the derivatives of log-sum-exp, K = {classes}", s2 - kappa, gap * norm)


def _sharp_for_every_k(proof: Proof) -> None:
    p, e, r, more = sympy.symbols("p e r t", positive=True)
    # Rows w and -w, ||w||^2 = r: Var_p = r - ||(2p - 1) w||^2. Conversely the gap at K = 2 is
    # p (1 - p) ||w_1 + w_2||^2 ||h||^2.
    s2 = 2 * r * (1 - p**2 - (1 - p) ** 2)
    proof.identity("K = 2, w_1 = -w_2, every p: kappa = s2", r - (2 * p - 1) ** 2 * r, s2)
    # K - 2 more rows 0, of probability e each, and the first two equally probable.
    half = (1 - (K - 2) * e) / 2
    ratio = (2 * half * r) / (2 * r * (1 - 2 * half**2 - (K - 2) * e**2))
    proof.identity("K a symbol: kappa / s2 -> 1 as K - 2 probabilities go to 0", sympy.limit(ratio, e, 0), 1)
    # Every p_s p_t > 0 and every ||w_s||^2 is in R for the pairs without s: no gap forces W = 0.
    without_s = K * (K - 1) / 2 - (K - 1)
    proof.nonnegative("each row is outside some pair at K >= 3", without_s.subs(K, 2 + more), strictly=True)
    proof.identity("and outside none at K = 2", without_s.subs(K, 2), 0)


def _hotter_is_larger(proof: Proof) -> None:
    beta = sympy.Symbol("beta", positive=True)
    z = sympy.symbols("z:3", real=True)
    weights = [sympy.exp(beta * value) for value in z]
    p = [value / sum(weights) for value in weights]
    pairs = sum(2 * p[s] * p[t] * (p[s] - p[t]) * (z[s] - z[t]) for s, t in itertools.combinations(range(3), 2))
    slope = sympy.diff(sum(value**2 for value in p), beta)
    x = sympy.symbols("x:3", positive=True)
    in_x = dict(zip(weights, x, strict=True))
    proof.identity(
        "K = 3: d||p||^2 / d(1/tau) = 2 sum over pairs of p_s p_t (p_s - p_t)(z_s - z_t)",
        slope.subs(in_x),
        pairs.subs(in_x),
    )
    ps, pt, zs, zt, growth, step = sympy.symbols("p_s p_t z_s z_t g d", positive=True)
    # dp_s = p_s sum_t p_t (z_s - z_t), so the pair's share of 2 sum p_s dp_s, for every K.
    share = 2 * ps * ps * pt * (zs - zt) + 2 * pt * pt * ps * (zt - zs)
    proof.identity("the same pair by pair, for every K", share, 2 * ps * pt * (ps - pt) * (zs - zt))
    # The larger logit z_t + d has the larger probability p_t (1 + g).
    larger = share.subs({ps: pt * (1 + growth), zs: zt + step})
    proof.nonnegative("each pair's share is positive: 1 - ||p||^2 rises with the temperature", larger, strictly=True)


def _bound_measured(proof: Proof, constant: float) -> None:
    for seed in range(proof.cases(8, 60)):
        head = random_head(seed, K=2 + seed % 5, m=1 + seed % 4, n=4, scale=0.3 + seed % 3)
        kappa = kappa_by_hessian(head)
        for temperature in (1.0, 2.0, 10.0):
            bound = constant * surrogate(head, temperature=temperature)
            proof.at_most(f"random head {seed}, temperature {temperature:g}", kappa, bound)
    opposite = head_of(normal(generator_of(0), 3, 2), rows([1.0, -0.5], [-1.0, 0.5]))
    proof.at_most("two opposite rows", kappa_by_hessian(opposite), constant * surrogate(opposite))
    proof.close("two opposite rows: nothing between", surrogate(opposite), kappa_matrix_free(opposite))
    # The other K - 2 rows are 0 and their biases make them improbable.
    for classes in (3, 6):
        weight, bias = torch.zeros(classes, 2, dtype=torch.float64), torch.full((classes,), -7.0, dtype=torch.float64)
        weight[0], weight[1], bias[:2] = weight.new_tensor([0.0, 1.0]), weight.new_tensor([0.0, -1.0]), 0.0
        near = head_of(rows([1.0, 0.0]), weight, bias)
        kappa, s2 = kappa_by_hessian(near), surrogate(near)
        proof.at_most(f"K = {classes}, near the supremum", kappa, constant * s2)
        proof.at_most(f"K = {classes}, kappa / s2 > 0.98", 0.98 * s2, kappa)


@SURROGATE_UPPER_BOUND.certificate(
    "numeric", covers="random heads, temperatures 1, 2, 10, and the extremal ones", relies_on="exact Hessians"
)
def _bound_numeric(proof: Proof) -> None:
    """The library's surrogate against kappa by exact Hessians, and at the heads where the two meet."""
    _bound_measured(proof, 1.0)


@SURROGATE_UPPER_BOUND.without("temperature")
def _cold(proof: Proof) -> None:
    """K = 2, opposite rows, temperature 1/2: p is sharper than the model's own."""
    head = head_of(rows([1.0, 0.0], [2.0, 1.0]), rows([1.0, 0.0], [-1.0, 0.0]))
    proof.exceeds("kappa against the surrogate", kappa_by_hessian(head), surrogate(head, temperature=0.5))


@SURROGATE_UPPER_BOUND.without("raw_features")
def _normalised(proof: Proof) -> None:
    """K = 3, features of norm 4, at the published penalty's temperature 2 and at 1: normalised norms lose them."""
    head = head_of(4 * torch.eye(2, dtype=torch.float64), simplex(3, 2, 0.1))
    for temperature in (1.0, 2.0):
        s2 = surrogate(head, temperature=temperature, normalize_features=True)
        proof.exceeds(f"kappa against the surrogate, temperature {temperature:g}", kappa_by_hessian(head), s2)


@SURROGATE_UPPER_BOUND.without("cross_entropy")
def _squared_loss(proof: Proof) -> None:
    """The squared loss, whose kappa does not fall with the confidence."""
    head = random_head(2, K=3, m=2, n=4)
    proof.exceeds("kappa against the surrogate", kappa_by_hessian(head, "squared"), surrogate(head))


@SURROGATE_UPPER_BOUND.sibling
def _constant_below_one(proof: Proof) -> None:
    """0.99 s2 >= kappa."""
    _bound_by_pairs(proof, sympy.Rational(99, 100))
    _bound_measured(proof, 0.99)
