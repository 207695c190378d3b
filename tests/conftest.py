"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Threads that wait by spinning take the cores from processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jaxtyping
import pytest
import torch
from hypothesis import settings

# `pytest --hypothesis-profile=thorough` takes 20 times the examples; deadlines would time a noisy machine.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def two_threads() -> None:
    """The same thread count everywhere, so that bit-for-bit comparisons mean something."""
    torch.set_num_threads(2)


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """Annotations unchecked, as users run the code: the functions' own errors show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
