"""The Hessian and the relative flatness of a linear head under cross-entropy (A1, A2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from grokcore.curvature import exact_hessian
from theory.configurations import Head, random_head
from theory.head_algebra import H_J, H_K, PS, PT, XS, XT, derived_entries, expanded, moment, over_pairs
from theory.oracle import as_module, head_hessian, kappa_by_hessian, kappa_matrix_free, kappa_of_hessian
from theory.proof import Proof
from theory.statement import Statement


def trained_with(head: Head, loss_fn: Callable[[Tensor, Tensor], Tensor], targets: Tensor | None = None) -> Tensor:
    """The Hessian (K, m, K, m) of the head under another loss, or on other targets."""
    batch = (head.features, head.labels if targets is None else targets)
    return exact_hessian(as_module(head), loss_fn, [batch], "weight")


def cold(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy at temperature 1/2."""
    return cross_entropy(2 * output, target)


HEAD_HESSIAN = Statement(
    "head_hessian",
    label="A1",
    claim="Block (s, t) of one sample's Hessian in W is (p_s d_st - p_s p_t) h h^T: positive semidefinite as a whole "
    "at every W, negative semidefinite off the diagonal, and free of the label.",
    latex=r"H_{st} = (p_s\delta_{st} - p_s p_t)\,h h^\top \implies H \succeq 0,\ H_{st} \preceq 0\ (s \ne t)",
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "linear": "the logits are W h + b, with h and b free of W",
        "targets": "each sample's targets sum to one, as labels and smoothed labels do",
    },
    source="Boehning 1992",
    kind="equality",
)


def _entries_for_every_k(proof: Proof, block: Callable[[Any, Any], Any]) -> None:
    """`block` is the claimed factor of h h^T on and off the diagonal, from (d_st, p_s p_t)."""
    found = derived_entries()
    for key, other in (("j, j", H_J), ("j, k", H_K)):
        proof.identity(f"diagonal block, entry {key}", found[key], block(PS, PS * PS) * H_J * other)
    proof.identity("block s != t", found["s, t"], block(0, PS * PT) * H_J * H_K)
    labels = sympy.symbols("y_s y_t", real=True)
    proof.require("no target is in any entry", not any(entry.has(*labels) for entry in found.values()))


def _sums_of_squares(proof: Proof, floor: Any) -> None:
    """v^T H v - floor sum_s p_s x_s^2 for x_s = <v_s, h> is a sum of squares."""
    entries = derived_entries()
    diagonal, off = (sympy.cancel(entries[key] / (H_J * other)) for key, other in (("j, j", H_J), ("s, t", H_K)))
    # The sum over s != t is that over all pairs less the diagonal, where -p_s p_t would be -p_s^2.
    form = over_pairs((diagonal - off.subs(PT, PS) - floor * PS) * XS**2 * PT) + over_pairs(off * XS * XT)
    squares = over_pairs(PS * PT * (XS - XT) ** 2) / 2
    proof.identity("v^T H v = (1/2) sum p_s p_t (x_s - x_t)^2, every K (Lagrange's identity)", form, squares)
    equal = form.subs({moment(1, 1): 1, moment(1, 2): 1})
    proof.nonnegative("along 1 v^T, where every x_s = 1, v^T H v is not below the floor", equal)
    p_s, p_t, x = sympy.symbols("p_s p_t x", positive=True)
    proof.nonnegative("-v^T H_st v = p_s p_t <v, h>^2", -off.subs({PS: p_s, PT: p_t}) * x**2)


@HEAD_HESSIAN.certificate("symbolic", covers="every K, m, W, b, h", relies_on="sympy differentiation", whole=True)
def _hessian_symbolic(proof: Proof) -> None:
    """Log-sum-exp differentiated with all other classes and features as symbols; Lagrange's identity; small K and m."""
    _entries_for_every_k(proof, lambda d, product: d - product)
    _sums_of_squares(proof, 0)
    for K, m in ((2, 1), (2, 2), (3, 1), (3, 2)):
        hessian, _, h, p = expanded(K, m)
        blocks = sympy.kronecker_product(sympy.diag(*p) - p * p.T, h * h.T)
        proof.identity(f"written out, K = {K}, m = {m}", hessian, blocks)


