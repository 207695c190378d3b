"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where this machine has CIFAR-10, and a cache of the tests' own, so that it is decoded once for all of them."""
    from grokcore.data.cifar10_source import find_source

    source = find_source(None, None)
    if source is None:
        pytest.skip("no CIFAR-10 on this machine: set GROKCORE_DATA to a folder that has it")
    return source.path, tmp_path_factory.mktemp("cifar10")


@pytest.fixture
def no_shape_checks() -> Iterator[None]:
    """Annotations unchecked, as users run the code: the functions' own errors show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
