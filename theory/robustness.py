"""Flatness certifies robustness at finite size: E4, with the constant of A4 as the size goes to 0."""

from __future__ import annotations

import flint
import sympy
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore.robustness import finite_robustness_bound
from theory.algebra.information_gap import log_below_linear
from theory.algebra.robustness import (
    convexity,
    direction_moments,
    m,
    other_laws,
    rise_of_the_loss,
)
from theory.numeric.configurations import Head, random_head
from theory.numeric.oracle import kappa_by_hessian, layer_kappa
from theory.numeric.robustness import (
    bounds,
    confident,
    growth,
    plane_group,
    rise_on_spheres,
    rises,
)
from theory.numeric.robustness_cases import (
    Proxy,
    cases,
    exact,
    exponential_bound,
    flatness_bound,
    heads,
    one_over,
    sampled,
    signed_axes,
)
from theory.proof import Proof
from theory.statement import Statement

FINITE_ROBUSTNESS = Statement(
    "finite_robustness",
    label="E4",
    claim="A Haar in O(m), every d > 0: adding d times a randomly rotated copy of the feature to itself never lowers "
    "the expected loss, and raises it by at most mean_i log E_(s ~ p_i) exp(X_is), X_is = d^2 ||h_i||^2 "
    "||w_s - wbar_i||^2/(2m), hence by at most (kappa d^2/(2m)) (e^X - 1)/X with X the largest X_is (the ratio is 1 at "
    "X = 0). As d -> 0 both are A4's kappa d^2/(2m).",
    latex=r"0 \le \mathbb E_A L(h+dAh)-L(h) \le \operatorname{mean}_i\log\mathbb E_{s\sim p_i}"
    r"e^{d^2\|h_i\|^2\|w_s-\bar w_i\|^2/(2m)} \le \frac{\kappa d^2}{2m}\,\frac{e^X-1}{X}",
    assumptions={
        "law": "A is Haar in O(m), or in SO(m) for m >= 2, or Z/sqrt(m), Z of independent fair signs or normal numbers",
        "linear": "the logits are affine in the perturbed h",
        "cross_entropy": "the loss is the cross-entropy",
        "own_outputs": "p_i is the softmax at temperature 1, where nothing is perturbed",
        "relative": "the perturbation of h has the size d ||h||",
    },
    source="new",
    kind="upper",
)


@FINITE_ROBUSTNESS.certificate("symbolic", covers="every m, K, W, b, h, d", relies_on="sympy, A2", whole=True)
def _symbolic(proof: Proof) -> None:
    """Jensen's inequality in A; E exp<x, u> against exp(||x||^2/(2m)), every coefficient; (e^x - 1)/x rises."""
    rise_of_the_loss(proof)
    log_below_linear(proof, "Jensen, for log and for exp: log r <= r - 1; r")
    direction_moments(proof, 1 / m)
    other_laws(proof)
    convexity(proof, lambda x, exponential: (exponential - 1) / x)


def _enclosed(proof: Proof, proxy: Proxy) -> None:
    for width in range(1, 1 + proof.cases(6, 20)):

        def room(r: flint.arb, width: int = width) -> flint.arb:
            mean = (r * r / 4).hypgeom_0f1(flint.arb(width) / 2)
            below: flint.arb = 1 - mean * (-r * r * proxy(flint.arb(width)) / 2).exp()
            return below

        proof.enclosed(f"m = {width}, 1/2 <= r <= 12: E exp(r u_1) < exp(r^2/(2m))", room, [(0.5, 12.0)])


@FINITE_ROBUSTNESS.certificate(
    "rigorous", covers="the directions' moments, m = 1..6, 1/2 <= r <= 12", relies_on="flint"
)
def _balls(proof: Proof) -> None:
    """E exp(r u_1) = 0F1(m/2; r^2/4) in ball arithmetic, m = 1 to 6."""
    _enclosed(proof, one_over)


@FINITE_ROBUSTNESS.certificate(
    "numeric", covers="m = 1, 2, 3, K = 2..4, d to 1.5", relies_on="quadrature; exact Hessians"
)
def _quadrature(proof: Proof) -> None:
    """Exact means over O(1), O(2) (both components) and the sphere; kappa by exact Hessians; the small-d limit."""
    for name, head in heads(2):
        rotations, reflections = rises(head, 1.5, plane_group(128)).reshape(2, -1).mean(dim=1).tolist()
        scale = max(rotations, 1e-3)
        proof.close(f"{name}: rotations and reflections", rotations, reflections, rel=1e-8, scale=scale)
        proof.close(f"{name}: the spheres", rise_on_spheres(head, 1.5), rotations, rel=1e-8, scale=scale)
        proof.close(f"{name}: more angles", rise_on_spheres(head, 1.5, 256), rotations, rel=1e-8, scale=scale)
    exact(proof, exponential_bound)
    for width in (1, 2, 3):
        for text, head, d, _, kappa in cases(width):
            found = bounds(head, d, kappa=kappa)
            proof.at_most(f"{text}: the second bound is above the first", found.exponential, found.flatness, slack=1e-9)
        head = random_head(width, K=3, m=width, n=4)
        leading = bounds(head, 1e-2).leading
        for text, value in (("rise", rise_on_spheres(head, 1e-2)), ("bound", bounds(head, 1e-2).flatness)):
            proof.at_most(f"m = {width}, d = 0.01: {text}/(kappa d^2/(2m)) - 1", abs(value / leading - 1), 2e-3)


