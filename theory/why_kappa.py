"""Why relative flatness is this sum: it is the mean curvature towards randomly rotated copies of the weight (A4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore.curvature import exact_hessian
from theory.numeric.configurations import Head, generator_of, normal, random_head, random_mlp, rotation
from theory.numeric.oracle import head_hessian, kappa_by_hessian, kappa_of_hessian, layer_kappa
from theory.proof import Proof
from theory.statement import Statement

WHY_KAPPA = Statement(
    "why_kappa",
    label="A4",
    claim="A Haar in O(m): the mean of vec(WA)^T H vec(WA) is kappa/m at every W, and h -> h + dAh raises the expected "
    "loss by kappa d^2/(2m) + O(d^4). With Z of m x m independent fair signs the mean of <WZ, H[WZ]> is kappa.",
    latex=r"\mathbb E_A\,L(W + dWA) - L(W) = \frac{\kappa}{2m}\,d^2 + O(d^4), \qquad "
    r"\mathbb E_Z\langle WZ, H[WZ]\rangle = \kappa",
    assumptions={
        "second_moments": "E A_ab A_cd = d_ac d_bd / m, as Haar, signed permutations and Z/sqrt(m) have it",
        "even": "for the rise of the loss: A and -A have one law",
        "smooth": "for the rise of the loss: the loss has four derivatives in W at W",
    },
    source="new; the curvature's use: Petzka et al. 2021; the estimator: Hutchinson 1990",
    kind="equality",
)


def signed_permutations(m: int) -> Tensor:
    """The 2^m m! signed permutation matrices, (2^m m!, m, m): a finite group with Haar's second moments."""
    eye = torch.eye(m, dtype=torch.float64)
    permuted = torch.stack([eye[list(order)] for order in itertools.permutations(range(m))])
    return torch.cat([torch.tensor(signs)[:, None] * permuted for signs in itertools.product((1.0, -1.0), repeat=m)])


def sign_matrices(m: int) -> Tensor:
    """Every m x m matrix of signs, (2^(m^2), m, m)."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=m * m)), dtype=torch.float64).reshape(-1, m, m)


def plane_rotations(count: int = 48) -> Tensor:
    """Equally spaced elements of O(2), (2 count, 2, 2): Haar's own mean of trigonometric polynomials below `count`."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
    return torch.cat([turn, turn * torch.tensor([1.0, -1.0])])


def sign_diagonals(m: int) -> Tensor:
    """The 2^m diagonal sign matrices: orthogonal with mean zero, but E A_11 A_11 = 1."""
    return torch.stack([torch.diag(torch.tensor(signs)) for signs in itertools.product((1.0, -1.0), repeat=m)]).double()


def curvatures(hessian: Tensor, weight: Tensor, matrices: Tensor) -> Tensor:
    """vec(WA)^T H vec(WA) for each A of (N, m, m), (N,)."""
    moved = weight @ matrices
    return torch.einsum("nsj,sjtk,ntk->n", moved, hessian, moved)


def rise(head: Head, d: float, matrices: Tensor) -> float:
    """The mean over A of L(h + dAh) - L(h), the same A at every sample."""
    turned = head.features + d * torch.einsum("nab,ib->nia", matrices, head.features)
    logits = turned @ head.weight.T + head.bias
    labels = head.labels.expand(len(matrices), -1)
    return cross_entropy(logits.flatten(0, 1), labels.flatten()).item() - head.loss


Share = Callable[[Any], Any]
"""From m to the claimed factor of (Tr X) I in the mean of A X A^T.

With X = H_st that is the whole claim: vec(WA)^T H vec(WA) = sum_{s,t} w_s (A H_st A^T) w_t^T.
"""


def _schur(proof: Proof, haar: Share, signs: Share) -> None:
    """The mean Y of A X A^T for a law that signed permutations g leave alone (A -> gA): Schur's lemma, every m."""
    aa, ab, ba, bb, trace = sympy.symbols("Y_aa Y_ab Y_ba Y_bb T")
    m = sympy.Symbol("m", positive=True)
    Y, flip, swap = sympy.Matrix([[aa, ab], [ba, bb]]), sympy.diag(-1, 1), sympy.Matrix([[0, 1], [1, 0]])
    kept = sympy.solve([*(flip * Y * flip - Y), *(swap * Y * swap - Y)], [aa, ab, ba], dict=True)
    proof.require("sign flips and swaps leave multiples of the identity", kept == [{aa: bb, ab: 0, ba: 0}])
    # Tr Y is Tr X for orthogonal A, and m Tr X for signs, where E Z^T Z = m I.
    for name, whole, share in (("orthogonal A", trace, haar), ("signs Z", m * trace, signs)):
        entry = sympy.solve(m * bb - whole, bb)[0]
        proof.identity(f"{name}: the entry on the diagonal", entry, share(m) * trace)


