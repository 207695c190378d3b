"""The second variation of the unconstrained-features model at the origin and at its minimiser, for every K (D2).

Each family of directions that the Hessian maps to itself is taken in turn, with K, n, m, the gap and the decays as
symbols; the counts of the families add up to all eigenvalues. The numbers are in theory/ufm_spectrum.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy

from theory.algebra import nuclear_norm
from theory.algebra.class_matrices import FAMILIES, ClassMatrix, letter
from theory.algebra.class_symmetry import CENTRING, K, outer, softmax_hessian
from theory.algebra.matrix_words import IDENTITY, letters
from theory.algebra.nuclear_norm import E, P
from theory.proof import Proof


@dataclass(frozen=True)
class SecondVariation:
    """The Hessian of the unconstrained-features model at its minimiser, on class means in the span of the head.

    The minimiser is W = w (V, 0), H = eta (V, 0)^T (x) 1_n^T with V V^T = P. A direction is dW = (A V, 0) and
    dH = (V^T X, 0) (x) 1_n^T / sqrt n with A 1 = 0 and 1^T X = 0; its second variation is

        l_W |A|^2 + l_H |X|^2 - 2 s tr(PAX) + (1/K) sum_y d_y^T (b P + c u_y u_y^T) d_y,   d_y = (eta A + omega X) e_y

    with s = sqrt(l_W l_H), omega = w / sqrt n.
    """

    l_W: Any  # noqa: N815
    l_H: Any  # noqa: N815
    s: Any
    eta: Any
    omega: Any
    b: Any
    c: Any

    def apply(self, A: ClassMatrix, X: ClassMatrix) -> tuple[ClassMatrix, ClassMatrix]:
        """Half the gradient of the second variation, back on A 1 = 0 and 1^T X = 0."""
        D = (self.eta * A + self.omega * X).centre_columns()
        E = (1 / K) * (self.b * D + self.c * D.diagonal().centre_columns())
        along_A = self.l_W * A - self.s * X.T.centre_columns() + self.eta * E
        along_X = self.l_H * X - self.s * A.centre_columns().T + self.omega * E
        return along_A.centre_rows(), along_X.centre_columns()

    def value(self, A: Any, X: Any) -> Any:
        """The second variation itself at explicit sympy matrices A, X (K x K)."""
        size = A.shape[0]
        P = sympy.eye(size) - sympy.ones(size, size) / size
        total = self.l_W * (A.T * A).trace() + self.l_H * (X.T * X).trace() - 2 * self.s * (P * A * X).trace()
        D = self.eta * A + self.omega * X
        for y in range(size):
            d, u = D[:, y], P[:, y]
            total += ((d.T * P * d)[0] * self.b + (u.T * d)[0] ** 2 * self.c) / size
        return total


def at_the_origin(proof: Proof) -> None:
    """dZ = 0 to first order: 2 <G, dW dH> with G = -P (x) 1'/(nK), singular values 1/(K sqrt n)."""
    nu, l_W, l_H, L, m, x = sympy.symbols("nu l_W l_H L m x", positive=True)
    n = nu**2
    nuclear_norm.collapsed_polar_factor(proof)
    singular = 1 / (K * nu)
    proof.identity("G = -(1/nK) sqrt(n) X", 1 / (n * K) * nu, singular)
    block = sympy.Matrix([[l_W, -singular], [-singular, l_H]])
    claimed = (x - (l_W + l_H) / 2) ** 2 - ((l_W - l_H) / 2) ** 2 - 1 / (K**2 * n)
    proof.identity(
        "each of m(K-1) pairs: (x - mean)^2 - half^2 is its polynomial", (x * sympy.eye(2) - block).det(), claimed
    )
    proof.identity(
        "det has the sign of L - 1/K: n det = L^2 - 1/K^2",
        (n * block.det()).subs(l_H, L**2 / (n * l_W)),
        L**2 - 1 / K**2,
    )
    counted = 2 * m * (K - 1) + m + m * (n * K - K + 1)
    proof.identity("all Km + mN eigenvalues are counted", counted, K * m + m * n * K)


