"""Two free features of one class approach at least as exp(-l_H t), whatever the head does (a clause of D3).

z, z' are the logits of the two samples, G, G' the gradients of the loss in them, and s = ||h - h'||^2. Three steps:
ds/dt = -(2/N) <z - z', G - G'> - 2 l_H s; the pairing is not negative where the loss is convex; and Gronwall.
"""

from __future__ import annotations

import itertools
import math

import sympy
import torch
import z3
from torch import Tensor

from theory.numeric.configurations import generator_of, normal
from theory.numeric.flows import State, free_features, runge_kutta
from theory.proof import Proof


def contraction_by_algebra(proof: Proof, rate: int = 1) -> None:
    """The slope of s, the sign of its first term for a convex loss, and Gronwall's lemma for exp(-2 `rate` l_H t)."""
    weight, bias = sympy.Matrix(3, 2, sympy.symbols("w:6")), sympy.Matrix(sympy.symbols("b:3"))
    one, other = sympy.Matrix(sympy.symbols("h:2")), sympy.Matrix(sympy.symbols("k:2"))
    of_one, of_other = (sympy.Matrix(sympy.symbols(f"{name}:3")) for name in "gf")
    l_h, samples = sympy.symbols("l_H N", positive=True)
    velocity = -weight.T * (of_one - of_other) / samples - l_h * (one - other)
    paired = ((weight * one + bias) - (weight * other + bias)).dot(of_one - of_other)
    growth = 2 * (one - other).dot(velocity)
    expected = -2 * paired / samples - 2 * l_h * (one - other).dot(one - other)
    proof.identity("ds/dt = -(2/N) <z - z', G - G'> - 2 l_H s", growth, expected)
    _gradient_of_a_convex_loss_is_monotone(proof)
    softmax_is_monotone(proof)
    _gronwall(proof, rate)


def _gradient_of_a_convex_loss_is_monotone(proof: Proof) -> None:
    # a = <G, z - z'> and b = <G', z - z'>: the loss f lies above its tangents at z and at z'.
    at_z, at_other, a, b = z3.Reals("f f' a b")
    tangents = [at_other >= at_z - a, at_z >= at_other + b]
    proof.unsatisfiable("tangents of a convex loss at z and z' force <z - z', G - G'> >= 0", [*tangents, a - b < 0])
    # That the cross-entropy is convex: no coefficient of the form in p holds an index but its own two, so that four
    # classes show those of every K.
    p, v = sympy.symbols("p:4"), sympy.symbols("v:4")
    form = sum(p) * sum(p[s] * v[s] ** 2 for s in range(4)) - sum(x * y for x, y in zip(p, v, strict=True)) ** 2
    squares = sum(p[s] * p[t] * (v[s] - v[t]) ** 2 for s, t in itertools.combinations(range(4), 2))
    proof.identity("cross-entropy: v^T (diag p - p p^T) v = sum over pairs p_s p_t (v_s - v_t)^2", form, squares)


def softmax_is_monotone(proof: Proof) -> None:
    """The same sign for the cross-entropy without its convexity: z = log p + const, G - G' = p - p', every K."""
    log_p, log_other, p, other, const = sympy.symbols("log_p log_p' p p' c")
    term = (log_p + const - log_other) * (p - other)
    terms = (log_p - log_other) * (p - other)
    proof.identity("of (z - z')(p - p') const (p - p') is left, which sums to 0", term, terms + const * (p - other))
    x, y, log_x, log_y = z3.Reals("p p' log_p log_p'")
    increasing = [z3.Implies(x > y, log_x > log_y), z3.Implies(x < y, log_x < log_y)]
    text = "no term of sum (p - p')(log p - log p') is negative, as log is increasing"
    proof.unsatisfiable(text, [*increasing, (x - y) * (log_x - log_y) < 0])


def _gronwall(proof: Proof, rate: int) -> None:
    t, l_h = sympy.symbols("t l_H", positive=True)
    paired, square = sympy.Function("G")(t), sympy.Function("s")(t)
    scaled = sympy.exp(2 * rate * l_h * t)
    slope = sympy.diff(scaled * square, t).subs(sympy.diff(square, t), -2 * paired - 2 * l_h * square)
    factor = 2 * (rate - 1) * l_h * square - 2 * paired
    text = (
        f"Gronwall: d/dt (exp(2 {rate} l_H t) s) = exp(2 {rate} l_H t) (2 ({rate} - 1) l_H s - 2 G), G the pairing / N"
    )
    proof.identity(text, slope, scaled * factor)
    weight, inner, decay, value = z3.Reals("E G l_H s")
    rising = weight * (2 * (rate - 1) * decay * value - 2 * inner) > 0
    text = f"which is <= 0, so that s(t) <= exp(-2 {rate} l_H t) s(0)"
    proof.unsatisfiable(text, [weight > 0, inner >= 0, decay > 0, value >= 0, rising])


def contraction_measured(proof: Proof, rate: float = 1.0) -> None:
    """Simulated free features under a head with its own gradient and under a head that swings at will."""
    decay, labels = 0.2, torch.arange(3).repeat_interleave(2)
    for seed, (m, free) in enumerate(((4, True), (4, False), (2, False))):
        generator = generator_of(seed)
        start = {"features": normal(generator, 6, m)}
        if free:
            start["head"] = normal(generator, 3, m)
        fixed, swing = normal(generator, 3, m), 3 * normal(generator, 3, m)

        def head(t: float, state: State, fixed: Tensor = fixed, swing: Tensor = swing) -> Tensor:
            return state["head"] if "head" in state else fixed + math.sin(7 * t) * swing

        velocity = free_features(head, labels, decay, decay_head=0.1)
        for time in (0.5, 2.0):
            ended = runge_kutta(velocity, start, time, 40)
            first, last = (spread(state["features"]) for state in (start, ended))
            text = f"m = {m}, {'W by its own gradient' if free else 'W(t) at will'}, t = {time:g}"
            proof.at_most(text, last, math.exp(-rate * decay * time) * first, slack=1e-6)


def spread(features: Tensor) -> Tensor:
    """||h_i - h_j|| of the two samples of each class, which lie next to each other."""
    distances: Tensor = (features[::2] - features[1::2]).norm(dim=1)
    return distances
