"""Mutual information: of a noisy channel whose centres are known, and of pairs alone; both in nats, with their null.

`noisy_information` is the information of Z = h(X) + noise on a uniform draw of X from a sample, by Monte Carlo over
the noise: unbiased for that draw, at most log n, and so an underestimate of the population's where that is larger.
`ksg_information` (Kraskov, Stoegbauer and Grassberger 2004, estimator 1) sees pairs alone and assumes a density; for a
deterministic map of continuous X there is none, and the information is infinite.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.distances import sample_distances
from grokcore.errors import NonFiniteError, UsageError
from grokcore.estimators import Estimate

_BLOCK = 2**24  # distances held at once


@torch.no_grad()
def noisy_information(
    features: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"] | None = None,
    *,
    noise: float,
    draws: int = 8,
    seed: int = 0,
    shuffled: bool = False,
) -> Estimate:
    """I(Z;X), or I(Z;X|Y) where labels are given, of Z = h(X) + noise N(0, I), X uniform on the sample, Y its label.

        (1/n) sum_i E_z log [ p(z|h_i) / mean_j p(z|h_j) ],   z = h_i + noise xi,   j over all samples, or over those of
                                                                                    i's class

    Args:
        features: h (n, m), raw, from a model in eval mode, of distinct inputs.
        labels: classes (n,); with them the information beyond the label.
        noise: standard deviation in each coordinate, in the features' units.
        draws: of the noise for each sample, at least two.
        seed: of the noise.
        shuffled: the null: z is drawn about another sample's features (of the same class, where labels are given) than
            the one that it is paired with. Far below zero, where the channel tells anything.

    Returns:
        An Estimate whose error is that of the draws; it lies below log n (mean of log n_y given labels).

    Raises:
        UsageError: fewer than two samples or draws, noise that is not positive, labels that do not fit.
        NonFiniteError: NaN or infinity.

    Source: the plug-in of Goldfeld et al. 2019 (`sample propagation`); theory E2 bounds it from above.
    """
    n = len(features)
    if n < 2 or draws < 2:
        raise UsageError(f"information needs at least two samples and two draws, got {n} and {draws}")
    if not (math.isfinite(noise) and noise > 0):
        raise UsageError(f"noise must be positive and finite, got {noise}")
    if labels is not None and labels.shape != (n,):
        raise UsageError(f"{n} samples need as many labels, got {tuple(labels.shape)}")
    if not bool(torch.isfinite(features).all()):
        raise NonFiniteError("the features hold NaN or infinity")
    wide, generator = features.double() / noise, torch.Generator().manual_seed(seed)
    groups = (
        [torch.arange(n)]
        if labels is None
        else [torch.nonzero(labels == k)[:, 0] for k in sorted(set(labels.tolist()))]
    )
    found = torch.zeros(draws, dtype=torch.float64)
    for group in groups:
        found += _mixture_information(wide[group.to(wide.device)], draws, generator, shuffled) * (len(group) / n)
    return Estimate.of_probes(found, seed)


def _mixture_information(h: Tensor, draws: int, generator: torch.Generator, shuffled: bool) -> Tensor:
    """The mean over h of log p(z|h_i) / mean_j p(z|h_j), one number a draw."""
    n, m = h.shape
    h = h - h.mean(dim=0)
    squares, rows = h.square().sum(dim=1), max(1, _BLOCK // n)
    found = torch.zeros(draws, dtype=torch.float64)
    for draw in range(draws):
        xi = torch.randn(n, m, generator=generator, dtype=torch.float64).to(h.device)
        order = torch.arange(n, device=h.device)
        if shuffled:  # a rotation by one of a random order: nobody keeps its own
            order = torch.randperm(n, generator=generator).to(h.device)
            order = torch.empty_like(order).scatter_(0, order, order.roll(1))
        total = 0.0
        for start in range(0, n, rows):
            i = slice(start, start + rows)
            z = h[order[i]] + xi[i]
            # -|z - h_j|^2 / 2 but for |z|^2 / 2, which is the same for every j.
            logs = z @ h.T - squares / 2
            own = logs[torch.arange(len(z)), torch.arange(start, start + len(z))]
            total += float((own - torch.logsumexp(logs, dim=1) + math.log(n)).sum())
        found[draw] = total / n
    return found


@torch.no_grad()
def ksg_information(
    x: Float[Tensor, "n a"], y: Float[Tensor, "n b"], *, neighbours: int = 5, blocks: int = 8, seed: int = 0
) -> Estimate:
    """I(X;Y) of pairs by the k nearest neighbours of each in the larger of the two Euclidean distances.

        psi(k) + psi(n) - mean_i [psi(n_x(i) + 1) + psi(n_y(i) + 1)],

    n_x(i) the samples nearer to i in x than its k-th neighbour is in both. Each side's distances are in units of their
    root mean square, so that the units of neither decide which is the larger.

    Args:
        x, y: paired samples (n, a), (n, b). The null is the same with one of them shuffled
            (``y[torch.randperm(n)]``): where the two agree within their errors, nothing was told apart.
        neighbours: k; fewer, less bias and more noise.
        blocks: the error is that of the mean over so many disjoint parts, which is the whole's but for bias.
        seed: of the parts.

    Returns:
        An Estimate; it may be negative. In many dimensions it is far too low for dependent pairs.

    Raises:
        UsageError: samples that do not pair, fewer than two blocks, blocks of no more samples than neighbours.
        NonFiniteError: NaN or infinity.

    Source: Kraskov, Stoegbauer and Grassberger 2004, Equation 8; its error as in Holmes and Nemenman 2019.
    """
    n = len(x)
    if len(y) != n:
        raise UsageError(f"samples must pair, got {n} and {len(y)}")
    if neighbours < 1 or blocks < 2 or n // blocks <= neighbours:
        raise UsageError(f"{n} samples in {blocks} blocks are too few for {neighbours} neighbours")
    if not all(bool(torch.isfinite(each).all()) for each in (x, y)):
        raise NonFiniteError("the samples hold NaN or infinity")
    dx, dy = (sample_distances(each) for each in (x, y))
    dx, dy = (each / each.square().mean().sqrt().clamp_min(torch.finfo(each.dtype).tiny) for each in (dx, dy))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(dx.device)
    parts = [order[i::blocks] for i in range(blocks)]
    values = torch.tensor([_ksg(dx[part][:, part], dy[part][:, part], neighbours) for part in parts])
    return Estimate(_ksg(dx, dy, neighbours), Estimate.of_probes(values, seed).stderr, n, seed)


def _ksg(dx: Tensor, dy: Tensor, k: int) -> float:
    n = len(dx)
    itself = torch.eye(n, dtype=torch.bool, device=dx.device)
    dx, dy = dx.masked_fill(itself, math.inf), dy.masked_fill(itself, math.inf)
    radius = torch.maximum(dx, dy).kthvalue(k, dim=1).values[:, None]
    inside = [(each < radius).sum(dim=1).double() for each in (dx, dy)]
    psi = torch.digamma
    both = psi(inside[0] + 1) + psi(inside[1] + 1)
    return float(
        psi(torch.tensor(float(k), dtype=torch.float64))
        + psi(torch.tensor(float(n), dtype=torch.float64))
        - both.mean()
    )
