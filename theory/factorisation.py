"""The least kappa over linear reparametrisations (W A^{-1}, A h) of any head (B6')."""

from __future__ import annotations

from collections.abc import Callable

import sympy
import torch
from torch import Tensor

from theory.algebra.flattest_factorisation import (
    collapse_is_critical,
    definite_sums,
    geodesic_convexity,
    schur_complements,
    stationarity,
)
from theory.numeric.configurations import Head, collapsed, generator_of, normal, random_head
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.reparametrisation import approaching, descended, found_for, geodesic, power, reduced, reparametrised
from theory.proof import Proof
from theory.statement import Statement

FLATTEST_FACTORISATION = Statement(
    "flattest_factorisation",
    label="B6'",
    claim="For any head and features, the infimum of kappa over (W A^{-1}, A h), A invertible, is the minimum over "
    "factorisations of the centred logits W~ H through their rank r; kappa is geodesically convex in P = A^T A, the "
    "minimiser is unique up to scale, and some A attains it iff rank H = rank W~ = rank W~ H, or H = 0, or W~ = 0. "
    "At balanced collapse with mu_G = 0, A = I attains it.",
    latex=r"\inf_{A \in GL_m} \kappa(WA^{-1}, AH) = \min_{P \succ 0,\ r \times r}"
    r"\tfrac1N\textstyle\sum_i (f_i^\top P f_i)\,\mathrm{Tr}(B_i P^{-1}),\quad \tilde W h_i = G f_i,"
    r"\ B_i = G^\top(\mathrm{diag}\,p_i - p_i p_i^\top)G",
    assumptions={
        "linear": "reparametrisations are linear and the bias stays: features are not translated",
        "cross_entropy": "the loss is softmax cross-entropy",
        "balanced": "for collapse to be optimal: every class has the same number of samples",
        "centred": "for collapse to be optimal: mu_G = 0",
    },
    source="new",
    kind="equality",
)


@FLATTEST_FACTORISATION.certificate(
    "symbolic", covers="every K, m, n and rank", relies_on="sympy, the one-class algebra", whole=True
)
def _symbolic(proof: Proof) -> None:
    """Reduction by Schur complements in letters, convexity along geodesics, a minimum, collapse for every K."""
    schur_complements(proof)
    geodesic_convexity(proof)
    definite_sums(proof)
    stationarity(proof)
    collapse_is_critical(proof, sympy.Integer(0))


# The numeric channel.