def signed_permutations_in_sympy(m: int) -> list[Any]:
    """The group of :func:`signed_permutations`, listed anew."""
    return [
        sympy.Matrix(m, m, lambda i, j, order=order, signs=signs: signs[i] * int(order[i] == j))
        for order in itertools.permutations(range(m))
        for signs in itertools.product((1, -1), repeat=m)
    ]


def _averaged(proof: Proof, haar: Share, signs: Share) -> None:
    """Means over every signed permutation and every sign matrix, for any block X."""
    for m in (1, 2, 3):
        _mean_of(proof, f"m = {m}, every signed permutation", signed_permutations_in_sympy(m), haar)
    for m in (1, 2):
        every = [sympy.Matrix(m, m, entries) for entries in itertools.product((1, -1), repeat=m * m)]
        _mean_of(proof, f"m = {m}, every sign matrix", every, signs)


def _mean_of(proof: Proof, text: str, matrices: list[Any], share: Share) -> None:
    m = matrices[0].shape[0]
    X = sympy.Matrix(m, m, sympy.symbols(f"X_:{m * m}"))
    mean = sum((A * X * A.T for A in matrices), sympy.zeros(m, m)) / len(matrices)
    proof.identity(f"{text}: mean A X A^T", mean, share(sympy.Integer(m)) * X.trace() * sympy.eye(m))


def _rise(proof: Proof) -> None:
    """The rise of the loss from its derivatives along WA, and written out for K = m = 2."""
    d, slope, curvature, third, fourth = sympy.symbols("d g q t r")
    taylor = slope * d + curvature * d**2 / 2 + third * d**3 / 6 + fourth * d**4 / 24
    # The mean of `curvature` over A is kappa/m, and WA is bounded, so that what Taylor's theorem leaves is o(d^4).
    expected = curvature * d**2 / 2 + fourth * d**4 / 24
    proof.identity("A and -A have one law: no odd derivative is left", (taylor + taylor.subs(d, -d)) / 2, expected)
    x, E = sympy.symbols("x E", positive=True)
    difference, h = sympy.Matrix(1, 2, sympy.symbols("u_:2")), sympy.Matrix(sympy.symbols("h_:2"))
    group = signed_permutations_in_sympy(2)
    derivatives = [sympy.diff(sympy.log(1 + sympy.exp(x)), x, order).subs(sympy.exp(x), E) for order in (1, 2, 3)]
    p = E / (1 + E)
    kappa = h.dot(h) * p * (1 - p) * difference.dot(difference)
    for order, claimed in ((1, 0), (2, kappa / 2), (3, 0)):
        # The binary logit is x + d u.Ah, so the derivative of order k in d is that in x times (u.Ah)^k.
        mean = sum((difference * g * h)[0] ** order for g in group) / len(group) * derivatives[order - 1]
        proof.identity(f"K = m = 2: derivative {order} of the expected loss in d", mean, claimed)


@WHY_KAPPA.certificate("symbolic", covers="every m, K, W, H", relies_on="sympy", whole=True)
def _why_symbolic(proof: Proof) -> None:
    """Schur's lemma for signed permutations, which Haar absorbs (AX A^T, A -> gA); the group written out for m <= 3."""
    for check in (_schur, _averaged):
        check(proof, haar=lambda m: 1 / m, signs=lambda m: 1)
    _rise(proof)


def _exact_means(proof: Proof, matrices: Callable[[int], Tensor], factor: Callable[[int], float]) -> None:
    """Heads, and a hidden layer: the mean of vec(WA)^T H vec(WA) against kappa times `factor`."""
    for m in range(1, 1 + proof.cases(3, 4)):
        head = random_head(m, K=2 + m, m=m, n=4)
        means = curvatures(head_hessian(head), head.weight, matrices(m)).mean()
        proof.close(f"head, m = {m}", means, kappa_by_hessian(head) * factor(m))
    model, inputs, labels = random_mlp(1, [2, 3, 2], nn.Tanh()), normal(generator_of(3), 4, 2), torch.arange(4) % 2
    for layer, m in (("0", 2), ("2", 3)):
        hessian = exact_hessian(model, cross_entropy, [(inputs, labels)], layer)
        weight = model.get_parameter(f"{layer}.weight").detach()
        means = curvatures(hessian, weight, matrices(m)).mean()
        proof.close(f"tanh network, layer {layer}", means, kappa_of_hessian(hessian, weight) * factor(m))


