"""B8 by the class means and the features' distances from them: how NC1 enters (B8c)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import sympy
import torch
import z3
from torch import Tensor

from theory.algebra.class_pairs import lagrange
from theory.algebra.class_symmetry import K
from theory.formulas import softmax_impurity
from theory.numeric.configurations import Head, collapsed, generator_of, nearly_collapsed, normal, random_head
from theory.numeric.noncollapsed import with_noise_in_span
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.stability import ON_A_LINE, Case, Sides, logits, oscillation, squared_distances, with_kappa
from theory.proof import Proof
from theory.statement import Statement

STABILITY_NEAR_COLLAPSE = Statement(
    "stability_near_collapse",
    label="B8c",
    claim=(
        "In B8, omega_i <= omega(mu_y) + D+ ||h_i - mu_y||, and mean ||h||^2 = sum_c pi_c ||mu_c||^2 + Tr Sigma_W with "
        "the shares pi_c and Sigma_W the mean over samples. So kappa lies between (D-^2/2) U(Delta) e^-(Omega + D+ R) "
        "and (D+^2/2) U(Delta) e^(Omega + D+ R) times that, Omega the largest omega(mu_c), R the "
        "largest ||h_i - mu_y||. With NC2 to NC4, Omega = 0 at their Delta and D+ R = eta Delta, "
        "eta = sqrt(2(K-1)/K) R/M: a relative deviation s = R/M of the features moves kappa/mean ||h||^2 by a factor "
        "between e^(-eta Delta) and e^(eta Delta), which is e^(O(s Delta))."
    ),
    latex=(
        r"\tfrac12 D_-^2\,U(\Delta)\,e^{-\Omega-D_+R}\,S \le \kappa \le \tfrac12 D_+^2\,U(\Delta)\,e^{\Omega+D_+R}\,S,"
        r"\quad S = \sum_c\pi_c\|\mu_c\|^2+\operatorname{Tr}\Sigma_W"
    ),
    assumptions={
        "cross_entropy": "mean cross-entropy, in nats, of the softmax at temperature 1 of W h + b",
        "all_pairs": "D- and D+ bound the distance of every pair of rows",
        "every_sample": "R is the largest distance to the class mean, not its root mean square",
        "shares": "the class means count by their samples, not equally",
    },
    source="new",
    kind="upper",
)

Lengths = Callable[[Tensor], Tensor]


def means(head: Head) -> Tensor:
    """The class means, (K, m); of the classes present."""
    mine = torch.nn.functional.one_hot(head.labels, len(head.weight)).to(head.features)
    found: Tensor = (mine.T @ head.features) / mine.sum(dim=0).clamp_min(1)[:, None]
    return found


def deviations(head: Head) -> Tensor:
    """||h_i - mu_y||, (n,)."""
    lengths: Tensor = (head.features - means(head)[head.labels]).norm(dim=1)
    return lengths


def mean_oscillation(case: Case) -> Tensor:
    """The oscillation of each sample's class mean, (n,)."""
    at_means = case.head._replace(features=means(case.head)[case.head.labels])
    return oscillation(logits(at_means), case.head.labels, case.gap)


def sides(case: Case, lengths: Lengths = torch.max, factor: float = 1.0, equally: bool = False) -> Sides:
    """The two sides, with R by `lengths` of the distances and factor D+ R in the exponent."""
    _, head, gap = case
    squared = squared_distances(head.weight)
    mean = means(head).square().sum(dim=1)
    second = (mean.mean() if equally else mean[head.labels].mean()) + deviations(head).square().mean()
    spread = mean_oscillation(case).max() + factor * squared.max().sqrt() * lengths(deviations(head))
    whole = second * float(softmax_impurity(gap, len(head.weight))) / 2
    return Sides(float(squared.min() * whole * (-spread).exp()), float(squared.max() * whole * spread.exp()))


