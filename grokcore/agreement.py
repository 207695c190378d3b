"""NC4: how often a head's class is that of the nearest class mean."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.errors import NonFiniteError


@torch.no_grad()
def nearest_mean_agreement(
    features: Float[Tensor, "n m"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None,
    means: Float[Tensor, "K m"],
) -> float:
    """NC4: share of samples on which argmax(W h + b) is the class of the nearest mean.

    Args:
        features: (n, m), n >= 1.
        weight, bias: the head, (K, m) and (K,) or None.
        means: (K, m) class means (train means on test data, as papers do), of classes that have samples.

    Raises:
        ValueError: no samples, or shapes that do not fit.
        NonFiniteError: NaN or infinity anywhere.

    Source: Papyan, Han, Donoho 2020 (NC4).
    """
    if features.shape[0] == 0:
        raise ValueError("the agreement over no samples is undefined")
    if features.shape[1:] != weight.shape[1:] or means.shape != weight.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (features, weight, means))
        raise ValueError(f"features (n, m), weight (K, m) and means (K, m) do not fit: {shapes}")
    if not all(bool(torch.isfinite(x).all()) for x in (features, weight, bias, means) if x is not None):
        raise NonFiniteError("the features, the head or the means hold NaN or infinity")
    shift = None if bias is None else bias.double()
    predicted = torch.nn.functional.linear(features.double(), weight.double(), shift).argmax(dim=1)
    return float((predicted == nearest_mean(features, means)).double().mean())


def nearest_mean(features: Float[Tensor, "n m"], means: Float[Tensor, "K m"]) -> Int[Tensor, " n"]:
    """Index of the nearest class mean of each row, in float64."""
    means = means.double()
    # Only differences of the scores count, so the means may be centred and the features need not be.
    centred = means - means.mean(dim=0)
    offset = centred.square().sum(dim=1) / 2 + centred @ means.mean(dim=0)
    return torch.addmm(-offset, features.double(), centred.T).argmax(dim=1)
