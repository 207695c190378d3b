"""A linear probe: what a linear head fitted afterwards reads off features, by scikit-learn's logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse penalties C to choose from, on standardised features."""
ITERATIONS = 300


@dataclass(frozen=True)
class LinearProbe:
    """What a probe reached.

    Fields:
        accuracy: share of the test samples it classifies right.
        fitted_accuracy: the same of all samples it was given to be fitted on.
        held_out_accuracy: the same of the held-out part, at the strength chosen there; optimistic, as it chose.
        strength: that strength, scikit-learn's C.
        converged: whether the final fit ended before ITERATIONS.
    """

    accuracy: float
    fitted_accuracy: float
    held_out_accuracy: float
    strength: float
    converged: bool


@torch.no_grad()
def linear_probe(
    features: Float[Tensor, "n m"],
    labels: Int[Tensor, " n"],
    test_features: Float[Tensor, "t m"],
    test_labels: Int[Tensor, " t"],
    *,
    strengths: Sequence[float] = STRENGTHS,
    held_out: float = 0.2,
    seed: int = 0,
) -> LinearProbe:
    """Fit a multinomial logistic regression with an L2 penalty and test it.

    Each feature is centred and divided by its standard deviation over the samples fitted on (one without any stays 0),
    so that a probe also reads what collapse has made small, and only what is gone exactly is lost. The penalty's
    strength is the one with the best accuracy on a held-out part, the smallest of equally good ones; then the probe is
    fitted on all samples. The test samples choose nothing.

    Args:
        features, labels: what it is fitted on, in float64; labels are any integers, two classes or more.
        test_features, test_labels: what it is tested on.
        strengths: values of C, rising: 1 / C multiplies half the squared norm of the weights beside the summed loss.
        held_out: share of each class held out to choose; at least one sample of each class is, and one is left.
        seed: draws the held-out samples.

    Raises:
        UsageError: shapes that do not fit, fewer than two classes, a class with a single sample, no strengths, or a
            share outside (0, 1).
        NonFiniteError: NaN or infinity among the features.
    """
    if features.ndim != 2 or test_features.ndim != 2 or features.shape[1] != test_features.shape[1]:
        shapes = f"{tuple(features.shape)} and {tuple(test_features.shape)}"
        raise UsageError(f"features must be (n, m) and (t, m), got {shapes}")
    if labels.shape != features.shape[:1] or test_labels.shape != test_features.shape[:1] or not len(test_labels):
        raise UsageError("a probe needs a label for each sample, and samples to be tested on")
    if not 0 < held_out < 1 or not strengths or min(strengths) <= 0:
        raise UsageError("held_out lies in (0, 1), and strengths are positive numbers, one or more")
    x, y = features.double().cpu().numpy(), labels.cpu().numpy()
    test_x, test_y = test_features.double().cpu().numpy(), test_labels.cpu().numpy()
    if not (np.isfinite(x).all() and np.isfinite(test_x).all()):
        raise NonFiniteError("the features hold NaN or infinity")
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < 2:
        raise UsageError("a probe needs two classes or more, each with two samples or more")
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # Of a constant feature rounding leaves a deviation, which must not be blown up.
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), np.abs(x).max(axis=0))
    scale = np.where(constant, np.inf, np.where(deviation > 0, deviation, np.inf))
    x, test_x = (x - mean) / scale, (test_x - mean) / scale
    chosen = _held_out(y, held_out, np.random.default_rng(seed))
    tried = [
        (_fit(x[~chosen], y[~chosen], strength)[0].score(x[chosen], y[chosen]), strength) for strength in strengths
    ]
    best, strength = max(tried, key=lambda each: (each[0], -each[1]))
    model, converged = _fit(x, y, strength)
    return LinearProbe(float(model.score(test_x, test_y)), float(model.score(x, y)), float(best), strength, converged)


def _fit(x: np.ndarray, y: np.ndarray, strength: float):  # type: ignore[no-untyped-def]
    """The regression, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]  # slow to import
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn needs it too

    model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-4)
    # NumPy's BLAS takes every core by itself, and beside other runs its threads wait for each other.
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return model, bool(model.n_iter_.max() < ITERATIONS)


def _held_out(y: np.ndarray, share: float, stream: np.random.Generator) -> np.ndarray:
    """A mask with so large a share of each class, at least one sample of it and not all."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        own = stream.permutation(np.flatnonzero(y == label))
        chosen[own[: min(len(own) - 1, max(1, round(share * len(own))))]] = True
    return chosen
