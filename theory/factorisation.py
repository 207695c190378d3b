"""The least kappa over linear reparametrisations (W A^{-1}, A h) of any head (B6')."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor

from theory.class_symmetry import CENTRING, K, OneClass, outer, softmax_hessian
from theory.configurations import Head, collapsed, generator_of, normal, random_head
from theory.head_algebra import PS, PT, XS, XT, moment, over_pairs
from theory.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.reparametrisation import approaching, descended, found_for, geodesic, power, reduced, reparametrised
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


# The symbolic channel.


def _schur_complements(proof: Proof) -> None:
    """P in blocks [[a, b], [b^T, c]] of any sizes: letters that do not commute, transposes as letters of their own."""
    a, b, bt, c, x, xt, y, yt, s = sympy.symbols("a b bt c x xt y yt s", commutative=False)
    schur = a - b * c**-1 * bt
    square = (yt + xt * b * c**-1) * c * (y + c**-1 * bt * x)
    form = xt * a * x + xt * b * y + yt * bt * x + yt * c * y
    proof.identity("h^T P h = x^T Q x + ||y + c^-1 b^T x||_c^2, Q = a - b c^-1 b^T", form, xt * schur * x + square)
    # So an unseen part y only adds, and adds nothing to any sample iff y_i = L x_i with one L: iff rank H = rank of the
    # seen part. Where P^-1 stands, the same words say it of the rows: nothing is added iff rank W~ = rank W~ H.
    column = sympy.Matrix([a * s - b * c**-1 * bt * s, bt * s - c * c**-1 * bt * s])
    proof.identity(
        "P (s, -c^-1 b^T s) = (Q s, 0): the corner of P^-1 is Q^-1, so d^T P^-1 d = d^T Q^-1 d there",
        column.applyfunc(sympy.expand),
        sympy.Matrix([sympy.expand(schur * s), 0]),
    )
    graph, graph_t = sympy.symbols("L Lt", commutative=False)
    chosen = {a: s + graph_t * c * graph, b: -graph_t * c, bt: -c * graph}
    proof.identity(
        "attained on the graph y = L x: P = [[Q + L^T c L, -L^T c], [., c]] has h^T P h = x^T Q x",
        sympy.expand(form.subs(chosen).subs({y: graph * x, yt: xt * graph_t})),
        xt * s * x,
    )
    p = sympy.Matrix(3, 3, lambda i, j: sympy.Symbol(f"p{min(i, j)}{max(i, j)}"))
    d = sympy.Matrix(sympy.symbols("d0:3"))
    # The same for P^-1 (roles exchanged), multiplied by det P det P_SS: a direction without a feature only adds.
    corner, cross = p[:2, :2], p[2, :2]
    kept = (d[:2, :].T * corner.adjugate() * d[:2, :])[0] * p.det()
    added = (d[2] * corner.det() - (cross * corner.adjugate() * d[:2, :])[0]) ** 2
    whole = (d.T * p.adjugate() * d)[0] * corner.det()
    proof.identity("d^T P^-1 d = d_S^T P_SS^-1 d_S + a square, in full at 2 + 1", whole, kept + added)


def _geodesic_convexity(proof: Proof) -> None:
    """Every geodesic is A^T e^{tD} A; kappa along it is a sum of c_jk e^{t(l_j - l_k)}, c_jk >= 0."""
    entries, x, h, d = (sympy.symbols(names) for names in ("a:d", "x0:2", "h0:2", "d0:2"))
    A, h, d = sympy.Matrix(2, 2, entries), sympy.Matrix(h), sympy.Matrix(d)
    forth, back = sympy.diag(*x), sympy.diag(1 / x[0], 1 / x[1])
    term = (h.T * A.T * forth * A * h)[0] * (d.T * A.inv() * back * A.inv().T * d)[0]
    left, right = A * h, A.inv().T * d
    terms = sum(left[j] ** 2 * right[k] ** 2 * x[j] / x[k] for j in range(2) for k in range(2))
    proof.identity("one sample, one pair of rows, r = 2: (Ah)_j^2 (A^-T d)_k^2 x_j/x_k, x_j = e^{t l_j}", term, terms)
    t, j, k = sympy.symbols("t l_j l_k", real=True)
    exponential = sympy.exp(t * (j - k))
    curvature = sympy.diff(exponential, t, 2) / exponential
    proof.identity(
        "its second derivative is (l_j - l_k)^2 times itself; as every c_jk > 0, all vanish only along P itself",
        curvature,
        (j - k) ** 2,
    )


def _definite_sums(proof: Proof) -> None:
    """B_i > 0 and sum_i f_i f_i^T > 0: every c_jk > 0, and kappa >= const Tr P Tr P^-1 has a minimum."""
    variance = moment(1, 2) - moment(1, 1) ** 2
    proof.identity(
        "x^T (diag p - p p^T) x = (1/2) sum p_s p_t (x_s - x_t)^2, every K",
        over_pairs(PS * PT * (XS - XT) ** 2) / 2,
        variance,
    )
    proof.identity(
        "(1/2) sum (x_s - x_t)^2 = K||x||^2 - (1^T x)^2: with p_s >= a, B_i >= a^2 K G^T G > 0, as 1^T G = 0",
        over_pairs((XS - XT) ** 2) / 2,
        moment(0, 0) * moment(0, 2) - moment(0, 1) ** 2,
    )
    largest, least, others, inverses = sympy.symbols("l_max l_min a b", positive=True)
    proof.nonnegative(
        "(l_max + a)(1/l_min + b) > l_max/l_min, every r: P of one scale and bounded kappa lie in a compact set",
        (largest + others) * (1 / least + inverses) - largest / least,
        strictly=True,
    )


def _stationarity(proof: Proof) -> None:
    X = sympy.Symbol("X", commutative=False)
    t, n, v, hx, bx = sympy.symbols("t n v hx bx")
    proof.identity("(1 + tX)(1 - tX) = 1 - t^2 X^2", sympy.expand((1 + t * X) * (1 - t * X)), 1 - t**2 * X**2)
    proof.identity(
        "so at P = 1 + tX, every r, n v becomes (n + t h^T X h)(v - t Tr BX) to first order: slope <v h h^T - n B, X>",
        sympy.diff((n + t * hx) * (v - t * bx), t).subs(t, 0),
        v * hx - n * bx,
    )
    a, b, c = sympy.symbols("a b c")
    P, h = sympy.Matrix([[a, b], [b, c]]), sympy.Matrix(sympy.symbols("h0:2"))
    e, f, g = sympy.symbols("e f g")
    B = sympy.Matrix([[e, f], [f, g]])
    value = (h.T * P * h)[0] * (B * P.inv()).trace()
    found = sympy.Matrix(
        [[sympy.diff(value, a), sympy.diff(value, b) / 2], [sympy.diff(value, b) / 2, sympy.diff(value, c)]]
    )
    claimed = (B * P.inv()).trace() * h * h.T - (h.T * P * h)[0] * P.inv() * B * P.inv()
    proof.identity(
        "the gradient in P is v h h^T - n P^-1 B P^-1: critical where S_H = P^-1 S_B P^-1, r = 2", found, claimed
    )


def _class_mean(of_one: OneClass) -> OneClass:
    """The mean over the class c that is singled out: e e^T becomes I/K, e 1^T and 1 e^T become 11^T/K."""
    (ee, e1), (one_e, ones) = of_one.corner.tolist()
    return OneClass(of_one.identity + ee / K, sympy.Matrix([[0, 0], [0, (e1 + one_e) / K + ones]]))


def _collapse_is_critical(proof: Proof, mean: Any) -> None:
    """W~ = P and h_c = u_c + mean 1, in the K coordinates of the classes: is S_H = S_B, P = I critical, the minimum?

    The coordinate along 1 is one that no row sees.
    """
    q = sympy.Symbol("q", positive=True)
    p_true, p_other = 1 / (1 + (K - 1) * q), q / (1 + (K - 1) * q)
    own = CENTRING @ softmax_hessian(p_true, p_other) @ CENTRING
    feature = outer((1, mean - 1 / K), (1, mean - 1 / K))
    scatter, between = own.trace() * _class_mean(feature), feature.trace() * _class_mean(own)
    proof.identity("S_H = S_B at collapse, the multiple of I", scatter.identity, between.identity)
    proof.identity("S_H = S_B at collapse, the rest", scatter.corner, between.corner)
    for classes in (2, 3, 4):
        proof.identity(
            f"the class mean written out, K = {classes}",
            _class_mean(own).explicit(classes),
            sum((own.explicit(classes, k) for k in range(classes)), sympy.zeros(classes)) / classes,
        )


@FLATTEST_FACTORISATION.certificate(
    "symbolic", covers="every K, m, n and rank", relies_on="sympy, the one-class algebra", whole=True
)
def _symbolic(proof: Proof) -> None:
    """Reduction by Schur complements in letters, convexity along geodesics, a minimum, collapse for every K."""
    _schur_complements(proof)
    _geodesic_convexity(proof)
    _definite_sums(proof)
    _stationarity(proof)
    _collapse_is_critical(proof, sympy.Integer(0))


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
    _collapse_is_critical(proof, sympy.Symbol("g", positive=True))


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