@FINITE_ROBUSTNESS.certificate("numeric", covers="m = 1..6, d = 1e-4 to 1.5", relies_on="grokcore.robustness")
def _library(proof: Proof) -> None:
    """The library's bounds against the definitions written out and exact Hessians."""
    for width in (1, 2, 3, 6):
        for name, head in heads(width):
            kappa = kappa_by_hessian(head)
            for d in (1e-4, 0.5, 1.5):
                found = finite_robustness_bound(head.features, head.weight, head.bias, size=d)
                written, text = bounds(head, d, kappa=kappa), f"m = {width}, {name}, d = {d}"
                proof.close(f"{text}: log-mean-exp", found.exponential, written.exponential, rel=1e-9)
                proof.close(f"{text}: by kappa", found.flatness, written.flatness, rel=1e-8)


@FINITE_ROBUSTNESS.certificate("sampled", covers="m = 3, 5, d = 1; Haar, signs, normal", relies_on="random draws")
def _monte_carlo(proof: Proof) -> None:
    """Monte Carlo means with their standard errors, for the three laws of the perturbation."""
    sampled(proof, exponential_bound)


def _above(proof: Proof, rise: float, head: Head, d: float, *, temperature: float = 1.0) -> None:
    found = bounds(head, d, temperature=temperature)
    proof.exceeds("rise against mean log E exp(X)", rise, found.exponential)
    proof.exceeds("rise against (kappa d^2/2m)(e^X-1)/X", rise, found.flatness)


@FINITE_ROBUSTNESS.without("law")
def _permutations(proof: Proof) -> None:
    """m = 8, signed permutations: they have Haar's second moments, and A4, but put h on the row one time in eight."""
    head = confident(8, logit=16.0)
    _above(proof, float(rises(head, 1.0, signed_axes(8)).mean()), head, 1.0)


@FINITE_ROBUSTNESS.without("linear")
def _dead_unit(proof: Proof) -> None:
    """m = 1, a ReLU after the perturbed layer, dead where nothing is perturbed: its kappa is 0."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        for value, entries in zip(model.parameters(), ([[1.0]], [[1.0], [-1.0]], [0.0, 0.0]), strict=True):
            value.copy_(torch.tensor(entries))
        h, label = torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([1])
        rise = sum(float(cross_entropy(model(h + 3 * a * h), label)) for a in (1, -1)) / 2
        rise -= float(cross_entropy(model(h), label))
    kappa = layer_kappa(model, cross_entropy, h, label, "0")
    proof.exceeds("rise at d = 3 against any multiple of kappa", rise, 100 * kappa)


@FINITE_ROBUSTNESS.without("cross_entropy")
def _squared_loss(proof: Proof) -> None:
    """K = 2, the squared loss: it rises by ||W||^2 ||h||^2 d^2/(2m) however sure the outputs are."""
    head, d = confident(2, logit=20.0, length=1.0), 0.5
    moved = head.features + d * (plane_group(16) @ head.features.T).mT
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def loss(features: Tensor) -> float:
        return float((features @ head.weight.T + head.bias - target).square().sum(dim=-1).mean() / 2)

    _above(proof, loss(moved) - loss(head.features), head, d)


@FINITE_ROBUSTNESS.without("own_outputs")
def _cold(proof: Proof) -> None:
    """A sure head, p at temperature 1/2: surer than the outputs."""
    head = confident(2)
    _above(proof, rise_on_spheres(head, 0.5), head, 0.5, temperature=0.5)


@FINITE_ROBUSTNESS.without("relative")
def _same_size_everywhere(proof: Proof) -> None:
    """A short feature, ||h|| = 1/10, perturbed by d/||h|| times a rotated copy."""
    head = random_head(3, K=3, m=2, n=1)
    head = head._replace(features=head.features / head.features.norm() / 10)
    _above(proof, rise_on_spheres(head, 0.5 / 0.1), head, 0.5)


@FINITE_ROBUSTNESS.sibling
def _one_more_dimension(proof: Proof) -> None:
    """The directions' variance proxy is 1/(m+1)."""
    direction_moments(proof, 1 / (m + 1))
    _enclosed(proof, lambda width: 1 / (width + 1))
    for upper in (exponential_bound, flatness_bound):
        exact(proof, upper, lambda width: 1 / (width + 1))


@FINITE_ROBUSTNESS.sibling
def _leading_term(proof: Proof) -> None:
    """kappa d^2/(2m), without the factor (e^X - 1)/X."""
    convexity(proof, lambda x, exponential: sympy.Integer(1))
    exact(proof, lambda found: found.leading)
    sampled(proof, lambda found: found.leading)


@FINITE_ROBUSTNESS.sibling
def _mean_exponent(proof: Proof) -> None:
    """X the mean over samples of E_(s ~ p_i) X_is."""
    exact(proof, lambda found: found.leading * growth(found.leading))


@FINITE_ROBUSTNESS.sibling
def _mean_largest(proof: Proof) -> None:
    """X the mean over samples of each one's largest exponent."""
    exact(proof, lambda found: found.leading * growth(float(found.exponents.amax(dim=1).mean())))


@FINITE_ROBUSTNESS.sibling
def _likeliest(proof: Proof) -> None:
    """X the largest over samples of E_(s ~ p_i) X_is."""
    exact(proof, lambda found: found.leading * growth(float((found.exponents * found.probabilities).sum(dim=1).max())))


@FINITE_ROBUSTNESS.sibling
def _every_rotation(proof: Proof) -> None:
    """It holds for every A, not in the mean alone."""
    for name, head in heads(2):
        worst = float(rises(head, 0.5, plane_group(32)).max())
        proof.at_most(name, worst, bounds(head, 0.5).flatness + 1e-14)
