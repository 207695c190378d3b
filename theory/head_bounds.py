"""Bounds on the relative flatness of any head from its outputs and its rows' distances alone (A5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
import z3
from torch import Tensor

from theory.algebra.class_pairs import PS, PT, XS, XT, lagrange, moment, over_pairs
from theory.numeric.configurations import Head, generator_of, normal, random_head, simplex
from theory.numeric.oracle import kappa_by_hessian, kappa_of_hessian
from theory.numeric.other_heads import COSINE_HEAD, cold, cosine_hessian, trained_with
from theory.proof import Proof
from theory.statement import Statement

BOUNDS_FROM_OUTPUTS = Statement(
    "bounds_from_outputs",
    label="A5",
    claim="mean Var_{s~p_i}(<w_s, h_i>) <= kappa, tight iff w_s - wbar_i and h_i are always linearly dependent; "
    "with rows at distances D- to D+ and U_i = 1 - ||p_i||^2, (D-^2/2) mean ||h_i||^2 U_i <= kappa <= "
    "(D+^2/2) mean ||h_i||^2 U_i <= D+^2 mean ||h_i||^2 (1 - p_iy) <= D+^2 B^2 loss, where ||h_i|| <= B.",
    latex=r"\tfrac12 D_-^2\,\overline{\|h_i\|^2 U_i} \le \kappa \le \tfrac12 D_+^2\,\overline{\|h_i\|^2 U_i}"
    r" \le D_+^2\,\overline{\|h_i\|^2 (1-p_{iy})} \le D_+^2 B^2\,\mathrm{loss}",
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax on labels, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "linear": "the logits are W h + b, with h and b free of W",
        "without_bias": "the variance is that of <w_s, h_i>: logits less their bias",
        "all_pairs": "D- and D+ bound the distance of every pair of rows",
        "bounded": "for the loss: B bounds every ||h_i||, not their mean square's root",
    },
    source="new",
    kind="upper",
)


def mean_variance(p: Tensor, values: Tensor) -> float:
    """mean_i Var_{s~p_i}(values_is) as a sum over pairs; both (n, K)."""
    differences = values[:, :, None] - values[:, None, :]
    return (torch.einsum("is,it,ist->i", p, p, differences.square()) / 2).mean().item()


def directional(head: Head) -> float:
    """mean_i Var_{s~p_i}(<w_s, h_i>)."""
    return mean_variance(head.probabilities, head.features @ head.weight.T)


def squared_distances_of_pairs(head: Head) -> Tensor:
    """||w_s - w_t||^2 of the pairs s < t, (K(K-1)/2,)."""
    return torch.pdist(head.weight).square()


def weighted(head: Head, uncertainty: Tensor) -> float:
    """mean_i ||h_i||^2 uncertainty_i."""
    return (head.features.square().sum(dim=1) * uncertainty).mean().item()


def impurity(head: Head) -> Tensor:
    """U_i = 1 - ||p_i||^2, (n,)."""
    return 1 - head.probabilities.square().sum(dim=1)


def error(head: Head) -> Tensor:
    """1 - p_iy, (n,)."""
    return 1 - head.probabilities.gather(1, head.labels[:, None]).squeeze(1)


def from_distances(head: Head, squared: Tensor) -> float:
    """(D^2/2) mean ||h_i||^2 U_i."""
    return squared.item() / 2 * weighted(head, impurity(head))


def from_error(head: Head, factor: float = 1.0) -> float:
    """factor D+^2 mean ||h_i||^2 (1 - p_iy)."""
    return factor * squared_distances_of_pairs(head).max().item() * weighted(head, error(head))


def from_loss(head: Head, squared_norm: Callable[[Tensor], Tensor] = torch.max) -> float:
    """D+^2 B^2 loss, with B^2 from the ||h_i||^2."""
    norms = head.features.square().sum(dim=1)
    return squared_distances_of_pairs(head).max().item() * squared_norm(norms).item() * head.loss


Bound = Callable[[Head], float]

LOWER: dict[str, Bound] = {
    "mean Var(<w_s, h_i>)": directional,
    "(D-^2/2) mean ||h||^2 U": lambda head: from_distances(head, squared_distances_of_pairs(head).min()),
}
UPPER: dict[str, Bound] = {
    "(D+^2/2) mean ||h||^2 U": lambda head: from_distances(head, squared_distances_of_pairs(head).max()),
    "D+^2 mean ||h||^2 (1 - p_y)": from_error,
    "D+^2 B^2 loss": from_loss,
}


def _sums_of_squares(proof: Proof, factor: Any) -> None:
    """Each gap as a sum of non-negative terms; `factor` is that of U <= factor (1 - p_y)."""
    lagrange(proof, "||h||^2 ||v||^2 - <v, h>^2 = (1/2) sum (v_j h_k - v_k h_j)^2, every m; v = w_s - wbar")
    v_j, v_k, h_j, h_k = sympy.symbols("v_j v_k h_j h_k", nonzero=True)
    parallel = sympy.solve(v_j * h_k - v_k * h_j, v_j)
    proof.identity("which vanishes at h_k != 0 only for v = (v_k / h_k) h", parallel[0], (v_k / h_k) * h_j)
    # PS and XS are a class's probability and a coordinate of its row, or its <w_s, h>: with
    # v_s = w_s - wbar, ||h||^2 Var(w) - Var(<w, h>) = sum p_s (||h||^2 ||v_s||^2 - <v_s, h>^2), each p_s > 0.
    mean = moment(1, 1)
    variance = over_pairs(PS * (XS - mean) ** 2 * PT)
    proof.identity("Var = sum p_s (x_s - xbar)^2, for rows and for <w_s, h>", variance, moment(1, 2) - mean**2)
    in_pairs = over_pairs(PS * PT * (XS - XT) ** 2) / 2
    proof.identity("Var = (1/2) sum p_s p_t (x_s - x_t)^2, so ||h||^2 and distances give kappa", variance, in_pairs)

    p_s, p_t, D, e, x, r = sympy.symbols("p_s p_t D e x r", positive=True)
    proof.identity("sum over s != t of p_s p_t = U", over_pairs(PS * PT) - over_pairs(PS**2 * PT), 1 - moment(2, 0))
    proof.nonnegative("a pair's share of either gap, the larger distance D + e", p_s * p_t * ((D + e) ** 2 - D**2) / 2)
    # x = 1 - p_y and r = sum over the other classes of p_s^2.
    proof.nonnegative(f"{factor} (1 - p_y) - U = (1 - p_y)^2 + sum p_s^2", factor * x - (1 - (1 - x) ** 2 - r))
    slope = sympy.diff(-sympy.log(x) - (1 - x), x).subs(x, 1 / (1 + r))
    proof.nonnegative("-log p - (1 - p) falls on (0, 1]", -slope)
    proof.identity("to 0 at p = 1", (-sympy.log(x) - (1 - x)).subs(x, 1), 0)


@BOUNDS_FROM_OUTPUTS.certificate("symbolic", covers="every K, m, n", relies_on="sympy; A2 for kappa", whole=True)
def _bounds_symbolic(proof: Proof) -> None:
    """Cauchy-Schwarz as Lagrange's identity; every other gap as a polynomial without a negative coefficient."""
    _sums_of_squares(proof, 2)