def _oscillates(proof: Proof, factor: Any) -> None:
    """osc(W v) <= factor D+ ||v|| and osc(u + v) <= osc(u) + osc(v)."""
    lagrange(proof, "||w_s-w_t||^2 ||v||^2 - <w_s-w_t, v>^2 = (1/2) sum (..)^2, every m")
    low, top, base, height, a, b, c, d = sympy.symbols("l t m n a b c d", positive=True)
    # u and v at s are low + a and base + c, at t low + b and base + d; a, b <= osc(u) = top, c, d <= osc(v) = height.
    apart = (low + top - a + base + height - c) - (low + b + base + d)
    proof.nonnegative("osc(u + v) <= osc(u) + osc(v)", top + height - apart, strictly=True)
    D, r = sympy.symbols("D r", positive=True)
    proof.nonnegative("v along the farthest pair of rows: osc(Wv) <= factor D+ ||v||", factor * D * r - D * r)


def _second_moment(proof: Proof) -> None:
    mu, v, pi, V = sympy.symbols("mu v pi V", positive=True)
    # Within a class v averages to 0 and v^2 to V, coordinate by coordinate.
    terms = sympy.Poly((mu + v) ** 2, v).terms()
    found = sum(factor * (0 if power == 1 else V ** (power // 2)) for (power,), factor in terms)
    proof.identity(
        "class c's part of mean ||h||^2: pi_c (||mu_c||^2 + V_c), Tr Sigma_W = sum pi_c V_c",
        pi * found,
        pi * mu**2 + pi * V,
    )
    lam, M, sigma = sympy.symbols("lambda M sigma", positive=True)
    gap, squared = lam * M**2 * K / (K - 1), lam**2 * 2 * M**2 * K / (K - 1)
    eta = sigma**2 * 2 * (K - 1) / K
    text = "NC2, NC3: ||w_s-w_t||^2 (sigma M)^2 = (eta Delta)^2, eta = sigma sqrt(2(K-1)/K)"
    proof.identity(text, squared * (sigma * M) ** 2, eta * gap**2)


@STABILITY_NEAR_COLLAPSE.certificate(
    "symbolic", covers="every K >= 2, m, n, W, b, h, Delta, shares", relies_on="sympy; B8", whole=True
)
def _for_every_k(proof: Proof) -> None:
    """Cauchy-Schwarz as Lagrange's identity, the triangle inequality of osc, the second moment by classes."""
    _oscillates(proof, 1)
    _second_moment(proof)


@STABILITY_NEAR_COLLAPSE.certificate("rigorous", covers="m = 2, one sample's oscillation", relies_on="z3")
def _by_smt(proof: Proof) -> None:
    """No rows, class mean and feature in the plane have a larger oscillation (SMT)."""
    _plane(proof, 1)


def _plane(proof: Proof, factor: Any) -> None:
    u, v = z3.Reals("u1 u2"), z3.Reals("v1 v2")
    inner, norms = u[0] * v[0] + u[1] * v[1], (u[0] ** 2 + u[1] ** 2) * (v[0] ** 2 + v[1] ** 2)
    proof.unsatisfiable("<w_s-w_t, v>^2 > ||w_s-w_t||^2 ||v||^2", [inner * inner > norms])
    # The deviation of a pair of logits at the class mean, what v adds, and D+ ||v||.
    at_mean, added, reach, omega = z3.Reals("a i r omega")
    ranges = [reach >= 0, omega >= 0, added * added <= reach * reach, at_mean <= omega]
    above = at_mean + added > omega + z3.Q(sympy.Rational(factor).p, sympy.Rational(factor).q) * reach
    proof.unsatisfiable("a pair's deviation above omega(mu_y) + factor D+ ||h - mu_y||", [*ranges, above])


def _cases(random: int) -> list[Case]:
    found = []
    for seed in range(random):
        classes = 2 + seed % 4
        found.append(Case(f"random head {seed}", random_head(seed, K=classes, m=2, n=3 * classes, scale=0.4), 1.0))
        near = nearly_collapsed(seed, K=classes, m=classes + 1, noise=0.02, gap=6.0, gamma=0.5, counts=3)
        found.append(Case(f"near collapse {seed}", near, 6.0))
    for classes in (2, 3, 5):
        head = collapsed(classes, K=classes, m=classes, gap=9.0, counts=8)
        found.append(Case(f"K = {classes}, noise towards the boundary", with_noise_in_span(head, 0.25), 9.0))
        found.append(Case(f"K = {classes}, one sample of eight far off", _one_far(head, 0.5), 9.0))
    return found


@cache
def _cases_measured(random: int) -> list[tuple[Case, float]]:
    return with_kappa(_cases(random))


def _one_far(head: Head, by: float) -> Head:
    """The first sample of class 0 moved by a share of its way to class 1; the class mean follows a little."""
    features = head.features.clone()
    features[0] += by * (features[head.labels == 1][0] - features[0])
    return head._replace(features=features)


def _measured(proof: Proof, lengths: Lengths = torch.max, factor: float = 1.0) -> None:
    for case, kappa in _cases_measured(proof.cases(6, 40)):
        lower, upper = sides(case, lengths, factor)
        proof.at_most(f"{case.text}: lower side <= kappa", lower, kappa, slack=1e-8)
        proof.at_most(f"{case.text}: kappa <= upper side", kappa, upper, slack=1e-8)
        omega = oscillation(logits(case.head), case.head.labels, case.gap)
        reach = factor * squared_distances(case.head.weight).max().sqrt() * deviations(case.head)
        proof.at_most(f"{case.text}: omega_i", omega, mean_oscillation(case) + reach + 1e-9)


@STABILITY_NEAR_COLLAPSE.certificate("numeric", covers="random and near collapse, K = 2..5", relies_on="exact Hessians")
def _by_hessian(proof: Proof) -> None:
    """Both sides against the dense Hessian, the oscillations, and equality at collapse, imbalanced too."""
    _measured(proof)
    for classes in (2, 3, 5):
        mean = normal(generator_of(classes), classes)
        head = collapsed(classes, K=classes, m=classes, gap=5.0, mean=mean, counts=[4, *[1] * (classes - 1)])
        for name, side in zip(("lower", "upper"), sides(Case("", head, 5.0)), strict=True):
            proof.close(f"K = {classes}: {name} side at collapse", side, kappa_by_hessian(head), rel=1e-6)


@STABILITY_NEAR_COLLAPSE.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """Squared loss: kappa = ||W||_F^2 mean ||h||^2 does not fall with the confidence."""
    head = collapsed(1, K=3, m=2, gap=9.0)
    upper = sides(Case("", head, 9.0)).upper
    proof.exceeds("kappa against the upper side at collapse", kappa_by_hessian(head, "squared"), upper)


@STABILITY_NEAR_COLLAPSE.without("all_pairs")
def _neighbours(proof: Proof) -> None:
    """Rows 0, 1 and 2 on a line at collapsed outputs, D+ = 1 from neighbouring rows alone."""
    upper = sides(ON_A_LINE).upper / 2**2
    proof.exceeds("kappa against the upper side", kappa_by_hessian(ON_A_LINE.head), upper)


@STABILITY_NEAR_COLLAPSE.without("every_sample")
def _root_mean_square(proof: Proof) -> None:
    """K = 2, Delta = 16: one sample of 400 on the decision boundary, which the root mean square does not show."""
    head = _one_far(collapsed(0, K=2, m=2, gap=16.0, gamma=1.0, counts=400), 0.5)
    upper = sides(Case("", head, 16.0), lambda lengths: lengths.square().mean().sqrt()).upper
    proof.exceeds("kappa against the upper side at the root mean square", kappa_by_hessian(head), upper)


@STABILITY_NEAR_COLLAPSE.without("shares")
def _equal_classes(proof: Proof) -> None:
    """K = 2 at collapse with means -1 and 3, the second nine times as often: each class counted once."""
    head = collapsed(0, K=2, m=1, gap=4.0, radius=2.0)
    far = int(head.features.argmax())
    counts = [9 if c == far else 1 for c in range(2)]
    mean = torch.ones(1, dtype=torch.float64)
    head = collapsed(0, K=2, m=1, gap=4.0, radius=2.0, mean=mean, counts=counts)
    upper = sides(Case("", head, 4.0), equally=True).upper
    proof.exceeds("kappa against the upper side", kappa_by_hessian(head), upper)


@STABILITY_NEAR_COLLAPSE.sibling
def _half_the_distance(proof: Proof) -> None:
    """omega_i <= omega(mu_y) + D+ ||h_i - mu_y||/2, as if every row were as far from their middle."""
    _plane(proof, sympy.Rational(1, 2))
    _measured(proof, factor=0.5)


@STABILITY_NEAR_COLLAPSE.sibling
def _mean_length(proof: Proof) -> None:
    """R as the mean distance to the class mean."""
    _measured(proof, torch.mean)
