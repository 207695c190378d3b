"""The unconstrained-features model near its optimum and at its origin, for every K, m and n: the rates of D3.

F(W, H) = mean cross-entropy of W h_i over N = nK samples + (l_W/2)||W||_F^2 + (l_H/2)||H||_F^2, and the
rates are the eigenvalues of its Hessian: a perturbation of the flow d(W, H)/dt = -grad F along one decays
as exp(-rate t). A flow that takes each sample's own loss, without 1/N, is N times as fast.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_symmetry import CENTRING, K, OneClass, outer, softmax_hessian
from theory.algebra.matrix_words import IDENTITY, Words, letters
from theory.proof import Proof

DELTA, B, DECAY, SAMPLES = sympy.symbols("Delta b l n", positive=True)
"""The logit gap, the probability of each other class, the decay, and the samples in a class."""
_TRUE = 1 - (K - 1) * B
_U = (1, -1 / K)
"""u_c = P e_c by its coordinates along e_c and the ones."""

WITHIN = (1 + DELTA * _TRUE, 1 + DELTA / K, sympy.Integer(1))
"""The within-class rates over l_H: once, K - 2 times, m - K + 1 times."""


def within_by_algebra(proof: Proof, claimed: tuple[Any, Any, Any] = WITHIN) -> None:
    """Eigenvectors of W^T (diag p - p p^T) W at the minimiser, where stationarity fixes the scale of W."""
    scale, curvature = _stationary(proof), softmax_hessian(_TRUE, B)
    split = B * CENTRING + (K * B * (1 - K * B)) * outer(_U, _U)
    _same(proof, "diag p - p p^T = b P + K b (1 - K b) u u^T", curvature, split)
    # W^T A W maps W^T x to W^T (A W W^T x), and W W^T = lam Delta P; samples weigh 1/N against the decay l.
    product = (1 / (SAMPLES * K * DECAY)) * (curvature @ (scale * DELTA * CENTRING))
    along = product @ outer(_U, _U)
    _same(proof, "W^T u_c, once", along, (claimed[0] - 1) * outer(_U, _U))
    # e_c and the ones span the range of the corner: it maps their orthogonal complement to 0.
    proof.identity("W^T x for x orthogonal to e_c and the ones, K - 2 times", product.identity, claimed[1] - 1)
    proof.identity("W x = 0, m - K + 1 times: W^T A W x = 0", sympy.Integer(1), claimed[2])
    width = sympy.Symbol("m", positive=True)
    counted = (claimed[0] - 1) + (K - 2) * (claimed[1] - 1) + (width - K + 1) * (claimed[2] - 1)
    proof.identity("these are all: Tr W^T A W is the sum over the m of them", product.trace(), counted)
    _uncoupled(proof)


def _uncoupled(proof: Proof) -> None:
    # The part of sample i in N times the gradient in W is (p_i - e) h_i^T; moving h_i by d changes it by this. All of
    # a class have one h and one p at the optimum; and no sample's gradient in h_i holds another's feature.
    curvature, weight, feature, residual, shift = letters("A W h g d")

    def change(moved: Words) -> Words:
        return curvature @ weight @ moved @ feature.T + residual @ moved.T

    both = change(shift) + change((-1) * shift)
    proof.require("d on one sample and -d on another of its class leave the gradient in W", not both.terms)


def _stationary(proof: Proof) -> Any:
    lam, radius, decay_w, decay_h = sympy.symbols("lam M l_W l_H", positive=True)
    p_less_e = outer((_TRUE - 1 - B, B), (1, 0))
    _same(proof, "p_c - e_c = -K b u_c", p_less_e, (-K * B) * outer(_U, (1, 0)))
    gram = lam**2 * radius**2 * K / (K - 1) * CENTRING
    own = (gram @ outer((1, 0), (1, 0))).trace()
    shared = ((gram @ outer((1, 0), (0, 1))).trace() - own) / (K - 1)
    # w_c = lam h_c, and Delta = <w_c - w_j, h_c>.
    proof.identity("W W^T = lam Delta P", (own - shared) / lam, gram.identity / lam)
    # In h_c: (1/N) W^T (p - e_c) + l_H h_c = 0 with W^T u_c = w_c; in W: (1/N) sum (p - e) h^T + l_W W = 0.
    in_h, in_w = -(K * B / (SAMPLES * K)) * lam + decay_h, -(K * B * SAMPLES / (SAMPLES * K)) / lam + decay_w
    found = sympy.solve(in_h, lam)[0]
    proof.identity("lam = n l_H / b", found, SAMPLES * decay_h / B)
    proof.identity("b^2 = n l_W l_H", sympy.solve(in_w.subs(lam, found), decay_w)[0] * SAMPLES * decay_h, B**2)
    return found.subs(decay_h, DECAY)


EARLY = 1 / (K * sympy.sqrt(SAMPLES)) - DECAY
"""The growth rate at the origin, l_W = l_H = l."""


def origin_by_algebra(proof: Proof, claimed: Any = EARLY) -> None:
    """The cross block -(1/N) P Y of the Hessian at the origin, and the Hessian itself at K = 2, 3."""
    _same(proof, "P P = P", CENTRING @ CENTRING, CENTRING)
    # The Hessian less l is [[0, C], [C^T, 0]], C = -P Y / N, whose eigenvalues are 0 and +- the singular values of C.
    centring, membership = letters("P Y")
    rules = [(centring.T, centring), (centring @ centring, centring)]
    cross = (-1 / (SAMPLES * K)) * (centring @ membership)
    square = (cross @ cross.T).given((membership @ membership.T, SAMPLES * IDENTITY), *rules)
    text = "Y Y^T = n I, n samples in each class: C C^T = (growth + l)^2 P"
    proof.require(text, square.equals(((claimed + DECAY) ** 2) * centring))
    for classes, copies in ((2, 2), (3, 1)):
        hessian = _expanded_at_origin(classes, copies)
        square = ((claimed + DECAY) ** 2).subs({K: classes, SAMPLES: copies})
        text = f"K = {classes}, n = {copies}: the Hessian less l is 0 or +-(growth + l)"
        proof.identity(text, hessian**3, square * hessian)
        proof.identity(f"K = {classes}, n = {copies}: K - 1 of each sign", hessian.rank(), 2 * (classes - 1))


def _expanded_at_origin(classes: int, copies: int) -> Any:
    w, x, samples = sympy.symbols(f"w:{classes}"), sympy.Symbol("x"), classes * copies
    logsumexp = sympy.log(sum(sympy.exp(v * x) for v in w))
    curved = sympy.hessian(logsumexp, (*w, x)).subs(dict.fromkeys((*w, x), 0))
    hessian = sympy.zeros(classes + samples)
    for sample in range(samples):
        own = curved - sympy.hessian(w[sample % classes] * x, (*w, x))
        # A sample's loss holds W and its own feature.
        place = sympy.eye(classes + samples)[:, [*range(classes), classes + sample]]
        hessian += place * own * place.T / samples
    return hessian


def optimum_by_algebra(proof: Proof) -> None:
    """Every rate over l at the minimiser is a function of (Delta, K): n and l scale out, spare m adds 0, l and 2l."""
    a, c, scaled = sympy.symbols("a c L", positive=True)
    # W = n^(1/4) W', class means n^(-1/4) M': W M and the loss stay; a = ||W'||^2, c = ||M'||^2. The orthonormal
    # coordinate sqrt(n) M scales as W does, so the Hessian is n^(-1/2) times that of n = 1.
    decay = scaled / sympy.sqrt(SAMPLES) / 2 * (sympy.sqrt(SAMPLES) * a + SAMPLES * c / sympy.sqrt(SAMPLES))
    proof.identity("the decay is that of n = 1 with L = sqrt(n) l", decay, scaled / 2 * (a + c))
    # n = 1, L = b: a direction orthogonal to all rows and features meets sum_c (p_c - e_c) e_c^T / K alone.
    cross = (-1 / K) * (K * B) * CENTRING
    _same(proof, "spare dimensions: L +- L and L", cross @ cross, B**2 * CENTRING)
    _smallest_optimum(proof)


def _smallest_optimum(proof: Proof) -> None:
    w, g = sympy.symbols("w:2"), sympy.symbols("g:2")
    x, q, s = sympy.Symbol("x"), sympy.Symbol("q", positive=True), sympy.Symbol("s", positive=True)
    # g = sqrt(n) M, the coordinate of n equal features; w and g are (1, -1) n^(1/4) s, so Delta = 2 s^2.
    size, decay = s * SAMPLES ** sympy.Rational(1, 4), q / (1 + q) / sympy.sqrt(SAMPLES)
    losses = [sympy.log(1 + sympy.exp((w[1 - i] - w[i]) * g[i] / sympy.sqrt(SAMPLES))) for i in range(2)]
    hessian = sympy.hessian(sum(losses) / 2, (*w, *g)).subs({w[0]: size, w[1]: -size, g[0]: size, g[1]: -size})
    hessian = hessian.subs(sympy.exp(-2 * s**2), q) / decay + sympy.eye(4)
    gap = 2 * s**2
    factors = (2 * gap / (1 + q), 2, 1, 1 + gap / 2 + gap * (1 - q) / (1 + q) / 2)
    found = hessian.applyfunc(sympy.cancel).charpoly(x).as_expr()
    text = "K = 2, m = 1, every n: the four rates over l outside the classes"
    proof.identity(text, found, sympy.prod(x - factor for factor in factors))


def _same(proof: Proof, text: str, left: OneClass, right: OneClass) -> None:
    proof.identity(text, sympy.Matrix([left.identity, *left.corner]), sympy.Matrix([right.identity, *right.corner]))
