"""The generalisation gap as representativeness plus robustness: what flatness can explain of it, and what it cannot.

Petzka et al. (NeurIPS 2021) put a density about each train feature h_i (its label kept) and write

    L_test - L_train = Rep + Rob,   Rob = mean_i E l(h_i + xi_i, y_i) - L_train,
                                    Rep = L_test - mean_i E l(h_i + xi_i, y_i).

Rob is what flatness bounds: with xi_i = d Z h_i / sqrt(m) it is kappa d^2 / (2m) to leading order and below theory E4's
bounds at any d. Rep, how badly the smoothed train set stands for the data, is known only where L_test is, so that the
sum is an identity: how large a share of the gap is called flatness is decided by the density's width alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.estimators import Estimate
from grokcore.robustness import Perturbation, bounds, perturbation

_ENTRIES = 2**22  # of a float64 block of perturbed logits
_LARGEST = 700.0  # whose exponential is a float64


class GeneralisationGap(NamedTuple):
    """The gap and its parts, nats, mean over samples.

    Attributes:
        gap: L_test - L_train.
        gap_stderr: its standard error as an estimate of the population's, from the spread of the test losses; NaN for
            one of them.
        robustness: Rob, by Gaussian probes of the features; unbiased. Where a sure head's rise comes from few probes
            (Rob far above `leading`), those drawn may miss them: then it and its error are likely too low.
        leading: its leading term for small densities, kappa d^2 / (2m) or (sigma^2/2) mean_i Var_{s ~ p_i}(w_s).
        bound: a bound of Rob at any size (theory E4's first).
    """

    gap: float
    gap_stderr: float
    robustness: Estimate
    leading: float
    bound: float

    @property
    def representativeness(self) -> Estimate:
        """Rep = gap - Rob, with the probes' standard error alone."""
        rob = self.robustness
        return Estimate(self.gap - rob.value, rob.stderr, rob.probes, rob.seed)


@torch.no_grad()
def generalisation_gap(
    train: Float[Tensor, "n m"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "n_test m"],
    test_labels: Int[Tensor, " n_test"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    size: float | None = None,
    noise: float | None = None,
    probes: int = 128,
    seed: int = 0,
) -> GeneralisationGap:
    """The parts of the generalisation gap under Gaussian densities about the train features.

    Args:
        train, test: inputs of the head (n, m), (n_test, m), raw, from a model in eval mode.
        train_labels, test_labels: in [0, K).
        weight: the head's weight (K, m).
        bias: the head's bias (K,).
        size: d: the density about h_i has the standard deviation d ||h_i|| / sqrt(m) in each direction.
        noise: sigma: it has this one for every sample, in the features' units (a kernel density of this bandwidth),
            instead of `size`.
        probes: drawn perturbations, each also used with the other sign, the same for every sample.
        seed: of the probes.

    Returns:
        All in float64. Rob does not depend on the labels and is never negative but for its error; the error is that of
        the mean over probes.

    Raises:
        UsageError: shapes that do not fit, labels out of range, fewer than two probes, not one of size and noise, or
            one that is negative or not finite.
        NonFiniteError: NaN, infinity, or logits that leave float64, perturbed or not.

    Source: Petzka et al. 2021 (representativeness, feature robustness, and the gap as their sum); theory A4, E4.
    """
    if probes < 2:
        raise UsageError(f"an error needs at least two probes, got {probes}")
    found = perturbation(train, weight, bias, size=size, noise=noise)
    if test.ndim != 2 or test.shape[1] != weight.shape[1]:
        raise UsageError(f"test features (n, m) need the head's m = {weight.shape[1]}, got {tuple(test.shape)}")
    logits = torch.nn.functional.linear(test.double(), weight.double(), None if bias is None else bias.double())
    train_losses = _losses(found.log_p, train_labels)
    test_losses = _losses(torch.log_softmax(logits, dim=1), test_labels)
    # The mean of X_is in s ~ p_i is the sample's leading term.
    weighted = found.log_p.exp() * found.exponents
    leading = float(weighted.sum() / len(weighted))
    if not math.isfinite(leading):
        raise NonFiniteError("the perturbed logits leave float64: the density is too wide")
    # The probes' own leading terms have a known mean: a share of it takes the error off narrow densities, where they
    # are the rise, and none of it comes into wide ones.
    share = float((weighted * torch.exp(-found.exponents)).sum() / weighted.sum()) if leading else 0.0
    return GeneralisationGap(
        float(test_losses.mean() - train_losses.mean()),
        float(test_losses.std()) / math.sqrt(len(test_losses)) if len(test_losses) > 1 else math.nan,
        Estimate.of_probes(_rises(found, probes, seed, share), seed, known=share * leading),
        leading,
        bounds(found).exponential,
    )


def _losses(log_p: Tensor, labels: Tensor) -> Tensor:
    """Each sample's loss."""
    n, classes = log_p.shape
    if labels.shape != (n,) or not n or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(f"{n} samples need as many labels in [0, {classes}), and at least one")
    if not bool(torch.isfinite(log_p).all()):
        raise NonFiniteError("the features, the head or its logits hold NaN or infinity")
    return -log_p.gather(1, labels.long()[:, None])[:, 0]


def _rises(found: Perturbation, probes: int, seed: int, share: float) -> Tensor:
    """The mean loss's rise under each probe and its negative, less a share of its leading term. Means in s ~ p_i, which
    cancel between the two, are left out."""
    log_p, rows, scales, _ = found
    p, top, rises = log_p.exp(), log_p.argmax(dim=1), []
    drawn = torch.randn(probes, rows.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for moved in torch.split(drawn.to(rows.device) @ (rows - rows[:1]).T, max(1, _ENTRIES // log_p.numel())):
        # About the likeliest class first: a sure head's mean is a small difference from it.
        centred = moved[:, None, :] - moved[:, top, None]
        centred = (centred - torch.linalg.vecdot(centred, p)[..., None]) * scales[:, None]
        both = _log_mean_exp(log_p, p, centred) + _log_mean_exp(log_p, p, -centred)
        leading = torch.linalg.vecdot(centred.square(), p)
        rises.append((both - share * leading).mean(dim=1) / 2)
    return torch.cat(rises)


def _log_mean_exp(log_p: Tensor, p: Tensor, moved: Tensor) -> Tensor:
    """log E_{s ~ p_i} exp(moved_s), with its digits where it is small."""
    found = torch.log1p(torch.linalg.vecdot(torch.expm1(moved.clamp(max=_LARGEST)), p))
    wide = moved.amax(dim=2) > _LARGEST
    return torch.where(wide, torch.logsumexp(log_p + moved, dim=2), found) if bool(wide.any()) else found