def softmax_curvature(p: Tensor, labels: Tensor) -> Tensor:
    """diag(p) - p p^T of each sample, (n, K, K); the labels are not used."""
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def _hessian_numeric(proof: Proof, curvature: Callable[[Tensor, Tensor], Tensor], floor: float = 0.0) -> None:
    for seed in range(proof.cases(6, 40)):
        head = random_head(seed, K=2 + seed % 4, m=1 + seed % 3, n=1 + seed % 5)
        K, m = head.weight.shape
        dense = head_hessian(head)
        expected = torch.einsum(
            "ist,ij,ik->sjtk", curvature(head.probabilities, head.labels), head.features, head.features
        )
        proof.close(f"K, m, n = {K}, {m}, {len(head.labels)}: blocks", dense, expected / len(head.labels))
        least = torch.linalg.eigvalsh(dense.reshape(K * m, K * m))[0]
        proof.at_most("the least eigenvalue is not below the floor", floor - 1e-12, least)
        proof.at_most("off-diagonal blocks are negative", torch.linalg.eigvalsh(dense[0, :, 1])[-1], 1e-12)
        other = head._replace(labels=(head.labels + 1) % K)
        proof.close("with other labels", head_hessian(other), dense, rel=1e-12)


@HEAD_HESSIAN.certificate("numeric", covers="K = 2..5, m = 1..3, n = 1..5", relies_on="exact Hessians")
def _hessian_exact(proof: Proof) -> None:
    """Dense Hessians by automatic differentiation: every block, the eigenvalues, and the labels changed."""
    _hessian_numeric(proof, softmax_curvature)


def _first_block(head: Head) -> Tensor:
    p, h = head.probabilities[0], head.features[0]
    return (p[0] - p[0] ** 2) * torch.outer(h, h)


_ONE_SAMPLE = random_head(3, K=3, m=2, n=1)


@HEAD_HESSIAN.without("cross_entropy")
def _hessian_squared(proof: Proof) -> None:
    """Squared loss: H = I (x) h h^T, whose first block is h h^T."""
    found = head_hessian(_ONE_SAMPLE, "squared")
    proof.differ("trace of the first block", found[0, :, 0].trace().item(), _first_block(_ONE_SAMPLE).trace().item())
    proof.close("off-diagonal blocks are 0", found[0, :, 1], 0.0)


@HEAD_HESSIAN.without("temperature")
def _hessian_cold(proof: Proof) -> None:
    """Temperature 1/2 multiplies the Hessian by 4 beside moving p."""
    found = trained_with(_ONE_SAMPLE, cold)[0, :, 0].trace().item()
    sharper = _ONE_SAMPLE._replace(weight=2 * _ONE_SAMPLE.weight, bias=2 * _ONE_SAMPLE.bias)
    proof.differ("trace of the first block", found, _first_block(_ONE_SAMPLE).trace().item())
    proof.differ("with the p of that temperature", found, _first_block(sharper).trace().item())


class Cosine(nn.Linear):
    """A linear layer without bias whose rows are normalised in the forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, m) to (n, K)."""
        return input @ normalize(self.weight, dim=1).T


@HEAD_HESSIAN.without("linear")
def _hessian_cosine(proof: Proof) -> None:
    """Rows normalised in the forward pass: the Hessian is indefinite, and the label is in it."""
    head = Cosine(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.5], [-0.3, 1.0]]))
    features = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    first, second = (exact_hessian(head, cross_entropy, [(features, torch.tensor([y]))], "weight") for y in (0, 1))
    proof.exceeds("minus the least eigenvalue", -torch.linalg.eigvalsh(first.reshape(4, 4))[0].item(), 0.0)
    proof.differ("trace with label 0 against label 1", first[0, :, 0].trace().item(), second[0, :, 0].trace().item())


