"""The experiments: one config and main each, on the shared training loop."""

import os

# GNU OpenMP's threads spin for milliseconds where they wait. Beside other work that takes the core from the thread they
# wait for, and a run of two threads is forty times slower (docs/speed.md). It is read when PyTorch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