def _heads() -> list[Head]:
    """Heads on both sides of attainment: m against K - 1, few samples, dead features, collapse, W~ = 0, H = 0."""
    square, wide, few = random_head(1, K=4, m=3, n=6), random_head(2, K=3, m=5, n=4), random_head(3, K=5, m=4, n=2)
    thin, tall = random_head(4, K=4, m=2, n=5), collapsed(5, K=3, m=5, counts=2)
    dead = square._replace(features=square.features * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    both = dead._replace(weight=square.weight * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    crossed = dead._replace(weight=square.weight * torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    return [
        square,
        wide,
        few,
        thin,
        dead,
        both,
        crossed,
        tall,
        collapsed(6, K=3, m=4, gamma=0.7),
        wide._replace(features=0 * wide.features),
        wide._replace(weight=0 * wide.weight + wide.weight[:1]),
    ]


@FLATTEST_FACTORISATION.certificate(
    "numeric", covers="K = 3..5, eleven heads of every kind of rank", relies_on="the Newton method, exact Hessians"
)
def _numeric(proof: Proof) -> None:
    """By the dense Hessian: the reduced head has the infimum, explicit A come as near as one likes, none goes below."""
    for number, head in enumerate(_heads()):
        found = found_for(head)
        proof.close(f"head {number}: kappa", found.kappa, kappa_by_hessian(head), rel=1e-10, scale=found.kappa or 1.0)
        if found.rank == 0:
            proof.require(f"head {number}: the infimum of no logits is 0", found.infimum == 0)
            continue
        small = reduced(head, found)
        proof.close(f"head {number}: outputs", small.probabilities, head.probabilities, rel=1e-11)
        proof.close(f"head {number}: the reduced head", kappa_by_hessian(small), found.infimum, rel=1e-10)
        near = reparametrised(head, approaching(head, found, 1e-4))
        proof.close(f"head {number}: outputs at A_eps", near.probabilities, head.probabilities, rel=1e-10)
        proof.close(f"head {number}: A_eps, eps = 1e-4", kappa_by_hessian(near), found.infimum, rel=1e-5)
        generator, m = generator_of(number), head.features.shape[1]
        around = torch.eye(m, dtype=torch.float64) + 0.1 * normal(generator, proof.cases(4, 40), m, m)
        tried = [kappa_by_hessian(reparametrised(near, A)) for A in around]
        tried += [kappa_by_hessian(reparametrised(head, A)) for A in around]
        proof.at_most(f"head {number}: no A goes below", found.infimum, tried, slack=1e-9)


@FLATTEST_FACTORISATION.certificate(
    "numeric", covers="rank m = 1..4", relies_on="LBFGS against the Newton method, exact Hessians at the end"
)
def _descent(proof: Proof) -> None:
    """LBFGS over A from random starts ends at the infimum where it is attained, wherever it starts."""
    for classes, m in ((2, 1), (3, 2), (4, 3), (6, 4)):
        head = random_head(classes, K=classes, m=m, n=m + 3)
        reached = [descended(head, seed) for seed in range(proof.cases(2, 8))]
        proof.close(f"K = {classes}, m = {m}", reached, [found_for(head).infimum] * len(reached), rel=1e-9)


Path = Callable[[Tensor, Tensor, float], Tensor]


def _convex_along(proof: Proof, path: Path) -> None:
    eye = torch.eye(2, dtype=torch.float64)
    # A feature that no row difference sees, h = e_1 against e_2: kappa is a multiple of P_11 / P_22 on the diagonal.
    aside = Head(eye[:1], torch.stack([eye[1], -eye[1]]), eye[0] * 0, torch.tensor([0]))
    paths = [(aside, eye, torch.diag(torch.tensor([3.0, 2.0], dtype=torch.float64)))]
    for seed in range(proof.cases(6, 40)):
        P, Q = (A @ A.T + 0.01 * eye for A in normal(generator_of(seed), 2, 2, 2))
        paths.append((random_head(seed, K=2 + seed % 2, m=2, n=1 + seed % 3), P, Q))
    for number, (head, P, Q) in enumerate(paths):
        values = [kappa_by_hessian(reparametrised(head, power(path(P, Q, t / 4), 0.5))) for t in range(5)]
        chords = [(values[i] + values[i + 2]) / 2 for i in range(3)]
        proof.at_most(f"path {number}: the middle is below the chord", values[1:4], chords, slack=1e-10)


@FLATTEST_FACTORISATION.certificate(
    "numeric", covers="random geodesics, K = 2 and 3, m = 2", relies_on="exact Hessians"
)
def _convexity(proof: Proof) -> None:
    """kappa by the dense Hessian along geodesics between random P: below its chords."""
    _convex_along(proof, geodesic)


Criterion = Callable[[Head], bool]


def equal_ranks(head: Head) -> bool:
    """rank H = rank W~ = rank W~ H, or H = 0, or W~ = 0."""
    rows = head.weight - head.weight.mean(0)
    ranks = [int(torch.linalg.matrix_rank(x, rtol=1e-10)) for x in (head.features, rows, head.features @ rows.T)]
    return len(set(ranks)) == 1 or 0 in ranks[:2]


def _attained_exactly_where(proof: Proof, criterion: Criterion) -> None:
    for number, head in enumerate(_heads()):
        found = found_for(head)
        if criterion(head):
            # Without a map the identity stands in: it does not have the infimum.
            A = torch.eye(head.features.shape[1]).double() if found.full_map is None else found.full_map
            value = kappa_by_hessian(reparametrised(head, A))
            proof.close(
                f"head {number}: an A has the infimum", value, found.infimum, scale=found.infimum or 1.0, rel=1e-9
            )
        else:
            steps = [kappa_by_hessian(reparametrised(head, approaching(head, found, eps))) for eps in (0.3, 0.1, 0.03)]
            falling = steps[0] > steps[1] > steps[2] > found.infimum * (1 + 1e-9)
            proof.require(f"head {number}: ever smaller, never there", found.full_map is None and falling)


@FLATTEST_FACTORISATION.certificate(
    "numeric", covers="eleven heads of every kind of rank", relies_on="the Newton method's maps, exact Hessians"
)
def _attainment(proof: Proof) -> None:
    """An explicit A has the infimum exactly where rank H = rank W~ = rank W~ H, or there is nothing to lower."""
    _attained_exactly_where(proof, equal_ranks)


@FLATTEST_FACTORISATION.without("linear")
def _translated(proof: Proof) -> None:
    """K = 2 and features 2 and 0 with W = (1, -1), b = -W: moving the features to +-1 and the bias to 0."""
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    features = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
    head = Head(features, weight, -weight[:, 0], torch.arange(2))
    moved = head._replace(features=features - 1, bias=0 * head.bias)
    proof.close("the outputs are the same", moved.probabilities, head.probabilities, rel=1e-12)
    proof.exceeds("the infimum against kappa", found_for(head).infimum, kappa_by_hessian(moved))


@FLATTEST_FACTORISATION.without("cross_entropy")
def _squared_loss(proof: Proof) -> None:
    """Squared loss sees the mean row: two equal rows, where the centred logits would allow 0."""
    zero = torch.zeros(2, dtype=torch.float64)
    head = Head(torch.ones(1, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64), zero, torch.tensor([0]))
    values = [
        kappa_by_hessian(reparametrised(head, torch.full((1, 1), a, dtype=torch.float64)), "squared")
        for a in (0.1, 1.0, 7.0)
    ]
    proof.differ("kappa at every A against the infimum", min(values), found_for(head).infimum)


@FLATTEST_FACTORISATION.without("balanced")
def _imbalance(proof: Proof) -> None:
    """K = 3 collapse with mu_G = 0 and class sizes 1, 1, 8: another A is flatter."""
    head = collapsed(K=3, m=2, counts=[1, 1, 8])
    A = found_for(head).full_map
    better = float("nan") if A is None else kappa_by_hessian(reparametrised(head, A))
    proof.exceeds("kappa at A = I against another A", kappa_by_hessian(head), better)


@FLATTEST_FACTORISATION.without("centred")
def _global_mean(proof: Proof) -> None:
    """K = 3 collapse with gamma = 1: shrinking mu_G, which no row sees, halves kappa."""
    head = collapsed(K=3, m=3, gamma=1.0)
    better = kappa_by_hessian(reparametrised(head, approaching(head, found_for(head), 1e-3)))
    proof.exceeds("kappa at A = I against another A", kappa_by_hessian(head), better)


@FLATTEST_FACTORISATION.sibling
def _straight(proof: Proof) -> None:
    """kappa is convex in P along straight lines too."""
    _convex_along(proof, lambda P, Q, t: (1 - t) * P + t * Q)


@FLATTEST_FACTORISATION.sibling
def _any_unseen_mean(proof: Proof) -> None:
    """A = I attains it at balanced collapse with any mu_G that no row sees."""
    collapse_is_critical(proof, sympy.Symbol("g", positive=True))


@FLATTEST_FACTORISATION.sibling
def _narrow(proof: Proof) -> None:
    """The infimum is attained exactly where m <= K - 1."""
    _attained_exactly_where(proof, lambda head: head.weight.shape[1] < len(head.weight))


@FLATTEST_FACTORISATION.sibling
def _same_rank_of_both(proof: Proof) -> None:
    """The infimum is attained wherever H and W~ have one rank, whatever that of the logits."""

    def criterion(head: Head) -> bool:
        ranks = [
            int(torch.linalg.matrix_rank(x, rtol=1e-10)) for x in (head.features, head.weight - head.weight.mean(0))
        ]
        return ranks[0] == ranks[1] or 0 in ranks

    _attained_exactly_where(proof, criterion)