@HEAD_HESSIAN.without("targets")
def _hessian_two_labels(proof: Proof) -> None:
    """Two correct classes, each with target 1: the Hessian doubles."""
    proof.identity("block s != t for every K", derived_entries(targets=2)["s, t"], -2 * PS * PT * H_J * H_K)
    found = trained_with(_ONE_SAMPLE, cross_entropy, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    proof.differ("trace of the first block", found[0, :, 0].trace().item(), _first_block(_ONE_SAMPLE).trace().item())


@HEAD_HESSIAN.sibling
def _definite(proof: Proof) -> None:
    """H is positive definite, v^T H v >= sum_s p_s <v_s, h>^2 / 100 (false along 1 v^T)."""
    _sums_of_squares(proof, sympy.Rational(1, 100))
    _hessian_numeric(proof, softmax_curvature, floor=1e-9)


@HEAD_HESSIAN.sibling
def _empirical_fisher(proof: Proof) -> None:
    """H is the empirical Fisher matrix: blocks (p_s - y_s)(p_t - y_t) h h^T (true in the mean over y ~ p only)."""

    def residuals(p: Tensor, labels: Tensor) -> Tensor:
        off = p - one_hot(labels, p.shape[1])
        return off[:, :, None] * off[:, None, :]

    _hessian_numeric(proof, residuals)


HEAD_CLOSED_FORM = Statement(
    "head_closed_form",
    label="A2",
    claim="Relative flatness is the mean of ||h_i||^2 Var_{s~p_i}(w_s), where the variance is "
    "sum p_s ||w_s||^2 - ||sum p_s w_s||^2 = (1/2) sum p_s p_t ||w_s - w_t||^2.",
    latex=r"\kappa = \frac1n\sum_i \|h_i\|^2\,\mathrm{Var}_{s\sim p_i}(w_s)",
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "input": "h_i is what multiplies W: whatever normalises or centres it comes before",
    },
    source="new",
    kind="equality",
)

Form = Callable[[Tensor, Tensor], Tensor]
"""From the probabilities (n, K) and the weight (K, m) to a number for each sample."""

FORMS: dict[str, Form] = {
    "deviations": lambda p, w: torch.einsum("is,isj->i", p, (w - (p @ w)[:, None]).square()),
    "second moments": lambda p, w: p @ w.square().sum(dim=1) - (p @ w).square().sum(dim=1),
    "pairs": lambda p, w: torch.einsum("is,it,st->i", p, p, (w[:, None] - w).square().sum(dim=2)) / 2,
}


def closed_form(head: Head, form: Form = FORMS["pairs"], features: Tensor | None = None) -> float:
    """mean_i ||h_i||^2 form(p_i, W); `features` stand in for those whose norms are taken."""
    norms = (head.features if features is None else features).square().sum(dim=1)
    return (norms * form(head.probabilities, head.weight)).mean().item()


def _forms_for_every_k(proof: Proof, mean_row: Any) -> None:
    """One coordinate of the rows, one sample: the definition against each form; `mean_row` is sum p_s x_s."""
    entries = derived_entries()
    # Tr(H_st) sums the entries (j, j) over j: the factor of h_j^2, times ||h||^2 =: N.
    diagonal, off = sympy.cancel(entries["j, j"] / H_J**2), sympy.cancel(entries["s, t"] / (H_J * H_K))
    definition = over_pairs((diagonal - off.subs(PT, PS)) * XS**2 * PT) + over_pairs(off * XS * XT)
    second = over_pairs(PS * XS**2 * PT) - mean_row**2
    proof.identity("definition = sum p x^2 - (sum p x)^2", definition, second)
    proof.identity("= sum p (x - sum p x)^2", definition, over_pairs(PS * (XS - mean_row) ** 2 * PT))
    proof.identity("= (1/2) sum p_s p_t (x_s - x_t)^2", definition, over_pairs(PS * PT * (XS - XT) ** 2) / 2)