@BOUNDS_FROM_OUTPUTS.certificate(
    "rigorous", covers="K = 3 and every m (D-, D+); m = 2; p in [1e-6, 0.999]", relies_on="z3, flint; A2 for kappa"
)
def _bounds_rigorous(proof: Proof) -> None:
    """No real numbers violate the bounds for K = 3 (SMT); 1 - p < -log p in ball arithmetic."""
    p, e, top, low = z3.Reals("p1 p2 p3"), z3.Reals("e12 e13 e23"), z3.Real("top"), z3.Real("low")
    outputs = [sum(p) == 1, *(x > 0 for x in p)]
    spread = p[0] * p[1] * e[0] + p[0] * p[2] * e[1] + p[1] * p[2] * e[2]
    U = 1 - sum(x * x for x in p)
    ranges = [low >= 0, *(x >= low for x in e), *(x <= top for x in e)]
    proof.unsatisfiable("Var > (D+^2/2) U", [*outputs, *ranges, 2 * spread > top * U])
    proof.unsatisfiable("Var < (D-^2/2) U", [*outputs, *ranges, 2 * spread < low * U])
    proof.unsatisfiable("U > 2 (1 - p_y)", [*outputs, 2 * (1 - p[0]) < U])
    v1, v2, h1, h2 = z3.Reals("v1 v2 h1 h2")
    inner, norms = v1 * h1 + v2 * h2, (v1 * v1 + v2 * v2) * (h1 * h1 + h2 * h2)
    proof.unsatisfiable("<v, h>^2 > ||v||^2 ||h||^2", [inner * inner > norms])
    proof.enclosed("-log p > 1 - p", lambda x: -x.log() + x - 1, [(1e-6, 0.999)])


