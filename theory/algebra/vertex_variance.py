"""Features that take vertex values only: their variance for any number of vertices, by induction and by moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import z3

from theory.proof import Proof

Floor = Callable[[Any], Any]
"""A function of the error rate e, for numbers or symbols."""


def pair_sum(proof: Proof) -> None:
    """sum q_j ||v_j||^2 - ||sum q_j v_j||^2 = sum_(j<k) q_j q_k ||v_j - v_k||^2, one vertex more at a time."""
    # So far: mass W, sum of squares S = sum q_j^2, G = sum q_j ||v_j||^2, P = ||sum q_j v_j||^2. One more vertex v of
    # mass Q: n = ||v||^2, x = <sum q_j v_j, v>. Its pairs add Q sum q_j ||v_j - v||^2 = Q (G - 2 x + W n).
    W, S, G, P, Q, n, x = sympy.symbols("W S G P Q n x", nonnegative=True)
    after = (W + Q) * (G + Q * n) - (P + 2 * Q * x + Q**2 * n)
    text = "W G - ||sum q v||^2 grows by the new pairs, so it is the pair sum at every K (W = 1 at the last)"
    proof.identity(text, after, W * G - P + Q * (G - 2 * x + W * n))
    proof.identity("... from 0 at one vertex", Q * (Q * n) - Q**2 * n, 0)
    growth = ((W + Q) ** 2 - (S + Q**2) - (W**2 - S)) / 2
    proof.identity("(W^2 - sum q^2)/2 grows by Q W, so it is the sum over pairs of q_j q_k", growth, Q * W)
    low, more, beyond = sympy.symbols("D a b", nonnegative=True)
    # Each pair has D^2 <= ||v_j - v_k||^2 = D^2 + a <= D_max^2 = D^2 + a + b.
    proof.nonnegative("each pair is at least q_j q_k D^2", W * Q * (low**2 + more) - W * Q * low**2)
    proof.nonnegative("... and at most q_j q_k D_max^2", W * Q * (low**2 + more + beyond) - W * Q * (low**2 + more))


def moments_of_errors(proof: Proof, floor: Floor, vertex_floor: Floor) -> None:
    """Variance about the class mean and about the own vertex against `floor` and `vertex_floor` times d^2."""
    # In the errors, rate e: A = E||v - v_c||^2, s = their variance, so ||E v - v_c||^2 = A - s, whatever the vertices.
    e, A, s, d, a, r = sympy.symbols("e A s d a r", nonnegative=True)
    variance = e * A - e**2 * (A - s)
    proof.identity("e A - ||e (E v - v_c)||^2 = e (1-e) A + e^2 s", variance, e * (1 - e) * A + e**2 * s)
    # Every error costs at least d^2, the nearest other vertex's; e = 1/(1 + r) is (0, 1].
    at = {A: d**2 + a, e: 1 / (1 + r)}
    proof.nonnegative("about the class mean: at least the floor", (variance - floor(e) * d**2).subs(at))
    proof.nonnegative("about the own vertex: at least the floor", (e * A - vertex_floor(e) * d**2).subs(at))
    for text, times in (("about the class mean", floor(e)), ("about the own vertex", vertex_floor(e))):
        proof.nonnegative(f"{text}: d_c^2 = D^2 + a floors no less than D^2", (times * a).subs(at))
    proof.identity("no errors: the variance is 0", variance.subs(e, 0), 0)
    proof.identity("... and so are the floors", floor(e).subs(e, 0) + vertex_floor(e).subs(e, 0), 0)
    proof.identity(
        "attained where all errors are on one nearest vertex", variance.subs({A: d**2, s: 0}), floor(e) * d**2
    )
    proof.identity("... and about the own vertex where all are on nearest ones", e * d**2, vertex_floor(e) * d**2)


def only_there(proof: Proof) -> None:
    """0 < e < 1: a dearer vertex or a second one costs; e = 1: only a second one does."""
    r, a, s = sympy.symbols("r a s", positive=True)
    zero, closed = sympy.symbols("z r0", nonnegative=True)
    e, up_to_1 = 1 / (1 + r), 1 / (1 + closed)
    proof.nonnegative("errors on a vertex that is not a nearest one cost", e * (1 - e) * a + e**2 * zero, strictly=True)
    spread = up_to_1 * (1 - up_to_1) * zero + up_to_1**2 * s
    proof.nonnegative("errors on two vertices cost, at e = 1 too", spread, strictly=True)
    proof.identity("e = 1: the distance costs nothing", (e * (1 - e) * a).subs(r, 0), 0)


def no_violation(proof: Proof, floor: Floor, vertex_floor: Floor) -> None:
    """The same by an SMT solver: no e, A, s >= 0 and d violate either floor."""
    e, A, s, square = z3.Reals("e A s d2")
    output = [e >= 0, e <= 1, square >= 0, square <= A, s >= 0, s <= A]
    about_mean = e * A - e * e * (A - s)
    proof.unsatisfiable("about the class mean: below the floor", [*output, about_mean < floor(e) * square])
    proof.unsatisfiable("about the own vertex: below the floor", [*output, e * A < vertex_floor(e) * square])


def half_the_distance(proof: Proof, constant: Any) -> None:
    """||h - v_c||^2 >= constant ||v_c - v_k||^2 where h is no nearer to v_c than to v_k."""
    # a = h - v_c, b = h - v_k, so v_k - v_c = a - b.
    aa, bb, ab = sympy.symbols("aa bb ab", real=True)
    left = 4 * aa - (aa + bb - 2 * ab)
    proof.identity("4||a||^2 - ||a-b||^2 = 2(||a||^2-||b||^2) + ||a+b||^2", left, 2 * (aa - bb) + (aa + bb + 2 * ab))
    apart, farther, both = sympy.symbols("d f g", nonnegative=True)
    # f = ||a||^2 - ||b||^2 >= 0 and g = ||a+b||^2 >= 0 in the identity, d = ||a-b||^2.
    proof.nonnegative("||a||^2 - constant ||a-b||^2", (apart + 2 * farther + both) / 4 - constant * apart)
    x, y, z = z3.Reals("aa bb ab")
    ratio = z3.Q(constant.p, constant.q)
    output = [x >= y, y >= 0, z * z <= x * y]  # Cauchy-Schwarz
    proof.unsatisfiable("no a, b with ||a|| >= ||b|| violate it", [*output, x < ratio * (x + y - 2 * z)])
