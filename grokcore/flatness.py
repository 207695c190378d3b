"""Relative flatness of a linear head in closed form, and the surrogate that published code logs.

Relative flatness (Petzka et al., NeurIPS 2021, Definition 3) of a layer with weight W (rows w_s) is

    kappa = sum_{s,t} <w_s, w_t> Tr(H_st),

H_st the (s, t) block of the Hessian of the mean loss with respect to W. Low is flat. It is not divided
by the number of features, and the bias is not part of it. For a softmax cross-entropy head

    kappa = mean_i ||h_i||^2 Var_{s ~ p_i}(w_s),     p_i = softmax(W h_i + b)     (theory A2),

so no Hessian is formed and no label enters.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import squared_distances

Loss = Literal["cross_entropy", "squared"]
Reduction = Literal["mean", "sum", "none"]


def relative_flatness(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    loss: Loss = "cross_entropy",
    reduction: Reduction = "mean",
) -> Float[Tensor, ...]:
    """Exact relative flatness kappa of a linear head.

    Args:
        features: inputs of the head, one row a sample, raw (neither centred nor normalised).
        weight: the head's weight, one row a class.
        bias: the head's bias; it moves the softmax but is not part of kappa.
        loss: ``"cross_entropy"`` (mean over samples, nats, temperature 1) or ``"squared"``,
            (1/2)||f(x) - y||^2 summed over outputs, where kappa = ||W||_F^2 mean ||h||^2 (theory D5).
        reduction: ``"mean"`` is kappa; ``"sum"`` and ``"none"`` give the samples' contributions.

    Returns:
        A scalar, or shape (n,) for ``"none"``, in the inputs' dtype. Differentiable, twice too.

    Raises:
        ValueError: an unknown loss or reduction, no samples, or shapes that do not fit.

    Accuracy: the variance is taken as (1/2) sum_{s,t} p_s p_t ||w_s - w_t||^2, a sum of non-negative terms,
    so nothing cancels however large the logit gaps are. Rows closer to each other than 1e-6 of the largest
    centred row lose digits where a gradient is asked for (:func:`grokcore.distances.squared_distances`).

    Source: Petzka et al. 2021 (definition); theory A2 (closed form; `python -m theory A2`).
    """
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features (n, m) and weight (K, m) must share m, got {tuple(features.shape)} and {tuple(weight.shape)}"
        )
    if features.shape[0] == 0:
        raise ValueError("relative flatness of no samples is undefined")
    squared_norm = _squared_norms(features)
    if loss == "cross_entropy":
        logits = _logits(features, weight, bias)
        # torch's softmax in parts: over few classes that is twice as fast.
        masses = (logits - logits.detach().amax(dim=1, keepdim=True)).exp()
        probabilities = masses / masses.sum(dim=1, keepdim=True)
        values = squared_norm * row_variance(probabilities, squared_distances(weight).to(probabilities.dtype))
    elif loss == "squared":
        values = squared_norm * weight.square().sum()
    else:
        raise ValueError(f"loss must be 'cross_entropy' or 'squared', got {loss!r}")
    return _reduce(values, reduction)


def frobenius_surrogate(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None = None,
    *,
    temperature: float = 1.0,
    normalize_features: bool = False,
) -> Float[Tensor, ""]:
    """The surrogate ||W||_F^2 mean_i (1 - ||p_i||^2) ||h_i||^2 that published code logs as flatness.

    It is an upper bound of kappa at temperature 1 on raw features, K - 1 times too large at a centred
    simplex head, and a shift of every row by one vector moves it at will (theory C1 to C3).

    Args:
        features: inputs of the head (n, m).
        weight: the head's weight (K, m).
        bias: the head's bias (K,), part of the logits.
        temperature: p_i = softmax(z_i / temperature). The logits always use the raw features.
        normalize_features: put ||h_i|| = 1 into the last factor, as the penalty of paper A does.

    Returns:
        A scalar, mean over samples, in the inputs' dtype. Differentiable.

    Source: the public code of "Flatness is Necessary, Neural Collapse is Not" (NeurIPS 2025).
    """
    if features.shape[0] == 0:
        raise ValueError("the surrogate of no samples is undefined")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    impurity = gini_impurity(torch.softmax(_logits(features, weight, bias) / temperature, dim=1))
    if not normalize_features:
        impurity = impurity * features.square().sum(dim=1)
    return weight.square().sum() * impurity.mean()


def gini_impurity(probabilities: Float[Tensor, "n K"]) -> Float[Tensor, " n"]:
    """1 - ||p_i||^2 of each row, accurate however confident the row is.

    Args:
        probabilities: (n, K), rows of a softmax.

    Returns:
        (n,), in [0, 1 - 1/K]; differentiable.

    With r the mass off the largest entry, 1 - ||p||^2 = r (1 + p_max) - sum of the other p_s^2: for a
    confident row the first term is of order r and the second of order r^2, so nothing cancels.
    """
    top = probabilities.detach().argmax(dim=1, keepdim=True)
    off = probabilities.scatter(1, top, 0.0)
    largest = probabilities.gather(1, top).squeeze(1)
    return off.sum(dim=1) * (1 + largest) - off.square().sum(dim=1)


def _squared_norms(features: Tensor) -> Tensor:
    if features.requires_grad:
        return features.square().sum(dim=1)
    # No copy of the features; a second derivative at 0 would be lost.
    norms: Tensor = torch.linalg.vector_norm(features, dim=1)
    return norms.square_()


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(features, weight, bias)


def row_variance(probabilities: Float[Tensor, "n K"], distances: Float[Tensor, "K K"]) -> Float[Tensor, " n"]:
    """Var_{s ~ p_i}(w_s) from softmax probabilities and the rows' squared distances, shape (n,)."""
    variance: Tensor = torch.linalg.vecdot(probabilities @ distances, probabilities) / 2
    return variance


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
