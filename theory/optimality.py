"""Collapse is the flattest head given its outputs (B6); the flattest linear reparametrisation of any head (B6')."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import sympy
import torch

from grokcore.flatness import relative_flatness
from theory.algebra.class_symmetry import CENTRING, K, outer, softmax_hessian
from theory.factorisation import FLATTEST_FACTORISATION
from theory.formulas import gap_of_loss, kappa_at_collapse
from theory.numeric.configurations import Head, collapsed, generator_of, normal, random_head
from theory.numeric.fixed_outputs import (
    attack,
    excess,
    has_centred_features,
    head_with_outputs,
    heads_with_collapsed_outputs,
    one_point_a_class,
    self_dual,
    simplex_rows,
)
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

__all__ = ["FLATTEST_FACTORISATION", "FLATTEST_GIVEN_OUTPUTS"]

FLATTEST_GIVEN_OUTPUTS = Statement(
    "flattest_given_outputs",
    label="B6",
    claim="Among all heads (any width, any biases) and all features with the collapsed softmax outputs, kappa is at "
    "least ((K-1)/K) Delta^2 U(Delta), with equality exactly at collapse: NC1, NC2 with mu_G = 0 and NC3 of the "
    "centred rows (equal biases follow). The excess is an explicit sum of squares.",
    latex=r"\mathrm{softmax}(Wh_i+b) = p_{y_i}\ \forall i \implies \kappa \ge \tfrac{K-1}{K}\Delta^2 U(\Delta),"
    r"\quad = \iff h_i = t\,\tilde w_{y_i},\ \tilde W\tilde W^\top = sP,\ st = \Delta",
    assumptions={
        "balanced": "every class has the same number of samples",
        "outputs": "the softmax output of every sample is the collapsed one of its class, with one gap Delta",
        "positive_gap": "Delta > 0",
    },
    source="new",
    kind="lower",
)


# The symbolic channel. w_c are the rows of W~ = P W, beta = P b; the outputs say W~ h_i + beta = Delta u_{y_i}.


def _summed(polynomial: Any, variable: Any, moments: dict[int, Any]) -> Any:
    """The sum over an index of a polynomial in an indexed variable, from the sums of its powers."""
    terms = sympy.Poly(sympy.expand(polynomial), variable).terms()
    return sum(coefficient * moments[power[0]] for power, coefficient in terms)


def _bound_for_any_head(proof: Proof, claimed: Any) -> None:
    """Both Cauchy-Schwarz steps with their gaps as sums of squares, and the sum against claimed ((K-1)/K) Delta^2 U."""
    n, q, gap = sympy.symbols("n q Delta", positive=True)
    p_true, b = 1 / (1 + (K - 1) * q), q / (1 + (K - 1) * q)
    c = K * b * (1 - K * b)
    proof.identity("the outputs fix the logits up to a constant: log p_t - log b_o = -log q", b / p_true, q)
    hessian, split = softmax_hessian(p_true, b), b * CENTRING + c * outer((1, -1 / K), (1, -1 / K))
    proof.identity("A_c = b_o P + c u_c u_c^T: the multiple of I", hessian.identity, split.identity)
    proof.identity("and its e, 1 corner, so Var_{p_c}(w) = b_o||W~||_F^2 + c||w_c||^2", hessian.corner, split.corner)
    t, r = sympy.symbols("t r", positive=True)
    orthant = {K: 2 + t, q: 1 / (1 + r)}
    proof.nonnegative("b_o > 0", b.subs(orthant), strictly=True)
    proof.nonnegative("c > 0 where 0 < q < 1", c.subs(orthant), strictly=True)
    for name, factor in (("b_o", b), ("c", c)):
        proof.nonnegative(f"{name} > 0 at the end K = 2", factor.subs({K: 2, q: 1 / (1 + r)}), strictly=True)

    # Step 1, one sample: <w_c, h> = u_c^T W~ h = Delta (K-1)/K - beta_c.
    ww, wh, hh, beta, squares = sympy.symbols("ww wh hh beta B2")
    off = ww * (hh - 2 * (wh / ww) * wh + (wh / ww) ** 2 * ww)  # ||w||^2 ||h - (<w,h>/||w||^2) w||^2
    proof.identity(
        "Cauchy-Schwarz, for w_c, h and for W~, M: ||h||^2||w||^2 - <w,h>^2 = ||w||^2||h - its part along w||^2",
        ww * hh - wh**2,
        off,
    )
    aligned = gap * (K - 1) / K
    first = n * _summed((aligned - beta) ** 2, beta, {0: K, 1: 0, 2: squares})
    proof.identity(
        "sum_i <w_c,h_i>^2 = N (Delta(K-1)/K)^2 + n ||beta||^2 as beta sums to 0", first, n * (K * aligned**2 + squares)
    )

    # Step 2: duality with Q = P (x) 1_n^T/sqrt(n) reads <W~, M> <= ||W~||_F ||M||_F, M the centred class means.
    proof.identity("P is a projection, so Q has norm 1 (multiple of I)", (CENTRING @ CENTRING).identity, 1)
    proof.identity("P is a projection (corner)", (CENTRING @ CENTRING).corner, CENTRING.corner)
    proof.identity(
        "<W~ H, Q> sqrt(n)/n = sum_c <w_c, mu_c> = (K-1) Delta: the bias term vanishes",
        _summed(aligned - beta, beta, {0: K, 1: 0}),
        gap * CENTRING.trace(),
    )
    mean, deviation, mm, within = sympy.symbols("mu_norm r mm within")
    expanded = _summed(mm + 2 * mean * deviation + deviation**2, deviation, {0: n, 1: 0, 2: within})
    proof.identity(
        "sum over a class of ||mu + r_i||^2 = n||mu||^2 + within, as the r_i sum to 0", expanded, n * mm + within
    )
    second = n * (gap * (K - 1)) ** 2

    total = (b * second + c * n * K * aligned**2) / (n * K)
    impurity = (K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
    proof.identity("the sum of both is the bound", total, claimed * (K - 1) / K * gap**2 * impurity)


def _equality_is_collapse(proof: Proof) -> None:
    """Equality: h_i = t_i w_c and beta = 0, so W~W~^T u_c = (Delta/t_i) u_c; vectors that are not orthogonal share it.

    t_i > 0, as <w_c, h_i> = Delta (K-1)/K then. Conversely NC1 to NC3 make the biases equal, and kappa the bound.
    """
    e, f, s, t, gap = sympy.symbols("e f s t Delta", positive=True)
    inner = CENTRING.corner[1, 1]  # <u_c, u_d>, c != d: an entry of P off its diagonal
    proof.require("<u_c, u_d> = -1/K is not 0", sympy.simplify(inner + 1 / K) == 0)
    proof.require(
        "a symmetric matrix has (e - f)<u_c, u_d> = 0, so e = f for every pair of classes",
        sympy.solve((e - f) * inner, e) == [f],
    )
    # Then W~W~^T = s P with s = Delta/t: on span{u_c}, the complement of 1, and it kills 1.
    own, other = ((gap - s * t) * CENTRING.corner[1, 1] + one * (gap - s * t) for one in (1, 0))
    proof.identity(
        "conversely h_i = t w_c leaves beta = (Delta - st) u_c for every c, whose coordinate c differs between two "
        "classes by Delta - st: so st = Delta and beta = 0",
        own - other,
        gap - s * t,
    )
    q = sympy.Symbol("q", positive=True)
    b = q / (1 + (K - 1) * q)
    row = s * (K - 1) / K
    kappa = t**2 * row * (b * s * CENTRING.trace() + K * b * (1 - K * b) * row)
    bound = (K - 1) / K * gap**2 * (K - 1) * b * (2 - K * b)
    proof.identity("there kappa is the bound, st = Delta", kappa.subs(s, gap / t), bound)


def _small_head(classes: int, m: int, copies: int) -> tuple[Any, list[Any], Any, Any]:
    """W~, features, beta and Delta in symbols: every solution of the constraint at that size, up to a rotation.

    The rotation makes the first K - 1 rows lower triangular; features are free where no row sees them.
    """
    gap, zero = sympy.Symbol("Delta"), sympy.Integer(0)
    square = sympy.Matrix(classes - 1, classes - 1, lambda i, j: sympy.Symbol(f"w{i}{j}") if j <= i else zero)
    beta = sympy.Matrix(classes - 1, 1, lambda i, _: sympy.Symbol(f"beta{i}"))
    above = square.row_join(sympy.zeros(classes - 1, m - classes + 1))
    weight = above.col_join(-sympy.ones(1, classes - 1) * above)
    features = []
    for c in range(classes):
        target = sympy.Matrix(classes - 1, 1, lambda s, _, c=c: gap * (int(s == c) - sympy.Rational(1, classes)))
        for i in range(copies):
            free = sympy.Matrix(m - classes + 1, 1, lambda j, _, c=c, i=i: sympy.Symbol(f"f{c}{i}{j}"))
            features.append(square.lower_triangular_solve(target - beta).col_join(free))
    return weight, features, beta.col_join(-sympy.ones(1, classes - 1) * beta), gap


def _expanded(proof: Proof, sizes: list[tuple[int, int, int]]) -> None:
    b = sympy.Symbol("b")  # of each other class; 1 - (K-1) b of the own
    for classes, m, copies in sizes:
        weight, features, bias, gap = _small_head(classes, m, copies)
        c = classes * b * (1 - classes * b)
        labels = [i // copies for i in range(classes * copies)]
        rows = [weight[k, :].T for k in range(classes)]
        kappa = sympy.Integer(0)
        for h, y in zip(features, labels, strict=True):
            p = [1 - (classes - 1) * b if s == y else b for s in range(classes)]
            pairs = [(s, t) for s in range(classes) for t in range(s)]
            kappa += h.dot(h) * sum(p[s] * p[t] * (rows[s] - rows[t]).dot(rows[s] - rows[t]) for s, t in pairs)
        means = [sum(features[k * copies : (k + 1) * copies], sympy.zeros(m, 1)) / copies for k in range(classes)]
        centre = sum(means, sympy.zeros(m, 1)) / classes
        size = sum(entry**2 for entry in weight)
        samples = list(zip(features, labels, strict=True))
        scattered = sum((h - means[y]).dot(h - means[y]) for h, y in samples) + len(labels) * centre.dot(centre)
        spread = size * sum((mu - centre).dot(mu - centre) for mu in means)
        spread -= sum(row.dot(mu - centre) for row, mu in zip(rows, means, strict=True)) ** 2
        aligned = sum(h.dot(h) * rows[y].dot(rows[y]) - rows[y].dot(h) ** 2 for h, y in samples)
        squares = b * (size * scattered + copies * spread) + c * (aligned + copies * sum(entry**2 for entry in bias))
        bound = len(labels) * (classes - 1) ** 2 * gap**2 * b * (2 - classes * b) / classes
        proof.identity(f"N kappa = N bound + the squares, K = {classes}, m = {m}, n = {copies}", kappa, bound + squares)


@FLATTEST_GIVEN_OUTPUTS.certificate(
    "symbolic", covers="every K >= 2, n, width, Delta > 0", relies_on="sympy, the one-class algebra", whole=True
)
def _symbolic(proof: Proof) -> None:
    """Var by the one-class algebra, two Cauchy-Schwarz steps, the case of equality; all expanded for K = 2 and 3."""
    _bound_for_any_head(proof, sympy.Integer(1))
    _equality_is_collapse(proof)
    _expanded(proof, [(2, 1, 2), (2, 2, 2), (3, 2, 1)])


# The numeric channel.


_ATTACKED = (
    (2, 1, 1, 4.0),
    (2, 3, 2, 0.5),
    (3, 2, 1, 10.0),
    (4, 3, 2, 4.0),
    (5, 8, 3, 2.0),
    (10, 9, 2, 6.0),
    (20, 21, 1, 4.0),
)


def _attacked(proof: Proof, claimed: float, sizes: Iterable[tuple[int, int, int, float]]) -> None:
    for classes, m, n, gap in sizes:
        bound = claimed * float(kappa_at_collapse(gap, classes))
        ratios = []
        for seed in range(proof.cases(1, 6)):
            head = attack(seed, K=classes, m=m, n=n, gap=gap)
            # A dense Hessian of 20 classes has 176,400 entries and takes seconds: those by the closed form.
            found = kappa_by_hessian(head) if classes <= 10 else float(relative_flatness(*head[:3]))
            ratios.append(found / bound)
        proof.require(f"K = {classes}, m = {m}, n = {n}: never below the bound", min(ratios) >= 1 - 1e-9)
        proof.close(f"K = {classes}, m = {m}, n = {n}: the bound is reached", max(ratios), 1.0, rel=1e-6)


@FLATTEST_GIVEN_OUTPUTS.certificate(
    "numeric", covers="K = 2..20, m from K-1, random starts", relies_on="LBFGS; exact Hessians at the end for K <= 10"
)
def _numeric_attack(proof: Proof) -> None:
    """LBFGS over heads, biases and features under the exact outputs: it reaches the bound and never beats it."""
    _attacked(proof, 1.0, _ATTACKED)


@FLATTEST_GIVEN_OUTPUTS.certificate("numeric", covers="K = 2..5, random heads", relies_on="exact Hessians")
def _numeric_excess(proof: Proof) -> None:
    """kappa by the dense Hessian is the bound plus the sum of squares, at random heads with the collapsed outputs."""
    for classes in range(2, 2 + proof.cases(4, 7)):
        for m, n, gap in ((classes - 1, 1, 2.0), (classes + 1, 2, 5.0)):
            generator = generator_of(classes)
            labels = torch.arange(classes).repeat_interleave(n)
            free = normal(generator, classes * n, m)
            head = head_with_outputs(gap, labels, normal(generator, classes, m), normal(generator, classes), free)
            logits = gap * torch.eye(classes, dtype=torch.float64)[labels]
            proof.close(f"K = {classes}, m = {m}: the outputs", head.probabilities, torch.softmax(logits, 1), rel=1e-11)
            expected = float(kappa_at_collapse(gap, classes)) + excess(head, gap)
            proof.close(f"K = {classes}, m = {m}: kappa", kappa_by_hessian(head), expected, rel=1e-9)


Condition = Callable[[Head], bool]


def _equality_exactly_where(proof: Proof, condition: Condition) -> None:
    gap = 3.0
    bound = float(kappa_at_collapse(gap, 4))
    logits = gap * torch.eye(4, dtype=torch.float64)
    for number, head in enumerate(heads_with_collapsed_outputs(gap)):
        # A shift of every row moves all logits of a sample together: the outputs stay.
        proof.close(f"head {number}: the outputs", head.probabilities, torch.softmax(logits[head.labels], 1), rel=1e-11)
        equal = kappa_by_hessian(head) < bound * (1 + 1e-9)
        proof.require(f"head {number}: the bound is reached exactly where collapse says", equal == condition(head))


@FLATTEST_GIVEN_OUTPUTS.certificate("numeric", covers="K = 4, six heads", relies_on="exact Hessians")
def _numeric_equality(proof: Proof) -> None:
    """kappa equals the bound exactly where NC1, mu_G = 0, NC2 and NC3 of the centred rows hold together."""
    _equality_exactly_where(
        proof, lambda h: one_point_a_class(h) and has_centred_features(h) and self_dual(h) and simplex_rows(h)
    )


@FLATTEST_GIVEN_OUTPUTS.without("balanced")
def _imbalance(proof: Proof) -> None:
    """K = 2 with shares 3/4 and 1/4: the bias takes over half the gap, the larger class's features shrink."""
    gap, labels = 3.0, torch.tensor([0, 0, 0, 1])
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    # h = (+-Delta - delta)/2 with delta = Delta/2, twice the share's excess.
    features = torch.tensor([[gap / 4], [gap / 4], [gap / 4], [-3 * gap / 4]], dtype=torch.float64)
    head = Head(features, weight, torch.tensor([gap / 4, -gap / 4], dtype=torch.float64), labels)
    reference = collapsed(K=2, m=1, gap=gap, counts=[3, 1])
    proof.close("the outputs are the collapsed ones", head.probabilities, reference.probabilities, rel=1e-12)
    proof.exceeds("the bound against kappa", float(kappa_at_collapse(gap, 2)), kappa_by_hessian(head))