def at_the_minimiser(proof: Proof, zeros: Callable[[Any, Any], Any]) -> None:
    """Every family of eigenvectors, K, n, m, Delta and the decays as symbols; `zeros` is claimed of (K, m)."""
    r, s, delta, nu, m = sympy.symbols("r s delta nu m", positive=True)
    # Rational throughout: l_W = s r^2, l_H = s/r^2, Delta = delta^2, n = nu^4.
    l_W, l_H, gap, n = s * r**2, s / r**2, delta**2, nu**4
    b, eta, omega = nu**2 * s, delta * r / nu, delta / (r * nu)
    head = omega * nu**2
    proof.identity("b = L, and the factors have the product Delta", head * eta, gap)
    proof.identity("critical in W: (L/n) n eta = l_W w", b * eta, l_W * head)
    proof.identity("critical in H: (L/n) w = l_H eta", b * head / n, l_H * eta)
    c, p = K * b * (1 - K * b), 1 - (K - 1) * b
    u = (1, -1 / K)
    proof.identity(
        "P S P = S = b P + c u u': corner", softmax_hessian(p, b).corner, (b * CENTRING + c * outer(u, u)).corner
    )
    tau, psi, theta = gap / K, gap * (1 - K * b), 1 - 2 / K
    weight = head**2 / (n * K)
    proof.identity("within a class, across u_y: l_H (1 + Delta/K)", l_H + weight * b, l_H * (1 + tau))
    along = l_H + weight * (b + c * outer(u, u).trace())
    proof.identity("within a class, along u_y: l_H (1 + Delta p_t)", along, l_H * (1 + gap * p))
    outside = sympy.Matrix([[l_W, -s], [-s, l_H]])
    proof.identity(
        "out of the span: 0 and l_W + l_H", sympy.Matrix([outside.det(), outside.trace()]), sympy.Matrix([0, l_W + l_H])
    )
    _directions(proof)
    form = SecondVariation(l_W, l_H, s, eta, omega, b, c)
    nothing = 0 * letter("I")
    shift = form.apply(letter("1v"), nothing)
    _same(proof, "row shift: l_W", shift, (l_W * letter("1v"), nothing))
    pairs = {"trivial": (gap * p, gap * p - 1), "symmetric": (tau, tau - 1), "antisymmetric": (tau, tau + 1)}
    for name, (a, e) in pairs.items():
        F = FAMILIES[name]
        _same(proof, f"{name}: column 1 of E", form.apply(F, nothing), (l_W * (1 + a) * F, s * e * F))
        _same(proof, f"{name}: column 2", form.apply(nothing, F), (s * e * F, l_H * (1 + a) * F))
        determinant = l_W * l_H * ((1 + a) ** 2 - e**2)
        proof.identity(
            f"{name}: det E, 0 for rotations only", determinant, 0 if name == "antisymmetric" else 4 * s**2 * a
        )
    F, x = FAMILIES["standard"], letter("v1")
    triple = _triple(l_W, l_H, s, tau, psi, theta, K)
    for j, direction in enumerate(((F, nothing), (nothing, F), (nothing, x))):
        expected = (triple[0, j] * F, triple[1, j] * F + triple[2, j] * x)
        _same(proof, f"standard: column {j + 1} of the triple", form.apply(*direction), expected)
    proof.identity(
        "|P diag(v) P|^2 = <v, diag(PVP)> = theta |v|^2, and |v1'|^2 = K |v|^2", F.diagonal().terms["V"], theta
    )
    _triple_is_positive(proof)
    free = m - K + 1
    counted = K * m * (n - 1) + 2 * free * K + (K - 1) + 2 + (K - 1) * (K - 2) + K * (K - 3) + 3 * (K - 1)
    proof.identity("all Km + mN eigenvalues are counted, K >= 3", counted, K * m + m * n * K)
    proof.identity("and at K = 2", (2 * m * (n - 1) + 4 * (m - 1) + 1 + 2 + 1), 2 * m + 2 * m * n)
    proof.identity("zeros: (K-1)(m-K+1) + (K-1)(K-2)/2", (K - 1) * free + (K - 1) * (K - 2) / 2, zeros(K, m))
    proof.identity("dim O(m)W, W of rank K-1", m * (m - 1) / 2 - free * (free - 1) / 2, (K - 1) * (2 * m - K) / 2)
    _algebra_is_matrices(proof)