def _heads(proof: Proof) -> list[Head]:
    heads = [random_head(s, K=2 + s % 4, m=1 + s % 3, n=1 + s % 5) for s in range(proof.cases(8, 60))]
    sure = [
        head._replace(bias=4 * torch.nn.functional.one_hot(head.labels[0], len(head.bias)).double()) for head in heads
    ]
    return heads + sure


def _bounds_numeric(proof: Proof, lower: dict[str, Bound], upper: dict[str, Bound]) -> None:
    for number, head in enumerate(_heads(proof)):
        kappa = kappa_by_hessian(head)
        for name, bound in lower.items():
            proof.at_most(f"head {number}: {name} <= kappa", bound(head), kappa, slack=1e-9)
        for name, bound in upper.items():
            proof.at_most(f"head {number}: kappa <= {name}", kappa, bound(head), slack=1e-9)


def parallel_head(K: int, m: int, seed: int = 0) -> Head:
    """Rows u + c_s h on one feature h: every w_s - wbar is parallel to h."""
    generator = generator_of(seed)
    h, u, c = normal(generator, 1, m), normal(generator, m), normal(generator, K, 1)
    return Head(h, u + c * h, normal(generator, K), torch.tensor([0]))


def equidistant_head(K: int, m: int, seed: int = 0) -> Head:
    """A simplex moved by a vector, random features and biases."""
    generator = generator_of(seed)
    weight = simplex(K, m, 1.4, seed) + normal(generator, m)
    return Head(normal(generator, 5, m), weight, normal(generator, K), torch.arange(5) % K)


@BOUNDS_FROM_OUTPUTS.certificate("numeric", covers="K = 2..5, m = 1..3, n = 1..5", relies_on="exact Hessians")
def _bounds_exact(proof: Proof) -> None:
    """Dense Hessians against every bound; equality at parallel deviations and at equidistant rows."""
    _bounds_numeric(proof, LOWER, UPPER)
    for K in (2, 3, 5):
        head = parallel_head(K, 4, seed=K)
        proof.close(f"K = {K}: tight where deviations are parallel", directional(head), kappa_by_hessian(head))
        bent = head._replace(weight=head.weight + 0.1 * normal(generator_of(K), K, 4))
        proof.at_most(f"K = {K}: and not where they are bent", directional(bent), 0.999 * kappa_by_hessian(bent))
        head = equidistant_head(K, K - 1, seed=K)
        for name in ("min", "max"):
            squared = getattr(squared_distances_of_pairs(head), name)()
            proof.close(
                f"K = {K}: equality at a simplex, D {name}", from_distances(head, squared), kappa_by_hessian(head)
            )


_HEAD = random_head(3, K=3, m=2, n=3)


