"""What paper A's public code logs as relative flatness while it groks: the Hessian trace of nothing.

It multiplies the logits at the two target positions elementwise, takes the softmax of the products for probabilities
and concatenates the two features. No loss of the model has these probabilities, so nothing makes the number a
curvature; it stands here beside the exact kappa so that both can be seen along one run.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from grokcore.distances import squared_distances
from grokcore.flatness import gini_impurity, row_variance


@torch.no_grad()
def product_surrogate(
    features: Float[Tensor, "n 2 m"], weight: Float[Tensor, "K m"], *, chunk: int = 4096
) -> tuple[float, float]:
    """The published curve on features at two positions, float64, temperature 1, mean over samples.

    With z1, z2 the logits W h1, W h2, q = softmax(z1 * z2) elementwise and phi = [h1, h2]:

    Args:
        features: what enters the head at the two target positions, in eval mode.
        weight: the head's, without bias.
        chunk: samples taken at once.

    Returns:
        (||W||_F^2 mean((1 - ||q||^2) ||phi||^2), mean(||phi||^2 Var_q(w))): with the Frobenius norm, as in the
        paper's other experiments (:func:`grokcore.frobenius_surrogate`), and with the rows' variance in its
        place, as in the closed form of kappa. Protocol: paper A, its Figs. 1 and 20.
    """
    rows = weight.double()
    distances, squared_norm = squared_distances(rows), rows.square().sum()
    sums = torch.zeros(2, dtype=torch.float64, device=weight.device)
    for part in torch.split(features, chunk):
        wide = part.double()
        logits = wide @ rows.T
        q = torch.softmax(logits[:, 0] * logits[:, 1], dim=1)
        norms = wide.square().sum(dim=(1, 2))
        sums += torch.stack(
            [squared_norm * torch.dot(norms, gini_impurity(q)), torch.dot(norms, row_variance(q, distances))]
        )
    product, variance = (sums / len(features)).tolist()
    return product, variance
