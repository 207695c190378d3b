"""Steps that the models with free features share: a product with decay on both factors pays the nuclear norm.

With mu = sqrt(l_W l_H), (l_W/2)||W||^2 + (l_H/2)||H||^2 >= mu ||WH||_*, and a minimiser Z of f(Z) + mu ||Z||_*
is certified by a matrix X of spectral norm 1 with -grad f(Z) = mu X and <X, Z> = ||Z||_*. Every step is an
identity of words, for matrices of every size; `w`, `h` stand for sqrt(l_W), sqrt(l_H).
"""

from __future__ import annotations

import sympy

from theory.algebra.matrix_words import IDENTITY, letters, symmetric
from theory.proof import Proof

w, h, n = sympy.symbols("w h n", positive=True)
P, E, EACH, ONE = letters("P E j k")
"""P = I - 11^T/K; E = I_K (x) 1_n^T, K x N; the columns of ones of length N and K. Below X = P E / sqrt n."""
BALANCED = [*symmetric(P), (P @ P, P), (P @ ONE, 0 * ONE), (E @ E.T, n * IDENTITY), (E @ EACH, n * ONE)]


def factors_pay_the_nuclear_norm(proof: Proof) -> None:
    """l_W ||W||^2 + l_H ||H||^2 - 2 mu <X, WH> as a sum of two terms that are not negative."""
    X, W, H = letters("X W H")
    left = w**2 * (W.T @ W) + h**2 * (H @ H.T) - 2 * w * h * (X.T @ W @ H)
    square = w * W - h * (X @ H.T)
    rest = H @ (IDENTITY - X.T @ X) @ H.T
    text = "l_W|W|^2 + l_H|H|^2 - 2 mu <X, WH> = |sqrt(l_W) W - sqrt(l_H) X H'|^2 + l_H tr H(I - X'X)H'"
    proof.require(
        text + "; the greatest <X, Z> over ||X|| <= 1 is ||Z||_* (duality)",
        left.trace().equals((square.T @ square + h**2 * rest).trace()),
    )


def factors_at_equality(proof: Proof) -> None:
    """Where both terms vanish and WH = z X with X a partial isometry, both Gram matrices are X's."""
    X, W, H, one = letters("X W H j")
    z = sympy.Symbol("z", positive=True)
    # The two terms vanish: W = (h/w) X H', and (I - X'X) H' = 0 as I - X'X is a projection.
    zero = [(W, h / w * (X @ H.T)), (X.T @ X @ H.T, H.T)]
    proof.require("X'(WH) = (h/w) H'H", (X.T @ W @ H).given(*zero).equals(h / w * (H.T @ H)))
    grams = [(H.T @ H, z * w / h * (X.T @ X)), (X @ X.T @ X, X), (X @ one, 0 * one)]
    proof.require("so H'H = z (w/h) X'X, and that gives WH = zX", (h / w * (X @ H.T @ H)).given(*grams).equals(z * X))
    rest = (H.T @ H - H.T @ H @ X.T @ X).given(*grams)
    proof.require("with H'H(I - X'X) = 0: at these factors both terms do vanish", rest.equals(0 * rest))
    head = (W @ W.T).given((W, h / w * (X @ H.T)), (W.T, h / w * (H @ X.T)))
    proof.require("WW' = z (h/w) XX'", head.given(*grams).equals(z * h / w * (X @ X.T)))
    mean = (one.T @ H.T @ H @ one).given(*grams)
    proof.require("|H1|^2 = 0 where X1 = 0: the features have mean zero", mean.equals(0 * mean))


def collapsed_polar_factor(proof: Proof) -> None:
    """X = P (x) 1_n^T / sqrt n: a partial isometry with XX' = P and X1 = 0."""
    X = 1 / sympy.sqrt(n) * (P @ E)
    proof.require("XX' = P, so ||X|| = 1", (X @ X.T).given(*BALANCED).equals(P))
    proof.require("XX'X = X", (X @ X.T @ X).given(*BALANCED).equals(X))
    proof.require("X1 = 0", (X @ EACH).given(*BALANCED).equals(0 * ONE))


def balance_and_centring(proof: Proof) -> None:
    """At every critical point l_W W'W = l_H HH', and what the gradient does not see W does not have."""
    W, H, G, one, U, V, S, R = letters("W H G k U V S R")
    critical = [(G @ H.T, -(w**2) * W), (W.T @ G, -(h**2) * H)]
    product = W.T @ G @ H.T
    proof.require(
        "W'(GH') = -l_W W'W and (W'G)H' = -l_H HH'",
        product.given(critical[0]).equals(-(w**2) * (W.T @ W))
        and product.given(critical[1]).equals(-(h**2) * (H @ H.T)),
    )
    column = (one.T @ G @ H.T).given((one.T @ G, 0 * one.T))
    other = (one.T @ G @ H.T).given(critical[0])
    proof.require("1'G = 0 gives l_W 1'W = 0", column.equals(0 * other) and other.equals(-(w**2) * (one.T @ W)))
    # -G = mu (UV' + R), RV = 0, is the subdifferential at Z = USV'.
    gradient = -w * h * (U @ V.T + R)
    orthonormal = [(V.T @ V, IDENTITY), (R @ V, 0 * U)]
    proof.require("GV = -mu U", (gradient @ V).given(*orthonormal).equals(-w * h * U))
    gram = (U @ S @ V.T).given((U, -1 / (w * h) * (G @ V)))
    proof.require(
        "so 1'G = 0 gives 1'Z = 0 at every minimiser Z",
        (one.T @ gram).given((one.T @ G, 0 * one.T)).equals(0 * one.T),
    )


def bias_changes_nothing(proof: Proof) -> None:
    """With a bias the minimiser is Z* still: another one is Z* - beta 1', and beta = 0."""
    beta = letters("beta")[0]
    X = 1 / sympy.sqrt(n) * (P @ E)
    rules = [*BALANCED, (P @ beta, beta), (beta.T @ P, beta.T), (beta.T @ ONE, 0 * (ONE.T @ ONE))]
    gap = sympy.Symbol("Delta", positive=True)
    per_class = gap * P - beta @ ONE.T
    zero = (ONE.T @ P, 0 * ONE.T)
    text = "(Delta P - beta 1')P = Delta P: a bias cannot bring the rank below K - 1"
    proof.require(text, (per_class @ P).given(*rules, zero).equals(gap * P))
    proof.require("G = -mu X is stationary in the bias: X1 = 0", (X @ EACH).given(*rules).equals(0 * ONE))
    # <X, Z> = ||Z||_* makes X'Z symmetric; X'Z* is, so X' beta 1' = 1 beta' X. Times 1 from the right:
    left, right = X.T @ beta @ EACH.T @ EACH, EACH @ beta.T @ X @ EACH
    proof.require("X' beta 1' = 1 beta' X, times 1: the right side is 0", right.given(*rules).equals(0 * right))
    samples = sympy.Symbol("N", positive=True)
    back = (X @ left).given(*rules, (EACH.T @ EACH, samples * IDENTITY))
    proof.require("and X times the left side is N beta: beta = 0", back.equals(samples * beta))
