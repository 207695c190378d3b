"""Memory that a step frees stays with the process, and nothing else changes."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from grokcore.training.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
for _ in range(3):
    one, other = torch.ones(10_000_000), torch.ones(10_000_000)
    del one, other
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    one, other = torch.ones(10_000_000), torch.ones(10_000_000)
    del one, other
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_buffers_are_not_faulted_in_anew() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, check=True).stdout)
        for keep in (True, False)
    )
    assert kept < given_back / 4
