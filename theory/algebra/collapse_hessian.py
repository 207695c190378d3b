"""The spectrum of the head's Hessian at collapse by computer algebra, for every K (B5).

H = (1/K) sum_c A_c (x) h_c h_c^T with A_c = diag(p_c) - p_c p_c^T = b_o P + c u_c u_c^T. Everything follows from
the Gram matrices of u_c (x) h'_c and u_c (x) ghat, where h'_c are the centred means and ghat is the direction of
the global mean: K is a symbol throughout. The statement is in :mod:`theory.spectrum`.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_symmetry import CENTRING, IDENTITY, K, OneClass, outer, softmax_hessian
from theory.algebra.collapse import p_other, p_true, q
from theory.formulas import Levels, levels
from theory.proof import Proof

UPPER = 1 - 1 / K
THETA = 1 - 2 / K


def _same(proof: Proof, text: str, left: OneClass, right: OneClass) -> None:
    both = [sympy.Matrix([x.identity, *x.corner]) for x in (left, right)]
    proof.identity(text, both[0], both[1])


def curvature_of_outputs(proof: Proof) -> None:
    """The softmax Hessian of a collapsed sample in b_o and c, and c > 0."""
    b, u = p_other, (1, -1 / K)
    claimed = b * CENTRING + (K * b * (1 - K * b)) * outer(u, u)
    _same(proof, "A_c = b_o P + c u_c u_c^T with c = K b_o (1 - K b_o)", softmax_hessian(p_true, b), claimed)
    for classes in (2, 3):
        p = sympy.Matrix([p_true, *[b] * (classes - 1)]).subs(K, classes)
        written = sympy.diag(*p) - p * p.T
        proof.identity(f"the same, written out for K = {classes}", written, claimed.explicit(classes))
    r = sympy.Symbol("r", positive=True)
    c_of_r = (K * b * (1 - K * b)).subs(q, 1 / (1 + r)).subs(K, 2 + sympy.Symbol("t", positive=True))
    proof.nonnegative("c > 0 for q in (0, 1), K > 2 (K = 2 + t)", c_of_r, strictly=True)
    proof.nonnegative("c > 0 at K = 2", (K * b * (1 - K * b)).subs({q: 1 / (1 + r), K: 2}), strictly=True)


def _squared_gram() -> OneClass:
    """<u_c, u_d>^2 over pairs: the entrywise square of P = a I + s J."""
    a, s = CENTRING.identity, CENTRING.corner[1, 1]
    return OneClass((a + s) ** 2 - s**2, sympy.diag(0, s**2))


def eigenvalues(proof: Proof, theta: Any) -> None:
    """X = [u_c (x) h'_c / sqrt g], Y = [u_c (x) ghat]: K H = b (g Pi_1 + K G^2 Pi_2) + c F F^T, F = r X + G Y."""
    b, c, r, G = sympy.symbols("b c r G", positive=True)
    gram, ones = _squared_gram(), outer((0, 1), (0, 1))
    _same(proof, "X^T X = theta on vectors that sum to zero", gram @ CENTRING, theta * CENTRING)
    _same(proof, "X^T X = 1 - 1/K on the vector of ones", gram @ ones, UPPER * ones)
    # F^T X = r X^T X and F^T Y = G Y^T Y with Y^T Y = P, for X^T Y = 0: so K H [X Y] = [X Y] blocks. Here r^2 = g.
    parts, grams, projections = (r, G), (gram, CENTRING), (b * r**2, b * K * G**2)
    blocks = [[c * parts[i] * parts[j] * grams[j] for j in (0, 1)] for i in (0, 1)]
    for i in (0, 1):
        blocks[i][i] += projections[i] * IDENTITY
    claimed = levels(K, b, c, r**2, G**2, theta)
    _same(proof, "X 1 is an eigenvector with the first eigenvalue", blocks[0][0] @ ones, claimed.top * ones)
    _same(proof, "up to Y (X^T X) 1, a multiple of Y 1 = 0", CENTRING @ blocks[1][0] @ ones, 0 * ones)
    scalars = sympy.Matrix([[b * r**2 + c * r**2 * theta, c * r * G], [c * r * G * theta, b * K * G**2 + c * G**2]])
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        text = f"block {i + 1}{j + 1} is a number on the vectors that sum to zero"
        _same(proof, text, blocks[i][j] @ CENTRING, scalars[i, j] * CENTRING)
    proof.identity("its trace is the sum of the pair", scalars.trace(), claimed.pair_sum)
    proof.identity("its determinant is the product of the pair", scalars.det(), claimed.pair_product)
    square = ((b + c * theta) * r**2 - (b * K + c) * G**2) ** 2 + 4 * c**2 * theta * r**2 * G**2
    proof.identity("its discriminant", claimed.pair_sum**2 - 4 * claimed.pair_product, square)
    # What is orthogonal to X in the range of Pi_1, dimension (K-1)^2 - rank X, sees b g alone.
    t = sympy.Symbol("t", nonnegative=True)
    proof.nonnegative("theta > 0 for K >= 3: X has rank K", (1 - 2 / (3 + t)), strictly=True)
    proof.identity("the bulk counts (K-1)^2 - K", (K - 1) ** 2 - K, K**2 - 3 * K + 1)
    proof.identity(
        "the rest of the range of P (x) Sigma counts 1 + 2(K-1)", (K - 1) * K - (K**2 - 3 * K + 1), 2 * K - 1
    )
    _moments(proof, claimed, b, c, r, G)
    two = [value.subs(K, 2) for value in (gram.identity, claimed.bulk, claimed.pair_sum, claimed.pair_product)]
    other = (2 * b + c) * G**2
    proof.identity("K = 2: X has rank 1", two[0], 0)
    proof.identity("K = 2: the pair is the bulk, which X no longer holds, and (2 b + c) G^2", two[2], two[1] + other)
    proof.identity("K = 2: by its product too", two[3], two[1] * other)


def _moments(proof: Proof, claimed: Levels, b: Any, c: Any, r: Any, G: Any) -> None:
    """Tr and Tr of the square, from A_c and <h_c, h_d> alone."""
    inner = {True: 1 - 1 / K, False: -1 / K}
    bulk = K**2 - 3 * K + 1
    first = claimed.top + bulk * claimed.bulk + (K - 1) * claimed.pair_sum
    squares = (K - 1) * (claimed.pair_sum**2 - 2 * claimed.pair_product)
    second = claimed.top**2 + bulk * claimed.bulk**2 + squares
    norm = r**2 * inner[True] + G**2
    impurity = b * (K - 1) + c * inner[True]
    proof.identity("the eigenvalues sum to K Tr H = sum_c ||h_c||^2 Tr A_c", first, K * norm * impurity)
    pairs = 0
    for same, number in ((True, K), (False, K * (K - 1))):
        product = b**2 * (K - 1) + 2 * b * c * inner[True] + c**2 * inner[same] ** 2
        pairs += number * product * (r**2 * inner[same] + G**2) ** 2
    proof.identity("their squares sum to sum_cd Tr(A_c A_d) <h_c, h_d>^2", second, pairs)
    on_curve = impurity.subs(c, K * b * (1 - K * b))
    proof.identity("Tr A_c = U, so kappa = lam^2 g Tr H is the collapse curve", on_curve, (K - 1) * b * (2 - K * b))


def written_out(proof: Proof, theta: Any) -> None:
    """The invariant blocks on the whole matrix K H, m = K + 1, for small K."""
    b, c, r, G = sympy.symbols("b c r G", positive=True)
    for k in range(2, 3 + proof.cases(1, 2)):
        centring = sympy.eye(k) - sympy.ones(k, k) / k
        last = sympy.Matrix([0] * k + [1])
        units = [sympy.Matrix([*centring[:, s], 0]) for s in range(k)]
        terms = []
        for s in range(k):
            u, h = centring[:, s], r * units[s] + G * last
            terms.append(sympy.kronecker_product(b * centring + c * u * u.T, h * h.T))
        hessian = sum(terms[1:], terms[0])
        X = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], units[s]) for s in range(k)])
        Y = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], last) for s in range(k)])
        claimed = levels(sympy.Integer(k), b, c, r**2, G**2, theta.subs(K, k))
        proof.identity(f"K = {k}: K H X 1", hessian * X * sympy.ones(k, 1), claimed.top * X * sympy.ones(k, 1))
        alpha = sympy.Matrix([1, -1] + [0] * (k - 2))
        block = X if k > 2 else Y
        once = hessian * block * alpha
        zero = hessian * once - claimed.pair_sum * once + claimed.pair_product * block * alpha
        proof.identity(f"K = {k}: K H is a root of the pair's polynomial", zero, 0 * zero)
        proof.require(f"K = {k}: X has rank {k if k > 2 else 1}", X.rank() == (k if k > 2 else 1))
        if k > 2:
            outside = sympy.Matrix.hstack(*X.row_join(Y).T.nullspace())
            inside = sympy.kronecker_product(centring, sympy.diag(centring, 0)) * outside
            proof.require(f"K = {k}: the bulk's dimension", inside.rank() == k**2 - 3 * k + 1)
            proof.identity(f"K = {k}: the bulk", hessian * inside, claimed.bulk * inside)


