"""What leaves relative flatness alone: scalings, rotations, row shifts and rescaled neurons (A3)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from theory.configurations import Head, generator_of, normal, random_head, random_mlp, rotation
from theory.head_algebra import H_J, H_K, PS, PT, XS, XT, derived_entries, over_pairs
from theory.oracle import LOSSES, head_hessian, kappa_by_hessian, layer_kappa
from theory.proof import Proof
from theory.statement import Statement

INVARIANCE = Statement(
    "invariance",
    label="A3",
    claim="Relative flatness of a head does not change under (W, h) -> (aW, h/a), a rotation of both, or, under "
    "softmax, W -> W + 1 v^T; a hidden layer's does not when a neuron is scaled by a > 0 in, bias too, and 1/a out.",
    latex=r"\kappa(aW, h/a) = \kappa(WQ^\top, Qh) = \kappa(W + \mathbf 1 v^\top, h) = \kappa(DW, h) = \kappa(W, h)",
    assumptions={
        "inverse": "what multiplies the weight divides the features",
        "orthogonal": "what turns weight and features is orthogonal",
        "softmax": "for W + 1 v^T: the loss sees the logits through a softmax",
        "own_layer": "for a neuron: kappa is that of the layer with the neuron's incoming row",
        "homogeneous": "for a neuron: its activation is positively homogeneous",
        "positive": "for a neuron: a > 0",
        "bias": "for a neuron: its bias is scaled with its row",
    },
    source="Petzka et al. 2021 (the scalings); the rotations and row shifts: new",
    kind="equality",
)

Measure = Callable[[Any, Any], Any]
"""From the rows' Gram matrix and the matrix of the Tr(H_st) to a number, in sympy or torch."""


def _kappa(gram: Any, traces: Any) -> Any:
    return sum(gram[s, t] * traces[s, t] for s in range(gram.shape[0]) for t in range(gram.shape[0]))


def _trace(gram: Any, traces: Any) -> Any:
    return sum(traces[s, s] for s in range(gram.shape[0]))


def _for_every_size(proof: Proof, measure: Measure) -> None:
    """Two rows stand for every pair of any K; inner products with one vector u for every m."""
    gram, traces = (sympy.Matrix(2, 2, sympy.symbols(f"{x}_ss {x}_st {x}_st {x}_tt")) for x in ("g", "T"))
    a, b, length = sympy.symbols("a b u", positive=True)
    proof.identity("(aW, h/a)", measure(a**2 * gram, traces / a**2), measure(gram, traces))
    along = sympy.Matrix(sympy.symbols("u_s u_t"))
    turned = gram - (4 / length) * along * along.T + (4 / length**2) * length * along * along.T
    inside = sympy.Matrix(2, 2, sympy.symbols("U_ss U_st U_st U_tt"))
    mirrored = traces - (4 / length) * inside + (4 / length**2) * length * inside
    proof.identity(
        "the reflection 1 - 2uu^T/u^Tu; reflections generate O(m)", measure(turned, mirrored), measure(gram, traces)
    )
    D = sympy.diag(a, b)
    proof.identity("rows scaled by a and b", measure(D * gram * D, D.inv() * traces * D.inv()), measure(gram, traces))


def _written_out(proof: Proof, measure: Measure) -> None:
    """Any loss to second order, K = m = 2: the changed loss W' -> L(T(W')) is differentiated anew."""
    W = sympy.Matrix(2, 2, sympy.symbols("w_:4"))
    entries = iter(sympy.symbols("H_:10"))
    upper = {(i, j): next(entries) for i in range(4) for j in range(i, 4)}
    H = sympy.Matrix(4, 4, lambda i, j: upper[min(i, j), max(i, j)])

    def measured(weight: Any, back: Callable[[Any], Any]) -> Any:
        variables = sympy.Matrix(2, 2, sympy.symbols("v_:4"))
        at = back(variables).reshape(4, 1)
        hessian = sympy.hessian((at.T * H * at)[0] / 2, list(variables))
        traces = sympy.Matrix(2, 2, lambda s, t: hessian[2 * s, 2 * t] + hessian[2 * s + 1, 2 * t + 1])
        return measure(weight * weight.T, traces)

    a, b = sympy.symbols("a b", positive=True)
    Q, D = sympy.Matrix([[3, -4], [4, 3]]) / 5, sympy.diag(a, b)
    before = measured(W, lambda V: V)
    proof.identity("(aW, h/a), written out", measured(a * W, lambda V: V / a), before)
    proof.identity("(W Q^T, Q h), cos = 3/5, written out", measured(W * Q.T, lambda V: V * Q), before)
    proof.identity("rows scaled by a and b, written out", measured(D * W, lambda V: D.inv() * V), before)


@INVARIANCE.certificate(
    "symbolic", covers="every K, m, loss; every homogeneous activation", relies_on="sympy", whole=True
)
def _invariance_symbolic(proof: Proof) -> None:
    """Pairs of rows and traces of blocks as symbols; the transformed loss differentiated for K = m = 2."""
    _for_every_size(proof, _kappa)
    _written_out(proof, _kappa)
    entries = derived_entries()
    diagonal, off = sympy.cancel(entries["j, j"] / H_J**2), sympy.cancel(entries["s, t"] / (H_J * H_K))
    v, C, E, R = sympy.symbols("v C E R", positive=True)
    shifted, before = (
        over_pairs((diagonal - off.subs(PT, PS)) * (XS + d) ** 2 * PT) + over_pairs(off * (XS + d) * (XT + d))
        for d in (v, 0)
    )
    proof.identity("W + 1 v^T with p unchanged, every K", shifted, before)
    proof.identity("softmax: e^c cancels", E * C / (E * C + R * C), E / (E + R))
    # Homogeneous of degree one is linear on each side of 0, and a > 0 keeps the side.
    a, slope, out, row, b = sympy.symbols("a alpha v w b", positive=True)
    proof.identity("the neuron's output is unchanged", (out / a) * slope * (a * row + a * b), out * slope * (row + b))