@BOUNDS_FROM_OUTPUTS.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """Squared loss: kappa = ||W||_F^2 mean ||h||^2, which no distance between rows bounds."""
    moved = _HEAD._replace(weight=_HEAD.weight + 10)
    for name, bound in UPPER.items():
        proof.exceeds(f"kappa above {name}", kappa_by_hessian(moved, "squared"), bound(moved))


@BOUNDS_FROM_OUTPUTS.without("temperature")
def _temperature(proof: Proof) -> None:
    """Temperature 1/2: four times the bound at the probabilities of that temperature."""
    sharper = _HEAD._replace(weight=2 * _HEAD.weight, bias=2 * _HEAD.bias)
    kappa = kappa_of_hessian(trained_with(_HEAD, cold), _HEAD.weight)
    bound = squared_distances_of_pairs(_HEAD).max().item() / 2 * weighted(sharper, impurity(sharper))
    proof.exceeds("kappa above (D+^2/2) mean ||h||^2 U", kappa, bound)


def _with_bias(head: Head) -> float:
    return mean_variance(head.probabilities, head.features @ head.weight.T + head.bias)


@BOUNDS_FROM_OUTPUTS.without("linear")
def _normalised_rows(proof: Proof) -> None:
    """Rows of norm 1 that the forward pass normalises: kappa is negative with one label, too large with the other."""
    one, other = COSINE_HEAD, COSINE_HEAD._replace(labels=torch.tensor([0]))
    low, high = (kappa_of_hessian(cosine_hessian(head), head.weight) for head in (one, other))
    for name, bound in LOWER.items():
        proof.exceeds(f"{name} above kappa", bound(one), low)
    name = "(D+^2/2) mean ||h||^2 U"
    proof.exceeds(f"kappa above {name}", high, UPPER[name](other))


@BOUNDS_FROM_OUTPUTS.without("without_bias")
def _bias_inside(proof: Proof) -> None:
    """Equal rows and unequal biases: kappa is 0, and the variance of the logits is not."""
    head = _HEAD._replace(weight=torch.ones(3, 2, dtype=torch.float64))
    proof.exceeds("mean Var(z_i) above kappa", _with_bias(head), kappa_by_hessian(head))


@BOUNDS_FROM_OUTPUTS.without("all_pairs")
def _neighbours(proof: Proof) -> None:
    """Rows 0, 1 and 2 on a line, and D+ = D- = 1 from neighbouring rows alone."""
    weight = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    head = Head(
        torch.ones(1, 1, dtype=torch.float64), weight, torch.tensor([9.0, 0.0, 7.0]).double(), torch.tensor([0])
    )
    proof.exceeds("kappa above half of mean ||h||^2 U", kappa_by_hessian(head), weighted(head, impurity(head)) / 2)


def _one_long_feature() -> Head:
    """Eight sure samples of norm 4, and an unsure one of norm 40 that no difference of rows sees."""
    features = torch.tensor([[4.0, 0.0]] * 8 + [[0.0, 40.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    return Head(features, weight, torch.zeros(2, dtype=torch.float64), torch.zeros(9, dtype=torch.int64))


@BOUNDS_FROM_OUTPUTS.without("bounded")
def _one_long(proof: Proof) -> None:
    """Eight sure samples and a long one on the decision boundary: B^2 as the mean of ||h_i||^2 is too small."""
    head = _one_long_feature()
    proof.exceeds("kappa above D+^2 mean ||h||^2 loss", kappa_by_hessian(head), from_loss(head, torch.mean))


@BOUNDS_FROM_OUTPUTS.sibling
def _sibling_bias(proof: Proof) -> None:
    """The variance of the logits themselves, biases included, is below kappa."""
    _bounds_numeric(proof, {"mean Var(z_i)": _with_bias}, {})


@BOUNDS_FROM_OUTPUTS.sibling
def _sibling_factor(proof: Proof) -> None:
    """U_i <= 1 - p_iy, so that kappa <= (D+^2/2) mean ||h_i||^2 (1 - p_iy)."""
    _sums_of_squares(proof, 1)
    _bounds_numeric(proof, {}, {"half of it": lambda head: from_error(head, 0.5)})
