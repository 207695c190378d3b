"""The flattest factorisation for every K, m and rank: reduction, convexity, existence, and what collapse attains (B6').

P = A^T A; S_H and S_B are the two sides of the stationarity condition of :mod:`grokcore.factorisation`.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_pairs import PS, PT, XS, XT, moment, over_pairs
from theory.algebra.class_symmetry import CENTRING, K, OneClass, outer, softmax_hessian
from theory.algebra.collapse import p_other, p_true
from theory.proof import Proof


def schur_complements(proof: Proof) -> None:
    """P in blocks [[a, b], [b^T, c]] of any sizes: letters that do not commute, transposes as letters of their own."""
    a, b, bt, c, x, xt, y, yt, s = sympy.symbols("a b bt c x xt y yt s", commutative=False)
    schur = a - b * c**-1 * bt
    square = (yt + xt * b * c**-1) * c * (y + c**-1 * bt * x)
    form = xt * a * x + xt * b * y + yt * bt * x + yt * c * y
    proof.identity("h^T P h = x^T Q x + ||y + c^-1 b^T x||_c^2, Q = a - b c^-1 b^T", form, xt * schur * x + square)
    # So an unseen part y only adds, and adds nothing to any sample iff y_i = L x_i with one L: iff rank H = rank of the
    # seen part. Where P^-1 stands, the same words say it of the rows: nothing is added iff rank W~ = rank W~ H.
    column = sympy.Matrix([a * s - b * c**-1 * bt * s, bt * s - c * c**-1 * bt * s])
    proof.identity(
        "P (s, -c^-1 b^T s) = (Q s, 0): the corner of P^-1 is Q^-1, so d^T P^-1 d = d^T Q^-1 d there",
        column.applyfunc(sympy.expand),
        sympy.Matrix([sympy.expand(schur * s), 0]),
    )
    graph, graph_t = sympy.symbols("L Lt", commutative=False)
    chosen = {a: s + graph_t * c * graph, b: -graph_t * c, bt: -c * graph}
    proof.identity(
        "attained on the graph y = L x: P = [[Q + L^T c L, -L^T c], [., c]] has h^T P h = x^T Q x",
        sympy.expand(form.subs(chosen).subs({y: graph * x, yt: xt * graph_t})),
        xt * s * x,
    )
    p = sympy.Matrix(3, 3, lambda i, j: sympy.Symbol(f"p{min(i, j)}{max(i, j)}"))
    d = sympy.Matrix(sympy.symbols("d0:3"))
    # The same for P^-1 (roles exchanged), multiplied by det P det P_SS: a direction without a feature only adds.
    corner, cross = p[:2, :2], p[2, :2]
    kept = (d[:2, :].T * corner.adjugate() * d[:2, :])[0] * p.det()
    added = (d[2] * corner.det() - (cross * corner.adjugate() * d[:2, :])[0]) ** 2
    whole = (d.T * p.adjugate() * d)[0] * corner.det()
    proof.identity("d^T P^-1 d = d_S^T P_SS^-1 d_S + a square, in full at 2 + 1", whole, kept + added)


def geodesic_convexity(proof: Proof) -> None:
    """Every geodesic is A^T e^{tD} A; kappa along it is a sum of c_jk e^{t(l_j - l_k)}, c_jk >= 0."""
    entries, x, h, d = (sympy.symbols(names) for names in ("a:d", "x0:2", "h0:2", "d0:2"))
    A, h, d = sympy.Matrix(2, 2, entries), sympy.Matrix(h), sympy.Matrix(d)
    forth, back = sympy.diag(*x), sympy.diag(1 / x[0], 1 / x[1])
    term = (h.T * A.T * forth * A * h)[0] * (d.T * A.inv() * back * A.inv().T * d)[0]
    left, right = A * h, A.inv().T * d
    terms = sum(left[j] ** 2 * right[k] ** 2 * x[j] / x[k] for j in range(2) for k in range(2))
    proof.identity("one sample, one pair of rows, r = 2: (Ah)_j^2 (A^-T d)_k^2 x_j/x_k, x_j = e^{t l_j}", term, terms)
    t, j, k = sympy.symbols("t l_j l_k", real=True)
    exponential = sympy.exp(t * (j - k))
    curvature = sympy.diff(exponential, t, 2) / exponential
    proof.identity(
        "its second derivative is (l_j - l_k)^2 times itself; as every c_jk > 0, all vanish only along P itself",
        curvature,
        (j - k) ** 2,
    )


def definite_sums(proof: Proof) -> None:
    """B_i > 0 and sum_i f_i f_i^T > 0: every c_jk > 0, and kappa >= const Tr P Tr P^-1 has a minimum."""
    variance = moment(1, 2) - moment(1, 1) ** 2
    proof.identity(
        "x^T (diag p - p p^T) x = (1/2) sum p_s p_t (x_s - x_t)^2, every K",
        over_pairs(PS * PT * (XS - XT) ** 2) / 2,
        variance,
    )
    proof.identity(
        "(1/2) sum (x_s - x_t)^2 = K||x||^2 - (1^T x)^2: with p_s >= a, B_i >= a^2 K G^T G > 0, as 1^T G = 0",
        over_pairs((XS - XT) ** 2) / 2,
        moment(0, 0) * moment(0, 2) - moment(0, 1) ** 2,
    )
    largest, least, others, inverses = sympy.symbols("l_max l_min a b", positive=True)
    proof.nonnegative(
        "(l_max + a)(1/l_min + b) > l_max/l_min, every r: P of one scale and bounded kappa lie in a compact set",
        (largest + others) * (1 / least + inverses) - largest / least,
        strictly=True,
    )


def stationarity(proof: Proof) -> None:
    """The gradient vanishes exactly where S_H = P^-1 S_B P^-1."""
    X = sympy.Symbol("X", commutative=False)
    t, n, v, hx, bx = sympy.symbols("t n v hx bx")
    proof.identity("(1 + tX)(1 - tX) = 1 - t^2 X^2", sympy.expand((1 + t * X) * (1 - t * X)), 1 - t**2 * X**2)
    proof.identity(
        "so at P = 1 + tX, every r, n v becomes (n + t h^T X h)(v - t Tr BX) to first order: slope <v h h^T - n B, X>",
        sympy.diff((n + t * hx) * (v - t * bx), t).subs(t, 0),
        v * hx - n * bx,
    )
    a, b, c = sympy.symbols("a b c")
    P, h = sympy.Matrix([[a, b], [b, c]]), sympy.Matrix(sympy.symbols("h0:2"))
    e, f, g = sympy.symbols("e f g")
    B = sympy.Matrix([[e, f], [f, g]])
    value = (h.T * P * h)[0] * (B * P.inv()).trace()
    found = sympy.Matrix(
        [[sympy.diff(value, a), sympy.diff(value, b) / 2], [sympy.diff(value, b) / 2, sympy.diff(value, c)]]
    )
    claimed = (B * P.inv()).trace() * h * h.T - (h.T * P * h)[0] * P.inv() * B * P.inv()
    proof.identity(
        "the gradient in P is v h h^T - n P^-1 B P^-1: critical where S_H = P^-1 S_B P^-1, r = 2", found, claimed
    )


def _class_mean(of_one: OneClass) -> OneClass:
    """The mean over the class c that is singled out: e e^T becomes I/K, e 1^T and 1 e^T become 11^T/K."""
    (ee, e1), (one_e, ones) = of_one.corner.tolist()
    return OneClass(of_one.identity + ee / K, sympy.Matrix([[0, 0], [0, (e1 + one_e) / K + ones]]))


def collapse_is_critical(proof: Proof, mean: Any) -> None:
    """W~ = P and h_c = u_c + mean 1, in the K coordinates of the classes: is S_H = S_B, P = I critical, the minimum?

    The coordinate along 1 is one that no row sees.
    """
    own = CENTRING @ softmax_hessian(p_true, p_other) @ CENTRING
    feature = outer((1, mean - 1 / K), (1, mean - 1 / K))
    scatter, between = own.trace() * _class_mean(feature), feature.trace() * _class_mean(own)
    proof.identity("S_H = S_B at collapse, the multiple of I", scatter.identity, between.identity)
    proof.identity("S_H = S_B at collapse, the rest", scatter.corner, between.corner)
    for classes in (2, 3, 4):
        proof.identity(
            f"the class mean written out, K = {classes}",
            _class_mean(own).explicit(classes),
            sum((own.explicit(classes, k) for k in range(classes)), sympy.zeros(classes)) / classes,
        )