@FLATTEST_GIVEN_OUTPUTS.without("outputs")
def _same_loss(proof: Proof) -> None:
    """K = 2 at the same loss: one sample in forty of each class at h = 0, the rest at a larger gap."""
    gap = 4.0
    loss, share = math.log1p(math.exp(-gap)), 1 / 40
    larger = float(gap_of_loss((loss - share * math.log(2)) / (1 - share), 2))
    labels = torch.arange(2).repeat_interleave(40)
    features = torch.where(labels == 0, larger / 2, -larger / 2)[:, None].double()
    features[[0, 40]] = 0.0
    head = Head(
        features, torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64), labels
    )
    proof.close("the loss is that of collapse", head.loss, loss, rel=1e-6)
    proof.exceeds("the bound against kappa", float(kappa_at_collapse(gap, 2)), kappa_by_hessian(head))


@FLATTEST_GIVEN_OUTPUTS.without("positive_gap")
def _no_gap(proof: Proof) -> None:
    """Delta = 0: W = 0 with any features reaches the bound 0 without collapse, so equality says nothing."""
    features = random_head(0, K=3, m=2, n=6).features
    zero = torch.zeros(3, 2, dtype=torch.float64)
    head = Head(features, zero, zero[:, 0], torch.arange(6) % 3)
    proof.close("the outputs are uniform", head.probabilities, torch.full((6, 3), 1 / 3, dtype=torch.float64))
    proof.close("kappa is the bound", kappa_by_hessian(head), float(kappa_at_collapse(0.0, 3)), scale=1.0)
    proof.require("the features are not collapsed", not one_point_a_class(head) and not has_centred_features(head))


@FLATTEST_GIVEN_OUTPUTS.sibling
def _larger_bound(proof: Proof) -> None:
    """The bound holds with a constant larger by a thousandth."""
    _bound_for_any_head(proof, sympy.Rational(1001, 1000))
    _attacked(proof, 1.001, _ATTACKED[:3])


@FLATTEST_GIVEN_OUTPUTS.sibling
def _any_shape(proof: Proof) -> None:
    """Equality wherever NC1 and mu_G = 0 hold, whatever the shape of the means."""
    _equality_exactly_where(proof, lambda head: one_point_a_class(head) and has_centred_features(head))


@FLATTEST_GIVEN_OUTPUTS.sibling
def _any_global_mean(proof: Proof) -> None:
    """Equality at every collapse NC1 to NC4, whatever mu_G."""

    def about_the_mean(head: Head) -> Head:
        return head._replace(features=head.features - head.features.mean(0))

    _equality_exactly_where(proof, lambda h: one_point_a_class(h) and self_dual(about_the_mean(h)) and simplex_rows(h))