def _order(proof: Proof, order: int) -> None:
    """The rise less kappa d^2/(2m), at d and d/2, shrinks by 2^order."""
    for m, matrices in ((2, plane_rotations()), (1, sign_diagonals(1)), (3, signed_permutations(3))):
        head = random_head(7 + m, K=3, m=m, n=4)
        kappa = kappa_by_hessian(head)
        left, right = (rise(head, d, matrices) - kappa * d**2 / (2 * m) for d in (0.02, 0.01))
        proof.at_most(f"m = {m}: off the order of the remainder", abs(math.log2(left / right) - order), 0.1)


@WHY_KAPPA.certificate(
    "numeric", covers="m = 1..3, heads and a tanh network", relies_on="exact Hessians; exact means over finite sets"
)
def _why_exact(proof: Proof) -> None:
    """Means over every signed permutation, every sign matrix and O(2) by equal angles; the order of the remainder."""
    _exact_means(proof, signed_permutations, lambda m: 1 / m)
    _exact_means(proof, sign_matrices, lambda m: 1.0)
    head = random_head(9, K=4, m=2, n=3)
    means = curvatures(head_hessian(head), head.weight, plane_rotations()).mean()
    proof.close("Haar on O(2) itself", means, kappa_by_hessian(head) / 2)
    _order(proof, 4)


@WHY_KAPPA.certificate("sampled", covers="m = 5, K = 4", relies_on="exact Hessians; random draws")
def _why_sampled(proof: Proof) -> None:
    """Haar by QR of normal matrices and random signs: the mean within five standard errors."""
    head = random_head(4, K=4, m=5, n=6)
    hessian, kappa = head_hessian(head), kappa_by_hessian(head)
    count = proof.cases(1000, 20_000)
    signs = normal(generator_of(2), 4 * count, 5, 5).sign()
    for name, matrices, expected in (
        ("Haar", torch.stack([rotation(seed, 5) for seed in range(count)]), kappa / 5),
        ("Rademacher", signs, kappa),
    ):
        values = curvatures(hessian, head.weight, matrices)
        error = (values.std() / math.sqrt(len(values))).item()
        proof.at_most(f"{name}: the error of the mean", abs(values.mean().item() - expected), 5 * error)
        proof.at_most(f"{name}: five standard errors are a fifth of the mean at most", 5 * error, expected / 5)


@WHY_KAPPA.without("second_moments")
def _diagonal_signs(proof: Proof) -> None:
    """A a diagonal of random signs: orthogonal and of mean zero, but it keeps each feature's direction."""
    head = random_head(1, K=3, m=2, n=3)
    means = curvatures(head_hessian(head), head.weight, sign_diagonals(2)).mean()
    proof.differ("mean curvature against kappa/m", means.item(), kappa_by_hessian(head) / 2)


@WHY_KAPPA.without("even")
def _identity_only(proof: Proof) -> None:
    """m = 1, A = 1: the second moment is right, and the rise of the loss is of first order."""
    head = random_head(8, K=3, m=1, n=4)
    alone = torch.ones(1, 1, 1, dtype=torch.float64)
    means = curvatures(head_hessian(head), head.weight, alone).mean()
    proof.close("mean curvature is kappa/m", means, kappa_by_hessian(head))
    proof.differ("rise over d^2 at d = 1e-3", rise(head, 1e-3, alone) / 1e-6, kappa_by_hessian(head) / 2)


@WHY_KAPPA.without("smooth")
def _kink(proof: Proof) -> None:
    """A ReLU at its kink: the rise is of first order, and the kappa of automatic differentiation is 0."""
    model, inputs, labels = (
        random_mlp(1, [1, 1, 2], nn.ReLU()),
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([0]),
    )
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
        model.get_parameter("0.bias").fill_(-1.0)
        kappa = layer_kappa(model, cross_entropy, inputs, labels, "0")
        d, still = 1e-3, cross_entropy(model(inputs), labels)
        change = sum(cross_entropy(model(inputs + sign * d), labels) - still for sign in (1, -1)) / 2
    proof.differ("rise over d^2 at d = 1e-3", float(change) / d**2, kappa / 2)


@WHY_KAPPA.sibling
def _any_random_signs(proof: Proof) -> None:
    """Any random orthogonal A of mean zero does, such as a diagonal of signs."""
    _exact_means(proof, sign_diagonals, lambda m: 1 / m)


@WHY_KAPPA.sibling
def _sixth_order(proof: Proof) -> None:
    """The loss rises by kappa d^2/(2m) + O(d^6)."""
    _order(proof, 6)


@WHY_KAPPA.sibling
def _no_dimension(proof: Proof) -> None:
    """The mean over Haar is kappa itself."""
    for check in (_schur, _averaged):
        check(proof, haar=lambda m: 1, signs=lambda m: 1)
    _exact_means(proof, signed_permutations, lambda m: 1.0)
