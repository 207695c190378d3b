"""Relative flatness of a linear head under cross-entropy in closed form (A2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from theory.algebra.class_pairs import PS, PT, XS, XT, curvature_form, expanded, moment, over_pairs
from theory.numeric.configurations import Head, random_head
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free, kappa_of_hessian
from theory.numeric.other_heads import COSINE_HEAD, ONE_SAMPLE, cold, cosine_hessian, trained_with
from theory.proof import Proof
from theory.statement import Statement

HEAD_CLOSED_FORM = Statement(
    "head_closed_form",
    label="A2",
    claim="Relative flatness is the mean of ||h_i||^2 Var_{s~p_i}(w_s), where the variance is "
    "sum p_s ||w_s||^2 - ||sum p_s w_s||^2 = (1/2) sum p_s p_t ||w_s - w_t||^2.",
    latex=r"\kappa = \frac1n\sum_i \|h_i\|^2\,\mathrm{Var}_{s\sim p_i}(w_s)",
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "targets": "each sample's targets sum to one, as labels and smoothed labels do",
        "linear": "the logits are W h + b, with h and b free of W",
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
    # <w_s, w_t> Tr(H_st) = sum_j w_sj w_tj Q_st ||h||^2, so one coordinate x = w_j stands for all.
    definition = curvature_form(XS, XT)
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
    proof.differ("kappa against the form", kappa_by_hessian(ONE_SAMPLE, "squared"), closed_form(ONE_SAMPLE))


@HEAD_CLOSED_FORM.without("temperature")
def _form_cold(proof: Proof) -> None:
    """Temperature 1/2: four times the form at the probabilities of that temperature."""
    sharper = ONE_SAMPLE._replace(weight=2 * ONE_SAMPLE.weight, bias=2 * ONE_SAMPLE.bias)
    found = kappa_of_hessian(trained_with(ONE_SAMPLE, cold), ONE_SAMPLE.weight)
    form = FORMS["pairs"](sharper.probabilities, ONE_SAMPLE.weight) * ONE_SAMPLE.features.square().sum()
    proof.differ("kappa against the form", found, form.item())
    proof.close("kappa is four times the form", found, 4 * form.item())


@HEAD_CLOSED_FORM.without("targets")
def _form_two_labels(proof: Proof) -> None:
    """Two correct classes, each with target 1: kappa doubles."""
    found = trained_with(ONE_SAMPLE, cross_entropy, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    proof.differ("kappa against the form", kappa_of_hessian(found, ONE_SAMPLE.weight), closed_form(ONE_SAMPLE))


@HEAD_CLOSED_FORM.without("linear")
def _form_cosine(proof: Proof) -> None:
    """Rows of norm 1 that the forward pass normalises: the same outputs, and a negative kappa."""
    kappa = kappa_of_hessian(cosine_hessian(COSINE_HEAD), COSINE_HEAD.weight)
    proof.differ("kappa against the form", kappa, closed_form(COSINE_HEAD))


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
