"""The greatest and the least U = 1 - ||p||^2 over logits within a box about the collapsed ones, for every K.

Q = e^Delta and Y = e^omega: e^z lies in [Q, QY] for the true class and in [1, Y] for the others.
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_symmetry import K
from theory.algebra.collapse import IMPURITY, q
from theory.proof import Proof

t, r, u, v, k, rest = sympy.symbols("t r u v k l", positive=True)
_n = K - 1


def greatest_impurity(proof: Proof) -> None:
    """U of an output with 1 - p_y = x is at most that of equal others; x lies between those of Delta -+ omega."""
    x, squares, e = sympy.symbols("x R e", positive=True)
    U, bound = 1 - (1 - x) ** 2 - squares, x * (2 - K * x / _n)
    text = "U = x (2 - Kx/(K-1)) - (R - x^2/(K-1)), R = sum of the others' squares >= x^2/(K-1)"
    proof.identity(text, U, bound - (squares - x**2 / _n))
    proof.identity("the first is U of the gap with the same x", bound.subs(x, _n * q / (1 + _n * q)), IMPURITY)
    proof.identity("at most U(0): the square of x - (K-1)/K is left", _n / K - bound, K / _n * (x - _n / K) ** 2)
    proof.identity("the gap 0 is x = (K-1)/K", (_n * q / (1 + _n * q)).subs(q, 1), _n / K)
    for text, more in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        for side in (1, -1):
            near, far = ((_n / K + side * off).subs(K, more) for off in (r, r + e))
            at = bound.subs(K, more)
            fall = at.subs(x, near) - at.subs(x, far)
            proof.nonnegative(f"and it falls away from there on either side ({text}, {side:+d})", fall, strictly=True)
    # x/(1-x) = S = sum of e^(z_o - z_y); the deviations of y and o are between 1 and Y as factors of e^z.
    proof.identity("S = (K-1) q is the x of the gap", (r / (1 + r)).subs(r, _n * q), _n * q / (1 + _n * q))
    proof.nonnegative("x rises with S", sympy.diff(r / (1 + r), r), strictly=True)
    Q, Y = sympy.symbols("Q Y", positive=True)
    ratio = (Y / (1 + u)) / (Q * (1 + v))
    proof.nonnegative("e^(z_o - z_y) <= Y/Q = e^-(Delta - omega)", Y / Q - ratio, strictly=True)
    ratio = (1 + u) / (Q * Y / (1 + v))
    proof.nonnegative("e^(z_o - z_y) >= 1/(QY) = e^-(Delta + omega)", ratio - 1 / (Q * Y), strictly=True)


def vertex(x: Any, y: Any, j: Any, ones: Any) -> tuple[Any, Any]:
    """Sum of squares and sum of e^z: x for the true class, y for j others, 1 for the rest."""
    return x**2 + j * y**2 + ones, x + j * y + ones


def least_impurity(proof: Proof) -> None:
    """||p||^2 is largest at a vertex of the box of the e^z, and of the vertices at the one with y alone raised."""
    total, squares, value = sympy.symbols("S N x", positive=True)
    # S and N are those of all other classes.
    slope = sympy.diff((squares + value**2) / (total + value) ** 2, value)
    claimed = 2 * (total * value - squares) / (total + value) ** 3
    proof.identity("||p||^2 falls and then rises in each e^z, so it is largest at a vertex", slope, claimed)
    # Q = 1 + u, Y = 1 + v: y at Q with j = 1 + k others raised against y at QY with j - 1; l classes at 1.
    Q, Y, j = 1 + u, 1 + v, 1 + k
    for others, empty in (
        ("", {}),
        (", none at rest", {rest: 0}),
        (", one raised", {k: 0}),
        (", K = 2", {k: 0, rest: 0}),
    ):
        (N, S), (N_up, S_up) = vertex(Q, Y, j, rest), vertex(Q * Y, Y, j - 1, rest + 1)
        room = (N_up * S**2 - N * S_up**2).subs(empty)
        proof.nonnegative(f"y at rest, j others raised: y in place of one is larger{others}", room, strictly=True)
    for text, more in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        falling = (q * sympy.diff(IMPURITY, q)).subs({K: more, q: 1 / (1 + r)})
        proof.nonnegative(f"nothing raised: U falls with Delta > 0 ({text})", falling, strictly=True)
    n, m = sympy.symbols("n m", positive=True)
    (N, S), (N_j, S_j) = vertex(Q * Y, 1, 0, n), vertex(Q * Y, Y, m, n - m)
    first = N * (2 * S + v) - (Y + 1) * S**2
    text = "y alone against y and m others, first = the sign at m = 1"
    proof.identity(text, N * S_j**2 - N_j * S**2, m * v * (first + (m - 1) * v * N))
    room = 8 * Q * u * (Q + n) + 2 * Q**3 - n * (n - 1)
    squares = 2 * Q * u * (Q + n) * (Y - 2) ** 2 + 2 * Q**3 * v * (Y**2 - 1) + v * room
    proof.identity("first = terms >= 0, and (Y-1) times the condition", first, squares)
    # K - 2 = n - 1 = Q(Q-1)/share at Y = 2, many classes.
    share = sympy.Symbol("s", positive=True)
    many = 1 + Q * u / share
    at_two = sympy.cancel((first / n**2).subs(v, 1).subs(n, many))
    text = "Q(Q-1) = s(K-2), Y = 2: first/(K-1)^2 -> 8s - 1, negative for any s < 1/8"
    proof.identity(text, sympy.limit(at_two, u, sympy.oo), 8 * share - 1)


def enough(proof: Proof, share: Any) -> None:
    """The condition follows from Q(Q-1) >= share (K-2), and from Delta >= 0 for K <= 3."""
    n, Q = sympy.Symbol("n", positive=True), 1 + u
    room = 8 * Q * u * (Q + n) + 2 * Q**3 - n * (n - 1)
    put = sympy.expand(room - 8 * n * (Q * u - share * (n - 1) - r))
    proof.nonnegative("Q(Q-1) = share (K-2) + r, r > 0, is enough", put, strictly=True)
    proof.nonnegative("and r = 0", put.subs(r, 0), strictly=True)
    for few in (1, 2):
        proof.nonnegative(f"K = {few + 1}: every Q > 1", room.subs(n, few), strictly=True)
        proof.nonnegative(f"K = {few + 1}: and Q = 1", room.subs({n: few, u: 0}))


def inside_exponentials(proof: Proof) -> None:
    """e^-omega U(Delta) < U(Delta + omega) and U(c) < e^omega U(Delta): |U'/U| < 1."""
    log_slope = sympy.cancel(q * sympy.diff(IMPURITY, q) / IMPURITY)
    for text, more in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        for sign in (1, -1):
            room = 1 - sign * log_slope.subs({K: more, q: r})
            proof.nonnegative(f"{-sign:+d} U'/U < 1, every Delta ({text})", room, strictly=True)