@HEAD_CLOSED_FORM.certificate("symbolic", covers="every K, m, n", relies_on="sympy differentiation", whole=True)
def _form_symbolic(proof: Proof) -> None:
    """The definition on derived second derivatives, summed over classes as symbols; written out for K <= 3, m <= 2."""
    _forms_for_every_k(proof, moment(1, 1))
    for K, m in ((2, 1), (2, 2), (3, 2)):
        hessian, W, h, p = expanded(K, m)
        gram = W * W.T
        kappa = sum(
            gram[s, t] * hessian[s * m : s * m + m, t * m : t * m + m].trace() for s in range(K) for t in range(K)
        )
        norm, mean = h.dot(h), W.T * p
        spread = sum(p[s] * p[t] * (gram[s, s] - gram[s, t]) for s in range(K) for t in range(K))
        proof.identity(f"K = {K}, m = {m}: pairs", kappa, norm * spread)
        second = sum(p[s] * gram[s, s] for s in range(K)) - mean.dot(mean)
        proof.identity(f"K = {K}, m = {m}: second moments", kappa, norm * second)


def _form_numeric(proof: Proof, forms: dict[str, Callable[[Head], float]]) -> None:
    for seed in range(proof.cases(6, 40)):
        head = random_head(seed, K=2 + seed % 5, m=1 + seed % 4, n=1 + seed % 6)
        dense = kappa_by_hessian(head)
        proof.close(f"seed {seed}: Hessian-vector products", kappa_matrix_free(head), dense)
        for name, form in forms.items():
            proof.close(f"seed {seed}: {name}", form(head), dense)


@HEAD_CLOSED_FORM.certificate("numeric", covers="K = 2..6, m = 1..4, n = 1..6", relies_on="exact Hessians")
def _form_exact(proof: Proof) -> None:
    """The dense Hessian and Hessian-vector products against each of the three forms."""
    _form_numeric(proof, {name: partial(closed_form, form=form) for name, form in FORMS.items()})


@HEAD_CLOSED_FORM.without("cross_entropy")
def _form_squared(proof: Proof) -> None:
    """Squared loss: kappa is ||W||_F^2 mean ||h||^2."""
    proof.differ("kappa against the form", kappa_by_hessian(_ONE_SAMPLE, "squared"), closed_form(_ONE_SAMPLE))


@HEAD_CLOSED_FORM.without("temperature")
def _form_cold(proof: Proof) -> None:
    """Temperature 1/2: four times the form at the probabilities of that temperature."""
    sharper = _ONE_SAMPLE._replace(weight=2 * _ONE_SAMPLE.weight, bias=2 * _ONE_SAMPLE.bias)
    found = kappa_of_hessian(trained_with(_ONE_SAMPLE, cold), _ONE_SAMPLE.weight)
    form = FORMS["pairs"](sharper.probabilities, _ONE_SAMPLE.weight) * _ONE_SAMPLE.features.square().sum()
    proof.differ("kappa against the form", found, form.item())
    proof.close("kappa is four times the form", found, 4 * form.item())


@HEAD_CLOSED_FORM.without("input")
def _form_centred(proof: Proof) -> None:
    """Norms of the features less their mean, where the head sees them raw."""
    head = random_head(2, K=3, m=2, n=5)
    centred = head.features - head.features.mean(dim=0)
    proof.differ("kappa against the form", kappa_by_hessian(head), closed_form(head, features=centred))


@HEAD_CLOSED_FORM.sibling
def _uniform_mean(proof: Proof) -> None:
    """The mean row may be taken over the classes uniformly: sum p_s ||w_s||^2 - ||sum w_s / K||^2."""
    _forms_for_every_k(proof, moment(0, 1) / moment(0, 0))

    def uniform(p: Tensor, w: Tensor) -> Tensor:
        return p @ w.square().sum(dim=1) - w.mean(dim=0).square().sum()

    _form_numeric(proof, {"uniform mean": lambda head: closed_form(head, uniform)})


@HEAD_CLOSED_FORM.sibling
def _factorised(proof: Proof) -> None:
    """The norm can be averaged by itself: kappa = mean ||h_i||^2 times mean Var."""

    def product(head: Head) -> float:
        norms = head.features.square().sum(dim=1)
        return (norms.mean() * FORMS["pairs"](head.probabilities, head.weight).mean()).item()

    _form_numeric(proof, {"product of means": product})
