"""The rates of D3 from exact joint Hessians of the unconstrained-features model in float64.

The objective is that of :mod:`theory.algebra.ufm_rates`; the Hessian is by automatic differentiation, over W
and H at once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from theory.algebra.class_symmetry import K
from theory.algebra.ufm_rates import DECAY, DELTA, EARLY, SAMPLES, WITHIN, B
from theory.numeric.collapse_spectrum import softmax_curvatures
from theory.numeric.configurations import Head, collapsed, generator_of, normal
from theory.numeric.descent import lbfgs
from theory.numeric.flows import Loss, mean_error
from theory.proof import Proof

Decays = tuple[float, float]
"""(l_W, l_H)."""


def objective(
    weight: Tensor, features: Tensor, labels: Tensor, decays: Decays, loss: Loss = torch.nn.functional.cross_entropy
) -> Tensor:
    """F(W, H): weight (K, m), features (N, m), labels (N,); a scalar in nats."""
    return (
        loss(features @ weight.T, labels)
        + decays[0] / 2 * weight.square().sum()
        + decays[1] / 2 * features.square().sum()
    )


def _of_vector(head: Head, decays: Decays, variables: Tensor, loss: Loss = torch.nn.functional.cross_entropy) -> Tensor:
    size = head.weight.numel()
    weight, features = variables[:size].reshape(head.weight.shape), variables[size:].reshape(head.features.shape)
    return objective(weight, features, head.labels, decays, loss)


def _variables(head: Head) -> Tensor:
    return torch.cat([head.weight.flatten(), head.features.flatten()])


def joint_gradient(head: Head, decays: Decays) -> Tensor:
    """The gradient of F at (W, H), W first, each flattened by rows; (Km + Nm,)."""
    gradient: Tensor = torch.func.grad(lambda v: _of_vector(head, decays, v))(_variables(head))
    return gradient


def joint_hessian(head: Head, decays: Decays, loss: Loss = torch.nn.functional.cross_entropy) -> Tensor:
    """The Hessian of F at (W, H), W first, each flattened by rows; square of size Km + Nm."""
    hessian: Tensor = torch.func.hessian(lambda v: _of_vector(head, decays, v, loss))(_variables(head))
    return hessian


def within_class(head: Head) -> Tensor:
    """An orthonormal basis of the directions that leave W and every class mean; (Km + Nm, m sum_c (n_c - 1))."""
    classes, m = head.weight.shape
    counts = torch.bincount(head.labels, minlength=classes).to(torch.float64)
    member = torch.nn.functional.one_hot(head.labels, classes).to(torch.float64)
    projection = torch.eye(len(head.labels), dtype=torch.float64) - member / counts @ member.T
    values, vectors = torch.linalg.eigh(projection)
    directions = torch.kron(vectors[:, values > 0.5].contiguous(), torch.eye(m, dtype=torch.float64))
    return torch.cat([torch.zeros(classes * m, directions.shape[1], dtype=torch.float64), directions])


def optimum(classes: int, m: int, n: int, gap: float, ratio: float = 1.0, seed: int = 0) -> tuple[Head, Decays]:
    """The global minimiser (D1) with logit gap Delta and n samples a class, and its decays, l_H = ratio l_W."""
    other, _ = softmax_curvatures(gap, classes)
    # w_c = lam h_c with l_W ||W||^2 = l_H ||H||^2.
    lam, decay = math.sqrt(n * ratio), other / math.sqrt(n * ratio)
    radius = math.sqrt(gap * (classes - 1) / (classes * lam))
    return collapsed(seed, K=classes, m=m, gap=gap, radius=radius, counts=n), (decay, ratio * decay)


def rates_of(hessian: Tensor, directions: Tensor | None = None) -> Tensor:
    """The eigenvalues, ascending, on the span of orthonormal `directions` if given."""
    if directions is not None:
        hessian = directions.T @ hessian @ directions
    rates: Tensor = torch.linalg.eigvalsh(hessian)
    return rates


def within_measured(proof: Proof, claimed: tuple[Any, Any, Any] = WITHIN) -> None:
    """The exact joint Hessian on within-class directions: m = K - 1 and more, n = 2, 3, l_H from l_W/3 to 3 l_W."""
    cases = [(2, 1, 2, 3.0, 1.0), (2, 3, 2, 1.0, 3.0), (3, 2, 3, 5.0, 1 / 3), (3, 4, 2, 2.0, 1.0), (5, 4, 2, 6.0, 2.0)]
    for classes, m, n, gap, ratio in cases[: proof.cases(4, 5)]:
        head, decays = optimum(classes, m, n, gap, ratio)
        text = f"K = {classes}, m = {m}, n = {n}"
        proof.close(f"{text}: stationary", joint_gradient(head, decays), 0.0, scale=decays[0], rel=1e-10)
        _compare_within(proof, text, head, decays, gap, claimed)


def within_found(proof: Proof) -> None:
    """The same at a minimum that L-BFGS finds, with the gap read off its logits."""
    labels, decays = torch.arange(3).repeat_interleave(2), (0.03, 0.05)
    head = minimised(3, 3, labels, decays, seed=1)
    logits = head.features @ head.weight.T
    own = logits.gather(1, labels[:, None])
    gap = float((own - logits).sum() / (len(labels) * 2))
    _compare_within(proof, "K = 3, m = 3, n = 2", head, decays, gap, WITHIN, rel=1e-5)


def _compare_within(
    proof: Proof, text: str, head: Head, decays: Decays, gap: float, claimed: tuple[Any, ...], *, rel: float = 1e-9
) -> None:
    hessian, directions = joint_hessian(head, decays), within_class(head)
    found = rates_of(hessian, directions) / decays[1]
    proof.close(f"{text}: rates over l_H", found, within_rates(head, gap, claimed), rel=rel)
    leak = hessian @ directions - directions @ (directions.T @ hessian @ directions)
    proof.close(f"{text}: no other direction moves", leak, 0.0, scale=decays[1], rel=rel)


def within_rates(head: Head, gap: float, claimed: tuple[Any, ...] = WITHIN) -> Tensor:
    """The claimed within-class rates over l_H of a balanced head with logit gap Delta, ascending."""
    classes, m = head.weight.shape
    other, _ = softmax_curvatures(gap, classes)
    once, between, rest = (float(rate.subs({K: classes, DELTA: gap, B: other})) for rate in claimed)
    per_sample = [once] + (classes - 2) * [between] + (m - classes + 1) * [rest]
    copies = len(head.labels) - classes
    return torch.tensor(copies * per_sample, dtype=torch.float64).sort().values


def minimised(classes: int, m: int, labels: Tensor, decays: Decays, *, seed: int) -> Head:
    """A minimum of F by L-BFGS from a normal start."""
    generator = generator_of(seed)
    starts = [normal(generator, classes, m) / 2, normal(generator, len(labels), m) / 2]
    weight, features = lbfgs(lambda w, h: objective(w, h, labels, decays), starts, tolerance=1e-11)
    return Head(features, weight, torch.zeros(classes, dtype=torch.float64), labels)


def origin_measured(proof: Proof, claimed: Any = EARLY) -> None:
    """The exact joint Hessian at the origin, for n = 1 to 4: the least eigenvalue, m (K - 1) times."""
    decay = 0.02
    for classes, m, n in ((2, 1, 1), (2, 2, 3), (3, 2, 4), (5, 2, 2)):
        labels = torch.arange(classes).repeat_interleave(n)
        found = rates_of(joint_hessian(_origin(m, labels), (decay, decay)))[: m * (classes - 1)]
        growth = float(claimed.subs({K: classes, SAMPLES: n, DECAY: decay}))
        proof.close(f"K = {classes}, m = {m}, n = {n}", -found, growth, rel=1e-9)


def optimum_measured(proof: Proof) -> None:
    """All rates over l at minimisers with one gap and different n, l and m: the same numbers."""
    for classes, gap in ((2, 2.0), (3, 4.0), (4, 1.0)):
        spectra = []
        for m, n in ((classes - 1, 1), (classes - 1, 3), (classes + 1, 2)):
            head, decays = optimum(classes, m, n, gap)
            hessian, inside = joint_hessian(head, decays), within_class(head)
            # The within-class part has rates of its own; taken out, its directions have rate 0.
            outside = hessian - inside @ (inside.T @ hessian)
            spectra.append(rates_of((outside + outside.T) / 2) / decays[0])
        distinct = [_distinct(values) for values in spectra]
        proof.close(f"K = {classes}: n = 1 and n = 3", distinct[1], distinct[0], rel=1e-8)
        also = torch.cat([distinct[0], distinct[0].new_tensor([0.0, 1.0, 2.0])])
        proof.close(f"K = {classes}: m = K + 1 adds 0, 1 and 2", distinct[2], _distinct(also), rel=1e-8)


def _distinct(values: Tensor) -> Tensor:
    ordered = torch.cat([values.new_zeros(1), values]).sort().values
    keep = torch.cat([torch.ones(1, dtype=torch.bool), ordered.diff() > 1e-6])
    return ordered[keep]


def _origin(m: int, labels: Tensor) -> Head:
    classes = int(labels.max()) + 1
    features, weight = (torch.zeros(size, m, dtype=torch.float64) for size in (len(labels), classes))
    return Head(features, weight, weight.new_zeros(classes), labels)


def off_the_optimum(proof: Proof) -> None:
    """K = 3: the same outputs and gap with W doubled and H halved; every direction of the rows relaxes faster."""
    head, decays = optimum(3, 3, 2, 3.0)
    moved = head._replace(weight=2 * head.weight, features=head.features / 2)
    proof.close("the same outputs", moved.probabilities, head.probabilities)
    found = rates_of(joint_hessian(moved, decays), within_class(moved)) / decays[1]
    proof.differ("largest rate over l_H", float(found[-1]), float(within_rates(moved, 3.0)[-1]))


def unbalanced_origin(proof: Proof) -> None:
    """K = 3 with 1, 1 and 4 samples: the early growth is not that of n = 2."""
    decay, labels = 0.02, torch.tensor([0, 1, 2, 2, 2, 2])
    least = float(rates_of(joint_hessian(_origin(2, labels), (decay, decay)))[0])
    proof.differ("growth at the origin", -least, float(EARLY.subs({K: 3, SAMPLES: 2, DECAY: decay})))


def another_loss_at_the_origin(proof: Proof) -> None:
    """K = 2, n = 2 with the loss 1 - p_y: at the origin its gradient in the logits is 1/K of the cross-entropy's."""
    head, decay = _origin(2, torch.tensor([0, 0, 1, 1])), 0.02
    least = float(rates_of(joint_hessian(head, (decay, decay), mean_error))[0])
    proof.differ("growth at the origin", -least, float(EARLY.subs({K: 2, SAMPLES: 2, DECAY: decay})))