def _directions(proof: Proof) -> None:
    """How dW = A V + B F' and dH = (V'X + F C) E/sqrt n + D enter: V V' = P, F the rest of R^m, D E' = 0."""
    A, B, C, D, F, V, X = letters("A B C D F V X")
    w, eta, root = sympy.symbols("w eta nu", positive=True)
    rules = [*nuclear_norm.BALANCED, (V @ V.T, P), (F.T @ F, IDENTITY), (V @ F, 0 * P), (F.T @ V.T, 0 * P)]
    rules += [(A @ P, A), (P @ X, X), (D @ E.T, 0 * V)]
    W, H = w * V, eta * (V.T @ E)
    dW, dH = A @ V + B @ F.T, 1 / root * ((V.T @ X + F @ C) @ E) + D
    first = (dW @ H + W @ dH).given(*rules)
    inside = eta * A + w / root * X
    text = "dZ = (eta A + omega X)E + w V D: B and C do not move Z, within a class only D does"
    proof.require(text, first.equals(inside @ E + w * (V @ D)))
    sums = (first @ E.T).given(*rules)
    text = "class sums of dZ have no D: the loss splits into class means and what is within a class"
    proof.require(text, sums.equals(nuclear_norm.n * inside))
    # <-G, dW dH> = s tr(P dW dH E')/sqrt n.
    product = 1 / root * (P @ dW @ dH @ E.T).given(*rules)
    text = "<-G, dW dH> = s tr P(AX + BC): A only with X, B only with C, D with nothing"
    proof.require(text, product.equals(nuclear_norm.n / root**2 * (P @ (A @ X + B @ C)).given(*rules)))


def _triple(l_W: Any, l_H: Any, s: Any, tau: Any, psi: Any, theta: Any, K: Any) -> Any:
    """On (P diag(v) P, 0), (0, P diag(v) P), (0, v1'), whose squared norms are theta, theta and K."""
    both = tau + psi * theta
    return sympy.Matrix(
        [
            [l_W * (1 + both), s * (both - 1), s * psi],
            [s * (both - 1), l_H * (1 + both), l_H * psi],
            [s * psi * theta / K, l_H * psi * theta / K, l_H * (1 + tau + psi / K)],
        ]
    )


def _triple_is_positive(proof: Proof) -> None:
    r, s, tau, psi, x, k = sympy.symbols("r s tau psi x k", positive=True)  # x^2 = theta, k^2 = 1/K
    l_W, l_H = s * r**2, s / r**2
    norms = sympy.diag(x, x, 1 / k)
    normalised = norms * _triple(l_W, l_H, s, tau, psi, x**2, 1 / k**2) * norms.inv()
    plain = [[l_W * (1 + tau), s * (tau - 1), 0], [s * (tau - 1), l_H * (1 + tau), 0], [0, 0, l_H * (1 + tau)]]
    y = sympy.Matrix([r**2 * x, x, k])
    text = "normalised: E(tau, tau-1) + l_H(1+tau) + psi l_H yy' > 0, y = (r^2 sqrt(theta), sqrt(theta), 1/sqrt K)"
    proof.identity(text, normalised, sympy.Matrix(plain) + psi * l_H * y * y.T)


def _equal(left: Any, right: Any) -> bool:
    return all(sympy.cancel(value) == 0 for value in (left - right).coefficients())


def _same(proof: Proof, text: str, found: Any, expected: Any) -> None:
    proof.require(text, all(_equal(a, b) for a, b in zip(found, expected, strict=True)))


def _algebra_is_matrices(proof: Proof) -> None:
    """<direction, H direction> by the algebra against the second variation written out at K = 4."""
    v = sympy.Matrix([1, 2, -5, 2])
    S = sympy.Matrix([[0, 1, -1, 0], [1, 0, 0, -1], [-1, 0, 0, 1], [0, -1, 1, 0]])
    T = sympy.Matrix([[0, 1, -1, 0], [-1, 0, 1, 0], [1, -1, 0, 0], [0, 0, 0, 0]])
    form = SecondVariation(3, 2, 5, 7, 11, sympy.Rational(1, 13), sympy.Rational(1, 17))
    for name, family in FAMILIES.items():
        A, X = family + letter("1v"), 2 * family + 3 * letter("v1")
        spelt_A, spelt_X = (matrix.explicit(v, S, T) for matrix in (A, X))
        along_A, along_X = (matrix.explicit(v, S, T) for matrix in form.apply(A, X))
        by_algebra = (spelt_A.T * along_A).trace() + (spelt_X.T * along_X).trace()
        proof.identity(f"the algebra is matrix algebra at K = 4: {name}", by_algebra, form.value(spelt_A, spelt_X))
