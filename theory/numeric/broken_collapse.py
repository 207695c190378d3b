"""Collapse with one assumption broken and the others kept: the counterexamples that B1 and B2 share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from theory.numeric.configurations import Head, collapsed, generator_of, normal, simplex
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

COLLAPSE = {
    "NC1": "every feature is its class mean",
    "NC2": "the centred class means form a simplex ETF of radius M",
    "NC3": "the rows of W are lambda > 0 times the centred class means",
    "NC4": "b_j + <w_j, mu_G> is the same for every class",
    "balanced": "every class has the same number of samples",
}
"""What collapse means here, by name."""

_TEXTS = {
    "NC1": "K = 3, Delta = 3: noise of size 2M inside the classes, in a direction no row sees.",
    "NC2": "K = 3: random centred means with their dual head.",
    "NC3": "K = 3, Delta = 3: half of another simplex added to the head.",
    "NC4": "K = 3, Delta = 3: one bias raised by 1.",
    "balanced": "K = 3, shares 4:1:1, mu_G = 0.8 times the first centred mean.",
}


def broken(assumption: str, noise: float = 2.0) -> Head:
    """The collapsed head K = 3, m = 4, Delta = 3, M = 1 with one assumption broken and the others kept.

    `noise` is the size of the within-class noise where NC1 is broken.
    """
    head = collapsed(1, K=3, m=4, gap=3.0, radius=1.0)
    if assumption == "NC1":
        double = collapsed(1, K=3, m=4, gap=3.0, radius=1.0, counts=2)
        unseen = torch.linalg.svd(double.weight)[2][-1] * noise
        signs = torch.tensor([[1.0], [-1.0]] * 3, dtype=torch.float64)
        return double._replace(features=double.features + signs * unseen)
    if assumption == "NC2":
        means = normal(generator_of(5), 3, 4)
        means = means - means.mean(dim=0)
        means = means / means.norm(dim=1).square().mean().sqrt()
        return Head(means, 2.0 * means, head.bias * 0, head.labels)
    if assumption == "NC3":
        return head._replace(weight=head.weight + 0.5 * simplex(3, 4, seed=8))
    if assumption == "NC4":
        return head._replace(bias=head.bias + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    return collapsed(1, K=3, m=4, gap=3.0, radius=1.0, mean=0.8 * head.features[0], counts=[4, 1, 1])


def gap_and_gamma(head: Head) -> tuple[float, float]:
    """The mean logit gap (nats) and ||mu_G||/M, as one would measure them on any head."""
    classes = head.weight.shape[0]
    logits = head.features @ head.weight.T + head.bias
    true = logits.gather(1, head.labels[:, None]).squeeze(1)
    gap = (true - (logits.sum(dim=1) - true) / (classes - 1)).mean()
    means = torch.stack([head.features[head.labels == c].mean(dim=0) for c in range(classes)])
    centre = means.mean(dim=0)
    return float(gap), float(centre.norm() / (means - centre).norm(dim=1).square().mean().sqrt())


def drop_collapse(statement: Statement, predicted: Callable[[Head], float]) -> None:
    """Add, for each assumption of COLLAPSE, the counterexample whose exact kappa is not `predicted(head)`."""

    def add(assumption: str) -> None:
        def counterexample(proof: Proof) -> None:
            head = broken(assumption)
            proof.differ("kappa of the exact Hessian against the claim", kappa_by_hessian(head), predicted(head))

        counterexample.__doc__ = _TEXTS[assumption]
        statement.without(assumption)(counterexample)

    for assumption in COLLAPSE:
        add(assumption)
