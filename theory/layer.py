"""The closed form of relative flatness for any linear layer, from the curvature in its pre-activations (A6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from theory.algebra.class_pairs import H_J, H_K, PS, PT, XS, XT, moment, over_pairs
from theory.numeric.configurations import generator_of, normal, random_mlp
from theory.numeric.oracle import LOSSES, layer_kappa
from theory.numeric.other_heads import Cosine
from theory.proof import Proof
from theory.statement import Statement

LAYER_CLOSED_FORM = Statement(
    "layer_closed_form",
    label="A6",
    claim="A linear layer applied once per sample, a_i = W h_i + b, has "
    "kappa = mean_i ||h_i||^2 Tr(W W^T d2 l_i / d a_i^2), wherever its loss has a second derivative.",
    latex=r"\kappa = \frac1n\sum_i \|h_i\|^2\,\mathrm{Tr}\Bigl(WW^\top\,\frac{\partial^2 \ell_i}{\partial a_i^2}\Bigr)",
    assumptions={
        "once": "the layer is applied once per sample, to an input free of W",
        "linear": "the pre-activations are linear in W",
        "own_sample": "the loss is a mean over samples of functions of their own pre-activations",
    },
    source="new",
    kind="equality",
)

Combine = Callable[[Tensor, Tensor], Tensor]


def together(norms: Tensor, traces: Tensor) -> Tensor:
    """The mean of the products, (n,) and (n,) to a number."""
    return (norms * traces).mean()


def layer_closed_form(
    model: nn.Sequential, index: int, loss: str, inputs: Tensor, targets: Tensor, mean: Combine = together
) -> float:
    """The right side of A6 for layer `index`; `mean` takes the ||h_i||^2 and the traces, (n,) each, to one number.

    Differentiates in the pre-activations, reverse over reverse, with one sample's own block kept.
    """
    entering = model[:index](inputs).detach()
    layer, rest = model[index], model[index + 1 :]
    before = layer(entering).detach()
    n = len(inputs)
    blocks: Tensor = torch.func.jacrev(torch.func.jacrev(lambda a: LOSSES[loss](rest(a), targets)))(before)
    curvature = n * torch.einsum("isit->ist", blocks.detach())
    W = model.get_parameter(f"{index}.weight").detach()
    return float(mean(entering.square().sum(dim=1), torch.einsum("sj,tj,ist->i", W, W, curvature)))


def _layer_symbolic_entries(proof: Proof, factor: Any) -> None:
    """The chain rule for one pair of rows and of features; `factor` is the claimed multiple of Q_st h_j h_k."""
    rows = sympy.symbols("w_sj w_sk w_tj w_tk")
    w_sj, w_sk, w_tj, w_tk = rows
    g_s, g_t, Q_ss, Q_st, Q_tt, third = sympy.symbols("g_s g_t Q_ss Q_st Q_tt q3")
    # Pre-activations less those at the point; a third derivative of the loss leaves second ones at it alone.
    a_s, a_t = w_sj * H_J + w_sk * H_K, w_tj * H_J + w_tk * H_K
    loss = g_s * a_s + g_t * a_t + Q_ss * a_s**2 / 2 + Q_st * a_s * a_t + Q_tt * a_t**2 / 2 + third * (a_s + a_t) ** 3
    at_point = dict.fromkeys(rows, 0)
    for name, j, k, Q in (("(s, s)", w_sj, w_sk, Q_ss), ("(s, t)", w_tj, w_tk, Q_st)):
        for entry, other, squared in (("j, j", j, H_J**2), ("j, k", k, H_J * H_K)):
            proof.identity(f"block {name}, entry {entry}", loss.diff(w_sj, other).subs(at_point), factor * Q * squared)


@LAYER_CLOSED_FORM.certificate(
    "symbolic", covers="every K, m, n and loss", relies_on="sympy differentiation", whole=True
)
def _layer_symbolic(proof: Proof) -> None:
    """The chain rule on any loss to third order; K <= 3, m <= 2 written out; A2 and squared loss as instances."""
    _layer_symbolic_entries(proof, 1)
    for K, m in ((2, 1), (2, 2), (3, 2)):
        W = sympy.Matrix(K, m, sympy.symbols(f"w_:{K * m}"))
        h, Q = (
            sympy.Matrix(sympy.symbols(f"h_:{m}")),
            sympy.Matrix(K, K, lambda s, t: sympy.Symbol(f"Q_{min(s, t)}{max(s, t)}")),
        )
        hessian = sympy.hessian(((W * h).T * Q * (W * h))[0] / 2, list(W))
        gram, pairs = W * W.T, [(s, t) for s in range(K) for t in range(K)]
        kappa = sum(gram[s, t] * hessian[s * m + j, t * m + j] for s, t in pairs for j in range(m))
        proof.identity(f"K = {K}, m = {m}", kappa, h.dot(h) * (gram * Q).trace())
        at_identity = kappa.subs({Q[s, t]: int(s == t) for s, t in pairs})
        proof.identity(f"K = {K}, m = {m}: squared loss", at_identity, h.dot(h) * sum(w**2 for w in W))
    entropy = over_pairs(PS * XS**2 * PT) - over_pairs(PS * PT * XS * XT)
    proof.identity("d2l/da2 = diag p - pp^T gives A2, every K", entropy, over_pairs(PS * (XS - moment(1, 1)) ** 2 * PT))


def _layer_numeric(proof: Proof, mean: Combine) -> None:
    inputs, labels = normal(generator_of(2), 5, 2), torch.tensor([0, 1, 2, 0, 1])
    for activation in (nn.ReLU(), nn.Tanh()):
        model = random_mlp(6, [2, 3, 4, 3], activation)
        for loss, loss_fn in LOSSES.items():
            for index in (0, 2, 4)[: proof.cases(2, 3)]:
                found = layer_closed_form(model, index, loss, inputs, labels, mean)
                exact = layer_kappa(model, loss_fn, inputs, labels, str(index))
                proof.close(f"{type(activation).__name__}, {loss}, layer {index}", found, exact)


@LAYER_CLOSED_FORM.certificate("numeric", covers="ReLU and tanh networks, two losses", relies_on="exact Hessians")
def _layer_exact(proof: Proof) -> None:
    """The dense Hessian in the weight against Hessians in the pre-activations, for hidden layers."""
    _layer_numeric(proof, together)


_INPUTS, _LABELS = normal(generator_of(8), 4, 2), torch.tensor([0, 1, 1, 0])


def _against(proof: Proof, model: nn.Sequential, *places: int, kappa: float | None = None) -> None:
    """kappa of layer "0" against the closed form at each place where it is applied, and against their sum."""
    if kappa is None:
        kappa = layer_kappa(model, cross_entropy, _INPUTS, _LABELS, "0")
    forms = [layer_closed_form(model, place, "cross_entropy", _INPUTS, _LABELS) for place in places]
    for form in forms if len(forms) == 1 else [*forms, sum(forms)]:
        proof.differ("kappa against the form", kappa, form)


class Twice(nn.Module):
    """tanh after a linear layer, and both again."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        """(n, m) to (n, m)."""
        twice: Tensor = self.layer(self.layer(input).tanh()).tanh()
        return twice


@LAYER_CLOSED_FORM.without("once")
def _twice(proof: Proof) -> None:
    """One layer applied twice in a row: neither application's form, nor their sum, is kappa."""
    shared, out = list(random_mlp(3, [2, 2, 2], nn.Tanh()))[::2]
    kappa = layer_kappa(nn.Sequential(Twice(shared), out), cross_entropy, _INPUTS, _LABELS, "0.layer")
    _against(proof, nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), out), 0, 2, kappa=kappa)


