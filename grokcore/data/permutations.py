"""Composition in the symmetric group S_5: every equation x after y = c, split by seed into train and test.

Power et al. 2022 grok it beside modular arithmetic. Element k is the k-th permutation of 0..4 in lexicographic order,
so 0 is the identity; c maps i to x(y(i)).
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from grokcore.data.split import Split, split_equations

S5 = "s5"
"""The name of the operation."""


def permutation_composition(*, train_fraction: float = 0.5, label_noise: float = 0.0, seed: int = 0) -> Split:
    """All 14,400 equations of composition in S_5, inputs (n, 2) and labels in [0, 120), split at random.

    The arguments and errors are those of :func:`grokcore.data.split.split_equations`.
    """
    x, y, c = compositions()
    return split_equations(x, y, c, 120, train_fraction=train_fraction, label_noise=label_noise, seed=seed)


def compositions() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(x, y, x after y) over all pairs of elements, in lexicographic order."""
    elements = np.array(list(permutations(range(5))))
    number = {tuple(element): k for k, element in enumerate(elements.tolist())}
    x, y = (each.ravel() for each in np.meshgrid(np.arange(len(elements)), np.arange(len(elements)), indexing="ij"))
    # elements[x][i, y(i)]
    products = np.take_along_axis(elements[x], elements[y], axis=1)
    return x, y, np.array([number[tuple(product)] for product in products.tolist()])