def _traces(hessian: Tensor) -> Tensor:
    return torch.einsum("sjtj->st", hessian)


def transformed_heads(head: Head, seed: int = 0) -> dict[str, Head]:
    """The head under each change that leaves its kappa alone."""
    h, W, b, y = head
    turn, shift = rotation(seed, W.shape[1]), 3 * normal(generator_of(seed), W.shape[1])
    scaled = {f"scaled by {a}": Head(h / a, a * W, b, y) for a in (7.0, -0.5)}
    return {**scaled, "rotated": Head(h @ turn.T, W @ turn.T, b, y), "rows shifted": Head(h, W + shift, b, y)}


def rescaled(model: nn.Sequential, factors: Tensor, *, bias: bool = True) -> nn.Sequential:
    """A copy with the neurons of layer "0" scaled: rows (and biases) times `factors`, outgoing weights divided."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_parameter("0.weight").mul_(factors[:, None])
        changed.get_parameter("2.weight").div_(factors)
        if bias:
            changed.get_parameter("0.bias").mul_(factors)
    return changed


def _invariance_numeric(proof: Proof, measure: Measure) -> None:
    for seed in range(proof.cases(3, 20)):
        head = random_head(seed, K=2 + seed, m=1 + seed, n=3)
        before = float(measure(head.weight @ head.weight.T, _traces(head_hessian(head))))
        for name, changed in transformed_heads(head, seed).items():
            after = measure(changed.weight @ changed.weight.T, _traces(head_hessian(changed)))
            proof.close(f"seed {seed}: {name}", float(after), before)
    inputs, labels = normal(generator_of(1), 5, 2), torch.tensor([0, 1, 2, 0, 1])
    for activation in (nn.ReLU(), nn.LeakyReLU(0.2)):
        for loss in LOSSES.values():
            model = random_mlp(4, [2, 3, 3], activation)
            changed_model = rescaled(model, torch.tensor([5.0, 0.3, 1.0], dtype=torch.float64))
            kappas = [layer_kappa(m, loss, inputs, labels, "0") for m in (model, changed_model)]
            proof.close(f"neurons rescaled, {type(activation).__name__}", kappas[1], kappas[0])


@INVARIANCE.certificate("numeric", covers="heads K = 2..4, ReLU and leaky ReLU layers", relies_on="exact Hessians")
def _invariance_exact(proof: Proof) -> None:
    """Dense Hessians before and after each change, of heads and of a hidden layer under both losses."""
    _invariance_numeric(proof, _kappa)


_HEAD = random_head(5, K=3, m=2, n=4)
_INPUTS, _LABELS = normal(generator_of(8), 4, 2), torch.tensor([0, 1, 1, 0])


def _neuron(proof: Proof, activation: nn.Module, factor: float = 4.0, layer: str = "0", bias: bool = True) -> None:
    """The first neuron of three rescaled, in an explicit network."""
    model = random_mlp(4, [2, 3, 2], activation)
    changed = rescaled(model, torch.tensor([factor, 1.0, 1.0], dtype=torch.float64), bias=bias)
    kappas = [layer_kappa(m, LOSSES["cross_entropy"], _INPUTS, _LABELS, layer) for m in (model, changed)]
    proof.differ("kappa after against before", kappas[1], kappas[0])


@INVARIANCE.without("inverse")
def _features_kept(proof: Proof) -> None:
    """W doubled on the same features."""
    doubled = _HEAD._replace(weight=2 * _HEAD.weight)
    proof.differ("kappa after against before", kappa_by_hessian(doubled), kappa_by_hessian(_HEAD))


@INVARIANCE.without("orthogonal")
def _stretched(proof: Proof) -> None:
    """(W A^-1, A h) with A = diag(2, 1): the same logits."""
    A = torch.tensor([2.0, 1.0], dtype=torch.float64)
    stretched = _HEAD._replace(features=_HEAD.features * A, weight=_HEAD.weight / A)
    proof.close("the loss is the same", stretched.loss, _HEAD.loss)
    proof.differ("kappa after against before", kappa_by_hessian(stretched), kappa_by_hessian(_HEAD))


@INVARIANCE.without("softmax")
def _squared_shift(proof: Proof) -> None:
    """W + 1 v^T under squared loss."""
    shifted = transformed_heads(_HEAD)["rows shifted"]
    proof.differ("kappa after against before", kappa_by_hessian(shifted, "squared"), kappa_by_hessian(_HEAD, "squared"))


@INVARIANCE.without("own_layer")
def _next_layer(proof: Proof) -> None:
    """Seen from the next layer it is a column scaling: its kappa moves."""
    _neuron(proof, nn.ReLU(), layer="2")


@INVARIANCE.without("homogeneous")
def _tanh(proof: Proof) -> None:
    """A tanh network."""
    _neuron(proof, nn.Tanh(), factor=0.2)


@INVARIANCE.without("positive")
def _negative(proof: Proof) -> None:
    """a = -1 with ReLU: the neuron is on where it was off."""
    _neuron(proof, nn.ReLU(), factor=-1.0)


@INVARIANCE.without("bias")
def _bias_kept(proof: Proof) -> None:
    """The row is scaled and the bias is not."""
    _neuron(proof, nn.ReLU(), bias=False)


@INVARIANCE.sibling
def _trace_too(proof: Proof) -> None:
    """The trace of the Hessian has the same invariances."""
    _for_every_size(proof, _trace)
    _written_out(proof, _trace)
    _invariance_numeric(proof, _trace)