@LAYER_CLOSED_FORM.without("linear")
def _normalised_rows(proof: Proof) -> None:
    """A layer whose rows, of norm 1, are normalised in the forward pass: the same pre-activations."""
    first, out = list(random_mlp(3, [2, 2, 2], nn.Tanh()))[::2]
    layer = Cosine(2, 2, bias=False, dtype=torch.float64)
    layer.load_state_dict({"weight": normalize(first.get_parameter("weight").detach(), dim=1)})
    _against(proof, nn.Sequential(layer, nn.Tanh(), out), 0)


class _Centre(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input - input.mean(dim=0)


@LAYER_CLOSED_FORM.without("own_sample")
def _batch_centred(proof: Proof) -> None:
    """Pre-activations centred over the batch, as batch normalisation does."""
    first, out = list(random_mlp(3, [2, 2, 2], nn.Tanh()))[::2]
    _against(proof, nn.Sequential(first, _Centre(), nn.Tanh(), out), 0)


@LAYER_CLOSED_FORM.sibling
def _factorised(proof: Proof) -> None:
    """The norm can be averaged by itself: kappa = mean ||h_i||^2 times mean Tr(W W^T d2 l_i / d a_i^2)."""
    _layer_numeric(proof, lambda norms, traces: norms.mean() * traces.mean())


@LAYER_CLOSED_FORM.sibling
def _half(proof: Proof) -> None:
    """kappa is half of that, as in the second-order term of the loss."""
    _layer_symbolic_entries(proof, sympy.Rational(1, 2))
    _layer_numeric(proof, lambda norms, traces: together(norms, traces) / 2)