def bounds(proof: Proof, upper: Any) -> None:
    """b_o P <= A_c <= (b_o + c upper) P, then Weyl."""
    u = (1, -1 / K)
    gap = upper * CENTRING + (-1) * outer(u, u)
    _same(proof, "upper P - u u^T is upper times a projection, hence >= 0", gap @ gap, upper * gap)
    _same(proof, "and it lives in the range of P", CENTRING @ gap, gap)
    b, c = sympy.symbols("b c", positive=True)
    for k, m in ((2, 1), (2, 3), (3, 2)):
        H = sympy.Matrix(m, k, lambda i, j: sympy.Symbol(f"h{i}{j}"))
        centring = sympy.eye(k) - sympy.ones(k, k) / k
        F = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], H[:, s]) for s in range(k)])
        whole = sympy.zeros(k * m, k * m)
        for s in range(k):
            A = b * centring + c * centring[:, s] * centring[:, s].T
            whole += sympy.kronecker_product(A, H[:, s] * H[:, s].T)
        excess = whole - b * sympy.kronecker_product(centring, H * H.T)
        # A sum of K squares: >= 0, and by Weyl's inequality at most K eigenvalues pass those of b P (x) Sigma.
        proof.identity(f"K H - b P (x) Sigma = c F F^T with K columns, any features ({k}, {m})", excess, c * F * F.T)
