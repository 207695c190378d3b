"""Distances of close rows, few and many, to the last digits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.distances import squared_distances


@pytest.mark.parametrize("rows", [5, 90])
@given(seed=st.integers(0, 1000), gap=st.sampled_from([1e-9, 1e-4, 1.0]), offset=st.sampled_from([0.0, 1e3]))
def test_distances_of_close_rows_keep_their_digits(rows: int, seed: int, gap: float, offset: float) -> None:
    """Few rows, and so many that the Gram matrix is used; a third of them lie `gap` beside another row."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(rows, 11, generator=generator, dtype=torch.float64)
    near = rows // 3
    means[:near] = means[-near:] + gap * torch.randn(near, 11, generator=generator, dtype=torch.float64)
    means = means + offset
    found = squared_distances(means)
    wanted = (means[:, None] - means[None, :]).square().sum(dim=2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert torch.equal(found.diagonal(), torch.zeros(rows, dtype=torch.float64))
    centred = means - means.mean(dim=0)
    norms = centred.square().sum(dim=1)
    gram = norms[:, None] + norms[None, :] - 2 * centred @ centred.T
    if gap == 1e-9:  # what the repair is for
        assert float((gram[0, -near] - wanted[0, -near]).abs()) > 1e-3 * float(wanted[0, -near])


def test_distances_where_nearly_all_rows_are_close() -> None:
    means = 1e-7 * torch.randn(80, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means[0] += 1.0
    wanted = (means[:, None] - means[None, :]).square().sum(dim=2)
    torch.testing.assert_close(squared_distances(means), wanted, rtol=1e-9, atol=0)
