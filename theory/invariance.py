"""What leaves relative flatness alone: scalings, rotations, row shifts and rescaled neurons (A3)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from grokcore.curvature import LossFunction
from theory.algebra.class_pairs import XS, XT, curvature_form
from theory.numeric.configurations import Head, generator_of, normal, random_head, random_mlp, rotation
from theory.numeric.oracle import LOSSES, kappa_by_hessian, kappa_of_hessian, layer_kappa, mean_squared_loss
from theory.numeric.other_heads import COSINE_HEAD, cosine_hessian, trained_with
from theory.proof import Proof
from theory.statement import Statement

INVARIANCE = Statement(
    "invariance",
    label="A3",
    claim="Relative flatness of a head does not change under (W, h) -> (aW, h/a), a rotation of both, or, under "
    "softmax, W -> W + 1 v^T; a hidden layer's does not when a neuron is scaled by a > 0 in, bias too, and 1/a out.",
    latex=r"\kappa(aW, h/a) = \kappa(WQ^\top, Qh) = \kappa(W + \mathbf 1 v^\top, h) = \kappa(DW, h) = \kappa(W, h)",
    assumptions={
        "linear": "of a head: the loss sees W and h through W h alone, up to a bias",
        "inverse": "what multiplies the weight divides the features",
        "orthogonal": "what turns weight and features is orthogonal",
        "softmax": "for W + 1 v^T: the loss, any, sees the logits through a softmax",
        "own_layer": "for a neuron: kappa is that of the layer with the neuron's incoming row",
        "homogeneous": "for a neuron: its activation is positively homogeneous of degree one",
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
    a, b, length = sympy.symbols("a b u", nonzero=True)
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
    """Any loss to second order, K = m = 2: the changed loss W' -> L(back(W')) is differentiated anew."""
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

    a, b, u, v = sympy.symbols("a b u v", nonzero=True)
    Q, D = sympy.Matrix([[v**2 - u**2, -2 * u * v], [-2 * u * v, u**2 - v**2]]) / (u**2 + v**2), sympy.diag(a, b)
    before = measured(W, lambda V: V)
    proof.identity("(aW, h/a), written out", measured(a * W, lambda V: V / a), before)
    proof.identity("(W Q^T, Q h), Q any reflection, written out", measured(W * Q.T, lambda V: V * Q), before)
    proof.identity("rows scaled by a and b, written out", measured(D * W, lambda V: D.inv() * V), before)


def _row_shift(proof: Proof) -> None:
    """Any loss g(softmax z), with Hessian Q in z, so that Tr H_st = Q_st ||h||^2; x is one coordinate of the rows."""
    c, E, rest = sympy.symbols("c E R", positive=True)
    proof.identity("softmax: e^c cancels, so g(z + c 1) = g(z)", E * c / (E * c + rest * c), E / (E + rest))
    # Differentiated in c and in z at c = 0 this says Q 1 = 0: row s of Q is -sum_{t != s} Q_st on the diagonal.
    Q_st, x_s, x_t, v = sympy.symbols("Q_st x_s x_t v")

    def share(x_s: Any, x_t: Any) -> Any:
        return 2 * Q_st * x_s * x_t - Q_st * x_s**2 - Q_st * x_t**2

    Q = sympy.Matrix(4, 4, lambda s, t: 0 if s == t else sympy.Symbol(f"Q_{min(s, t)}{max(s, t)}"))
    Q -= sympy.diag(*(Q * sympy.ones(4, 1)))
    x = sympy.Matrix(sympy.symbols("x_:4"))
    pairs = [share(x[s], x[t]).subs(Q_st, Q[s, t]) for s, t in itertools.combinations(range(4), 2)]
    proof.identity("sum Q_st x_s x_t is a sum over pairs of classes where Q 1 = 0, K = 4", (x.T * Q * x)[0], sum(pairs))
    proof.identity("a pair's share, any loss of the softmax, any K", share(x_s + v, x_t + v), share(x_s, x_t))
    derived, before = curvature_form(XS + v, XT + v), curvature_form(XS, XT)
    proof.identity("cross-entropy differentiated, p unchanged, every K", derived, before)


@INVARIANCE.certificate(
    "symbolic", covers="every K, m, loss; every homogeneous activation", relies_on="sympy", whole=True
)
def _invariance_symbolic(proof: Proof) -> None:
    """Pairs of rows and traces of blocks as symbols; the changed loss differentiated anew for K = m = 2."""
    _for_every_size(proof, _kappa)
    _written_out(proof, _kappa)
    _row_shift(proof)
    # Homogeneous of degree one is linear on each side of 0, and a > 0 keeps the side; so as a function of its row
    # the network at (aw, ab, v/a) is that at (w, b, v) with the row divided by a: rows scaled, as above.
    a, slope, out, row, b = sympy.symbols("a alpha v w b", positive=True)
    proof.identity("the neuron's output is unchanged", (out / a) * slope * (a * row + a * b), out * slope * (row + b))


def _traces(hessian: Tensor) -> Tensor:
    return torch.einsum("sjtj->st", hessian)


def brier(output: Tensor, target: Tensor) -> Tensor:
    """||softmax z - y||^2, mean over samples: another loss that sees the logits through a softmax."""
    return mean_squared_loss(torch.softmax(output, dim=1), target) * 2


def changed_heads(head: Head, seed: int = 0) -> dict[str, Head]:
    """The head under each change that leaves kappa alone under any loss."""
    h, W, b, y = head
    turn = rotation(seed, W.shape[1])
    scaled = {f"scaled by {a}": Head(h / a, a * W, b, y) for a in (7.0, -0.5)}
    return {**scaled, "rotated": Head(h @ turn.T, W @ turn.T, b, y)}


def shifted(head: Head, seed: int = 0) -> Head:
    """The head with one vector added to every row, which a loss of the softmax does not see."""
    return head._replace(weight=head.weight + 3 * normal(generator_of(seed), head.weight.shape[1]))


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
    def measured(head: Head, loss: LossFunction) -> float:
        return float(measure(head.weight @ head.weight.T, _traces(trained_with(head, loss))))

    for seed in range(proof.cases(3, 20)):
        head = random_head(seed, K=2 + seed, m=1 + seed, n=3)
        changed = changed_heads(head, seed)
        for name, loss in {**LOSSES, "brier": brier}.items():
            also = {} if name == "squared" else {"rows shifted": shifted(head, seed)}
            before = measured(head, loss)
            for change, other in {**changed, **also}.items():
                proof.close(f"seed {seed}, {name}: {change}", measured(other, loss), before)
    inputs, labels = normal(generator_of(1), 5, 2), torch.tensor([0, 1, 2, 0, 1])
    for activation in (nn.ReLU(), nn.LeakyReLU(0.2)):
        for loss in LOSSES.values():
            model = random_mlp(4, [2, 3, 3], activation)
            changed_model = rescaled(model, torch.tensor([5.0, 0.3, 1.0], dtype=torch.float64))
            kappas = [layer_kappa(m, loss, inputs, labels, "0") for m in (model, changed_model)]
            proof.close(f"neurons rescaled, {type(activation).__name__}", kappas[1], kappas[0])


@INVARIANCE.certificate(
    "numeric", covers="heads K = 2..4, three losses; ReLU and leaky ReLU layers", relies_on="exact Hessians"
)
def _invariance_exact(proof: Proof) -> None:
    """Dense Hessians before and after each change, of heads under three losses and of a hidden layer under two."""
    _invariance_numeric(proof, _kappa)


_HEAD = random_head(5, K=3, m=2, n=4)
_INPUTS, _LABELS = normal(generator_of(8), 4, 2), torch.tensor([0, 1, 1, 0])


def _neuron(proof: Proof, activation: nn.Module, factor: float = 4.0, layer: str = "0", bias: bool = True) -> None:
    """The first neuron of three rescaled, in an explicit network."""
    model = random_mlp(4, [2, 3, 2], activation)
    changed = rescaled(model, torch.tensor([factor, 1.0, 1.0], dtype=torch.float64), bias=bias)
    kappas = [layer_kappa(m, LOSSES["cross_entropy"], _INPUTS, _LABELS, layer) for m in (model, changed)]
    proof.differ("kappa after against before", kappas[1], kappas[0])


@INVARIANCE.without("linear")
def _normalised_rows(proof: Proof) -> None:
    """Rows normalised in the forward pass: (2W, h/2) halves the logits."""
    changed = COSINE_HEAD._replace(features=COSINE_HEAD.features / 2, weight=2 * COSINE_HEAD.weight)
    after, before = (kappa_of_hessian(cosine_hessian(head), head.weight) for head in (changed, COSINE_HEAD))
    proof.differ("kappa after against before", after, before)


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
    after, before = (kappa_by_hessian(head, "squared") for head in (shifted(_HEAD), _HEAD))
    proof.differ("kappa after against before", after, before)


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
