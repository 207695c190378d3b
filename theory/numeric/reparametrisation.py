"""Linear reparametrisations (W A^{-1}, A h) of a head, and the geodesics of P = A^T A. Float64 torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from grokcore.factorisation import FlattestReparametrisation, flattest_reparametrisation
from grokcore.flatness import relative_flatness
from theory.numeric.configurations import Head, generator_of, normal
from theory.numeric.descent import lbfgs
from theory.numeric.oracle import kappa_by_hessian


def reparametrised(head: Head, A: Tensor) -> Head:
    """(W A^{-1}, A h), A (m, m) invertible."""
    return head._replace(features=head.features @ A.T, weight=torch.linalg.solve(A, head.weight, left=False))


def reduced(head: Head, found: FlattestReparametrisation) -> Head:
    """The head of width r that has the infimum."""
    return head._replace(features=head.features @ found.map.T, weight=found.weight)


def approaching(head: Head, found: FlattestReparametrisation, eps: float) -> Tensor:
    """An invertible A (m, m) whose kappa tends to the infimum as eps -> 0, where r > 0.

    It shrinks what no centred row sees and stretches the part of their span in which there is no feature.
    """
    rows = head.weight - head.weight.mean(0)
    rank = int(torch.linalg.matrix_rank(rows, rtol=1e-10))
    directions = torch.linalg.svd(rows)[2]
    seen, unseen = directions[:rank], directions[rank:]
    turned = torch.linalg.svd(head.features @ seen.T)[2] @ seen
    used, unused = turned[: found.rank], turned[found.rank :]
    return torch.cat([found.map @ used.T @ used, unused / eps, eps * unseen])


def found_for(head: Head) -> FlattestReparametrisation:
    """:func:`grokcore.factorisation.flattest_reparametrisation` of a head."""
    return flattest_reparametrisation(head.features, head.weight, head.bias)


def descended(head: Head, seed: int | None, steps: int = 500) -> float:
    """The least kappa that LBFGS over A finds, by differentiating the closed form, from a random A or (None) from I."""
    m = head.features.shape[1]
    start = torch.eye(m, dtype=torch.float64) if seed is None else normal(generator_of(seed), m, m)

    def objective(A: Tensor) -> Tensor:
        moved = reparametrised(head, A)
        return relative_flatness(moved.features, moved.weight, moved.bias).log()

    (found,) = lbfgs(objective, [start], steps=steps)
    return kappa_by_hessian(reparametrised(head, found))


def power(P: Tensor, exponent: float) -> Tensor:
    """P^exponent of a symmetric positive definite matrix."""
    eigenvalues, vectors = torch.linalg.eigh(P)
    raised: Tensor = (vectors * eigenvalues**exponent) @ vectors.T
    return raised


def geodesic(P: Tensor, Q: Tensor, t: float) -> Tensor:
    """P #_t Q = P^(1/2) (P^(-1/2) Q P^(-1/2))^t P^(1/2)."""
    root, inverse = power(P, 0.5), power(P, -0.5)
    return root @ power(inverse @ Q @ inverse, t) @ root
