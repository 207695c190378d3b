"""The unconstrained-features model with cross-entropy: its minimisers, and how flat they are (D1, D4).

F = mean cross-entropy over N = nK samples + (l_W/2)||W||_F^2 + (l_H/2)||H||_F^2 over free W (K x m) and H (m x N);
L = sqrt(n l_W l_H). Targets are (1-a) e_y + a/K, a = 0 in D1. The squared loss is in theory/squared_loss.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import flint
import sympy
import torch

from theory.algebra.class_symmetry import K
from theory.formulas import kappa_of_ufm
from theory.numeric.configurations import Head
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.ufm import FreeFeatures, balanced
from theory.proof import Proof
from theory.statement import Statement
from theory.ufm_minimiser import flatness_at_the_minimiser, minimised, minimiser_for_every_size, off_class

_MODEL = {
    "width": "m >= K - 1; needed exactly where the minimiser is not zero",
    "balanced": "every class has n samples",
    "decay": "l_W > 0 and l_H > 0",
    "minimiser": "W and H (and b) are a global minimiser",
    "free": "the features are free variables",
}

UFM_LAW = Statement(
    "ufm_law",
    label="D1",
    claim=(
        "Global minimisers exist, with or without a head bias, and at each of them the off-class probability of every "
        "sample is min(L, 1/K). For L < 1/K they are collapsed with mu_G = 0 and gap log(1/L - K + 1), so that "
        "kappa = ((K-1)^2/K) L (2-KL) log^2(1/L - K + 1), which rises in L up to the gap Delta* of B4, then falls to "
        "0 at 1/K; for L >= 1/K they are zero (the bias any constant), and kappa = 0."
    ),
    latex=(
        r"L = \sqrt{n\lambda_W\lambda_H} < \tfrac1K \implies p_{s \ne y} = L,\quad"
        r"\kappa = \tfrac{(K-1)^2}{K}\,L\,(2-KL)\,\log^2\!\left(\tfrac1L-K+1\right)"
    ),
    assumptions={**_MODEL, "one-hot targets": "the targets are the labels"},
    source="new (the minimisers without their flatness: Zhu et al. 2021)",
    kind="equality",
)

LABEL_SMOOTHING_FLOOR = Statement(
    "label_smoothing_floor",
    label="D4",
    claim=(
        "With targets (1-a) e_y + a/K, 0 < a < 1, the off-class probability at every global minimiser is b = L + a/K "
        "where that is below 1/K (else 1/K), and kappa = ((K-1)^2/K) b (2-Kb) log^2(1/b - K + 1): as decay vanishes "
        "kappa tends to its value at b = a/K, which is not 0."
    ),
    latex=(
        r"b = L + \tfrac aK < \tfrac1K \implies"
        r"\kappa = \tfrac{(K-1)^2}{K}\,b\,(2-Kb)\,\log^2\!\left(\tfrac1b-K+1\right)"
    ),
    assumptions={**_MODEL, "uniform": "the smoothed mass a goes to all K classes alike, the true one included"},
    source="new",
    kind="equality",
)


def _models(proof: Proof, smoothing: float, *, below: bool = True) -> list[FreeFeatures]:
    found = []
    for classes in range(2, 2 + proof.cases(4, 6)):
        for n, extra, bias in ((1, 0, False), (2, 1, True), (3, 2, False))[: proof.cases(2, 3)]:
            L = (0.02 + 0.1 * extra if below else 1.1 + n) * (1 - smoothing) / classes
            # l_W = 4 l_H, so that nothing hides in equal decays.
            l_H = L / math.sqrt(4 * n)
            found.append(balanced(classes, n, classes - 1 + extra, 4 * l_H, l_H, bias=bias, smoothing=smoothing))
    return found


@UFM_LAW.certificate(
    "symbolic",
    covers="every K >= 2, n, m >= K - 1, decay, with and without bias",
    relies_on="sympy, matrix words; duality of the nuclear norm and convexity by name",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """The convex problem behind F: its minimiser by a dual certificate, the factors by a sum of squares."""
    minimiser_for_every_size(proof, off_class, sympy.Integer(0))
    flatness_at_the_minimiser(proof)


@UFM_LAW.certificate("numeric", covers="K = 2..5, n = 1..2, m = K-1, K", relies_on="L-BFGS, Newton, exact Hessians")
def _numeric(proof: Proof) -> None:
    """F minimised from random starts, below and above L = 1/K."""
    minimised(proof, off_class, _models(proof, 0.0), seeds=proof.cases(1, 3))
    minimised(proof, off_class, _models(proof, 0.0, below=False)[: proof.cases(2, 6)])


@UFM_LAW.sibling
def _without_the_samples(proof: Proof) -> None:
    """The off-class probability is sqrt(l_W l_H), without n."""
    minimiser_for_every_size(proof, lambda L, K, n, a: L / sympy.sqrt(n), sympy.Integer(0))
    minimised(proof, lambda L, K, n, a: L / math.sqrt(n), [balanced(3, 2, 3, 0.04, 0.01)])


@UFM_LAW.sibling
def _without_the_root(proof: Proof) -> None:
    """The off-class probability is n l_W l_H, without the root."""
    minimiser_for_every_size(proof, lambda L, K, n, a: L**2, sympy.Integer(0))
    minimised(proof, lambda L, K, n, a: L**2, [balanced(3, 2, 3, 0.04, 0.01)])


@LABEL_SMOOTHING_FLOOR.certificate(
    "symbolic",
    covers="every K >= 2, n, m >= K - 1, decay and a, with and without bias",
    relies_on="sympy, matrix words, the steps of D1",
    whole=True,
)
def _symbolic_smoothed(proof: Proof) -> None:
    """The dual certificate of D1 with smoothed targets, a as a symbol."""
    minimiser_for_every_size(proof, off_class, sympy.Symbol("a", positive=True))
    flatness_at_the_minimiser(proof)
    r, t = sympy.symbols("r t", positive=True)
    b = 1 / (K * (1 + r))  # b = a/K with any a in (0, 1)
    floor = (K - 1) ** 2 / K * b * (2 - K * b)
    proof.nonnegative("the factor of Delta^2 at b = a/K is not 0", floor.subs(K, 2 + t), strictly=True)
    proof.nonnegative("and e^Delta = 1/b - K + 1 > 1 there", (1 / b - K).subs(K, 2 + t), strictly=True)


@LABEL_SMOOTHING_FLOOR.certificate("rigorous", covers="K = 10, a = 0.1, no decay", relies_on="ball arithmetic")
def _printed(proof: Proof) -> None:
    """The printed limit 3.1315, enclosed."""
    b = flint.arb(1) / 100
    value = flint.arb(81) / 10 * b * (2 - 10 * b) * (1 / b - 9).log() ** 2
    proof.root("kappa at b = 1/100, K = 10", lambda x: x - value, "3.1315")


@LABEL_SMOOTHING_FLOOR.certificate(
    "numeric", covers="K = 2..5 at a = 0.15; K = 10 at a = 0.1 and little decay", relies_on="L-BFGS, exact Hessians"
)
def _numeric_smoothed(proof: Proof) -> None:
    """F with smoothed targets minimised from random starts, and its kappa as the decay goes to 0."""
    minimised(proof, off_class, _models(proof, 0.15))
    minimised(proof, off_class, _models(proof, 0.15, below=False)[:2])
    model = balanced(10, 1, 9, 1e-5, 1e-5, smoothing=0.1)
    reached = kappa_by_hessian(model.head(model.minimise(0)))
    proof.close("K = 10, a = 0.1, L = 1e-5", reached, float(kappa_of_ufm(1e-5, 10, smoothing=0.1)), rel=1e-4)
    proof.at_most("... which is within 2e-3 of the limit 3.1315", abs(reached - 3.1315), 2e-3)


@LABEL_SMOOTHING_FLOOR.sibling
def _larger_of_both(proof: Proof) -> None:
    """Decay adds nothing to the floor: the off-class probability is the larger of L and a/K."""
    minimiser_for_every_size(proof, lambda L, K, n, a: a / K, sympy.Symbol("a", positive=True))
    minimised(proof, lambda L, K, n, a: max(L, a / K), [balanced(3, 2, 3, 0.04, 0.01, smoothing=0.15)])


@LABEL_SMOOTHING_FLOOR.sibling
def _all_of_a(proof: Proof) -> None:
    """The off-class probability is L + a/(K-1)."""
    minimiser_for_every_size(proof, lambda L, K, n, a: L + a / (K - 1), sympy.Symbol("a", positive=True))
    minimised(proof, lambda L, K, n, a: L + a / (K - 1), [balanced(3, 2, 3, 0.04, 0.01, smoothing=0.15)])


_STANDARD = balanced(4, 2, 4, 0.03, 0.01)


def claimed_kappa(model: FreeFeatures) -> float:
    """The claim's number, with n = N/K where the classes are not balanced."""
    n = sum(model.counts) / model.K
    return float(kappa_of_ufm(math.sqrt(n * model.l_W * model.l_H), model.K, model.smoothing))


