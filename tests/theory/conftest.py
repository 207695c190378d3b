"""Fixtures of the theory's tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def two_threads() -> None:
    """One thread, in place of the two elsewhere: on matrices this small a second one only waits."""
    torch.set_num_threads(1)
