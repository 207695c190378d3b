"""The least kappa at collapsed outputs, for every K, n and width: two Cauchy-Schwarz steps and their equality (B6).

w_c are the rows of W~ = P W and beta = P b; the outputs say W~ h_i + beta = Delta u_{y_i}.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_symmetry import CENTRING, K, outer, softmax_hessian
from theory.algebra.collapse import IMPURITY, p_other, p_true, q
from theory.proof import Proof


def _summed(polynomial: Any, variable: Any, moments: dict[int, Any]) -> Any:
    """The sum over an index of a polynomial in an indexed variable, from the sums of its powers."""
    terms = sympy.Poly(sympy.expand(polynomial), variable).terms()
    return sum(coefficient * moments[power[0]] for power, coefficient in terms)


def bound_for_any_head(proof: Proof, claimed: Any) -> None:
    """Both Cauchy-Schwarz steps with their gaps as sums of squares, and the sum against claimed ((K-1)/K) Delta^2 U."""
    n, gap = sympy.symbols("n Delta", positive=True)
    b = p_other
    c = K * b * (1 - K * b)
    proof.identity("the outputs fix the logits up to a constant: log p_t - log b_o = -log q", b / p_true, q)
    hessian, split = softmax_hessian(p_true, b), b * CENTRING + c * outer((1, -1 / K), (1, -1 / K))
    proof.identity("A_c = b_o P + c u_c u_c^T: the multiple of I", hessian.identity, split.identity)
    proof.identity("and its e, 1 corner, so Var_{p_c}(w) = b_o||W~||_F^2 + c||w_c||^2", hessian.corner, split.corner)
    t, r = sympy.symbols("t r", positive=True)
    orthant = {K: 2 + t, q: 1 / (1 + r)}
    proof.nonnegative("b_o > 0", b.subs(orthant), strictly=True)
    proof.nonnegative("c > 0 where 0 < q < 1", c.subs(orthant), strictly=True)
    for name, factor in (("b_o", b), ("c", c)):
        proof.nonnegative(f"{name} > 0 at the end K = 2", factor.subs({K: 2, q: 1 / (1 + r)}), strictly=True)

    # Step 1, one sample: <w_c, h> = u_c^T W~ h = Delta (K-1)/K - beta_c.
    ww, wh, hh, beta, squares = sympy.symbols("ww wh hh beta B2")
    off = ww * (hh - 2 * (wh / ww) * wh + (wh / ww) ** 2 * ww)  # ||w||^2 ||h - (<w,h>/||w||^2) w||^2
    proof.identity(
        "Cauchy-Schwarz, for w_c, h and for W~, M: ||h||^2||w||^2 - <w,h>^2 = ||w||^2||h - its part along w||^2",
        ww * hh - wh**2,
        off,
    )
    aligned = gap * (K - 1) / K
    first = n * _summed((aligned - beta) ** 2, beta, {0: K, 1: 0, 2: squares})
    proof.identity(
        "sum_i <w_c,h_i>^2 = N (Delta(K-1)/K)^2 + n ||beta||^2 as beta sums to 0", first, n * (K * aligned**2 + squares)
    )

    # Step 2: duality with Q = P (x) 1_n^T/sqrt(n) reads <W~, M> <= ||W~||_F ||M||_F, M the centred class means.
    proof.identity("P is a projection, so Q has norm 1 (multiple of I)", (CENTRING @ CENTRING).identity, 1)
    proof.identity("P is a projection (corner)", (CENTRING @ CENTRING).corner, CENTRING.corner)
    proof.identity(
        "<W~ H, Q> sqrt(n)/n = sum_c <w_c, mu_c> = (K-1) Delta: the bias term vanishes",
        _summed(aligned - beta, beta, {0: K, 1: 0}),
        gap * CENTRING.trace(),
    )
    mean, deviation, mm, within = sympy.symbols("mu_norm r mm within")
    expanded = _summed(mm + 2 * mean * deviation + deviation**2, deviation, {0: n, 1: 0, 2: within})
    proof.identity(
        "sum over a class of ||mu + r_i||^2 = n||mu||^2 + within, as the r_i sum to 0", expanded, n * mm + within
    )
    second = n * (gap * (K - 1)) ** 2

    total = (b * second + c * n * K * aligned**2) / (n * K)
    proof.identity("the sum of both is the bound", total, claimed * (K - 1) / K * gap**2 * IMPURITY)


def equality_is_collapse(proof: Proof) -> None:
    """Equality: h_i = t_i w_c and beta = 0, so W~W~^T u_c = (Delta/t_i) u_c; vectors that are not orthogonal share it.

    t_i > 0, as <w_c, h_i> = Delta (K-1)/K then. Conversely NC1 to NC3 make the biases equal, and kappa the bound.
    """
    e, f, s, t, gap = sympy.symbols("e f s t Delta", positive=True)
    inner = CENTRING.corner[1, 1]  # <u_c, u_d>, c != d: an entry of P off its diagonal
    proof.require("<u_c, u_d> = -1/K is not 0", sympy.simplify(inner + 1 / K) == 0)
    proof.require(
        "a symmetric matrix has (e - f)<u_c, u_d> = 0, so e = f for every pair of classes",
        sympy.solve((e - f) * inner, e) == [f],
    )
    # Then W~W~^T = s P with s = Delta/t: on span{u_c}, the complement of 1, and it kills 1.
    own, other = ((gap - s * t) * CENTRING.corner[1, 1] + one * (gap - s * t) for one in (1, 0))
    proof.identity(
        "conversely h_i = t w_c leaves beta = (Delta - st) u_c for every c, whose coordinate c differs between two "
        "classes by Delta - st: so st = Delta and beta = 0",
        own - other,
        gap - s * t,
    )
    b = p_other
    row = s * (K - 1) / K
    kappa = t**2 * row * (b * s * CENTRING.trace() + K * b * (1 - K * b) * row)
    bound = (K - 1) / K * gap**2 * (K - 1) * b * (2 - K * b)
    proof.identity("there kappa is the bound, st = Delta", kappa.subs(s, gap / t), bound)


def _small_head(classes: int, m: int, copies: int) -> tuple[Any, list[Any], Any, Any]:
    """W~, features, beta and Delta in symbols: every solution of the constraint at that size, up to a rotation.

    The rotation makes the first K - 1 rows lower triangular; features are free where no row sees them.
    """
    gap, zero = sympy.Symbol("Delta"), sympy.Integer(0)
    square = sympy.Matrix(classes - 1, classes - 1, lambda i, j: sympy.Symbol(f"w{i}{j}") if j <= i else zero)
    beta = sympy.Matrix(classes - 1, 1, lambda i, _: sympy.Symbol(f"beta{i}"))
    above = square.row_join(sympy.zeros(classes - 1, m - classes + 1))
    weight = above.col_join(-sympy.ones(1, classes - 1) * above)
    features = []
    for c in range(classes):
        target = sympy.Matrix(classes - 1, 1, lambda s, _, c=c: gap * (int(s == c) - sympy.Rational(1, classes)))
        for i in range(copies):
            free = sympy.Matrix(m - classes + 1, 1, lambda j, _, c=c, i=i: sympy.Symbol(f"f{c}{i}{j}"))
            features.append(square.lower_triangular_solve(target - beta).col_join(free))
    return weight, features, beta.col_join(-sympy.ones(1, classes - 1) * beta), gap


def written_out(proof: Proof, sizes: list[tuple[int, int, int]]) -> None:
    """The excess over the bound as a sum of squares, entry by entry for small (K, m, n)."""
    b = sympy.Symbol("b")  # of each other class; 1 - (K-1) b of the own
    for classes, m, copies in sizes:
        weight, features, bias, gap = _small_head(classes, m, copies)
        c = classes * b * (1 - classes * b)
        labels = [i // copies for i in range(classes * copies)]
        rows = [weight[k, :].T for k in range(classes)]
        kappa = sympy.Integer(0)
        for h, y in zip(features, labels, strict=True):
            p = [1 - (classes - 1) * b if s == y else b for s in range(classes)]
            pairs = [(s, t) for s in range(classes) for t in range(s)]
            kappa += h.dot(h) * sum(p[s] * p[t] * (rows[s] - rows[t]).dot(rows[s] - rows[t]) for s, t in pairs)
        means = [sum(features[k * copies : (k + 1) * copies], sympy.zeros(m, 1)) / copies for k in range(classes)]
        centre = sum(means, sympy.zeros(m, 1)) / classes
        size = sum(entry**2 for entry in weight)
        samples = list(zip(features, labels, strict=True))
        scattered = sum((h - means[y]).dot(h - means[y]) for h, y in samples) + len(labels) * centre.dot(centre)
        spread = size * sum((mu - centre).dot(mu - centre) for mu in means)
        spread -= sum(row.dot(mu - centre) for row, mu in zip(rows, means, strict=True)) ** 2
        aligned = sum(h.dot(h) * rows[y].dot(rows[y]) - rows[y].dot(h) ** 2 for h, y in samples)
        squares = b * (size * scattered + copies * spread) + c * (aligned + copies * sum(entry**2 for entry in bias))
        bound = len(labels) * (classes - 1) ** 2 * gap**2 * b * (2 - classes * b) / classes
        proof.identity(f"N kappa = N bound + the squares, K = {classes}, m = {m}, n = {copies}", kappa, bound + squares)