def _best(model: FreeFeatures) -> torch.Tensor:
    """The lowest of a few minima: without its width or its free features the model may have several."""
    return min((model.minimise(seed) for seed in range(4)), key=lambda point: float(model.objective(point)))


def _differs(proof: Proof, model: FreeFeatures, point: torch.Tensor, claimed: float) -> None:
    gradient = float(model.gradient(point).norm())
    proof.close("a critical point", gradient, 0.0, rel=1e-6, scale=1.0)
    proof.differ("kappa by the dense Hessian", kappa_by_hessian(model.head(point)), claimed)


def _for_both(assumption: str) -> Callable[[Callable[[Proof, float], None]], Callable[[Proof, float], None]]:
    """One construction that drops `assumption` in D1 (a = 0) and in D4 (a = 0.1)."""

    def add(check: Callable[[Proof, float], None]) -> Callable[[Proof, float], None]:
        for statement, a in ((UFM_LAW, 0.0), (LABEL_SMOOTHING_FLOOR, 0.1)):

            def run(proof: Proof, a: float = a) -> None:
                check(proof, a)

            run.__doc__ = check.__doc__
            statement.without(assumption)(run)
        return check

    return add


@_for_both("width")
def _narrow(proof: Proof, a: float) -> None:
    """K = 4 in two dimensions: no simplex fits."""
    model = dataclasses.replace(_STANDARD, m=2, smoothing=a)
    _differs(proof, model, _best(model), claimed_kappa(model))


@_for_both("balanced")
def _imbalanced(proof: Proof, a: float) -> None:
    """Counts 5, 1, 1, 1 instead of 2, 2, 2, 2."""
    model = dataclasses.replace(_STANDARD, counts=(5, 1, 1, 1), smoothing=a)
    _differs(proof, model, model.minimise(0), claimed_kappa(model))


@_for_both("minimiser")
def _saddle(proof: Proof, a: float) -> None:
    """The origin is critical, and kappa = 0 there."""
    model = dataclasses.replace(_STANDARD, smoothing=a)
    _differs(proof, model, torch.zeros(model.size, dtype=torch.float64), claimed_kappa(model))


@_for_both("free")
def _nonnegative_features(proof: Proof, a: float) -> None:
    """Features that are squares, so never negative: the mean cannot be 0."""
    model = dataclasses.replace(_STANDARD, smoothing=a, features=torch.square)
    point = _best(model)
    _differs(proof, model, point, claimed_kappa(model))
    least = float(model.head(point).features.mean(dim=0).norm())
    proof.exceeds("||mu_G|| is not 0", least, 0.1)


@_for_both("decay")
def _no_decay_on_features(proof: Proof, a: float) -> None:
    """l_H = 0: shrinking W and growing H lowers F for ever, and no minimiser exists."""
    model = dataclasses.replace(_STANDARD, l_H=0.0, smoothing=a)
    start = dataclasses.replace(_STANDARD, l_H=1e-4, smoothing=a)
    head = start.head(start.minimise(0))
    values = [
        float(model.objective(model.point(Head(head.features * t, head.weight / t, head.bias, head.labels))))
        for t in (1.0, 10.0, 100.0)
    ]
    fit = values[0] - model.l_W / 2 * float(head.weight.square().sum())
    proof.close("(W/t, tH) pays l_W|W|^2/2t^2: lower for every W but 0", values[1] - fit, (values[0] - fit) / 100)
    proof.close("the same further on", values[2] - fit, (values[0] - fit) / 10_000, rel=1e-6)
    proof.exceeds("and W = 0 has F = log K, above", math.log(4), values[2])


@UFM_LAW.without("one-hot targets")
def _smoothed_targets(proof: Proof) -> None:
    """Smoothed targets, a = 0.1."""
    model = dataclasses.replace(_STANDARD, smoothing=0.1)
    _differs(proof, model, model.minimise(0), claimed_kappa(_STANDARD))


@LABEL_SMOOTHING_FLOOR.without("uniform")
def _mass_on_the_others(proof: Proof) -> None:
    """Mass a = 0.1 on the other K - 1 classes only: the same as uniform smoothing with a K/(K-1)."""
    model = dataclasses.replace(_STANDARD, smoothing=0.1 * 4 / 3)
    target = model.targets[0]
    proof.close("the targets put 0.9 on the true class", target[0], 0.9)
    _differs(proof, model, model.minimise(0), claimed_kappa(dataclasses.replace(_STANDARD, smoothing=0.1)))
