"""The full collapse report of streamed features, as a multiple of the one matrix product that it cannot do without."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.row import Row
from benchmarks.timing import interleaved, product, stopwatch
from grokcore import ClassMoments, CollapseReport, collapse_report
from grokcore.files import ROOT

SAMPLES, FEATURES, BATCH = 50_000, 512, 2_500
WANTED = {10: 2.4, 1000: 4.0}
_STATUS = Path("/proc/self/status")


def run(device: torch.device) -> list[Row]:
    """The floor, the report for few and for many classes, and its peak memory for few and for many samples."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(SAMPLES, FEATURES, generator=generator).to(device)
    weights = {K: torch.randn(K, FEATURES, generator=generator).to(device) for K in WANTED}
    labels = {K: torch.randint(K, (SAMPLES,), generator=generator).to(device) for K in WANTED}

    watches = [stopwatch(partial(report_of, features, labels[K], weights[K]), device) for K in WANTED]
    floor, *times = interleaved(product(FEATURES, SAMPLES, FEATURES, device), *watches)
    rate = 2 * SAMPLES * FEATURES**2 / floor / 1e9
    rows = [
        Row("collapse: fp32 matrix rate", rate, "GFLOP/s"),
        Row(f"collapse: floor, n m^2 multiply-adds (n = {SAMPLES:,}, m = {FEATURES})", floor, ratio=1.0),
    ]
    for (K, wanted), seconds in zip(WANTED.items(), times, strict=True):
        rows.append(Row(f"collapse: report, K = {K}; over the floor", seconds, ratio=seconds / floor, at_most=wanted))
    return rows + (memory_rows() if device.type == "cpu" and _STATUS.exists() else [])


def report_of(features: Tensor, labels: Tensor, weight: Tensor) -> CollapseReport:
    """The report of features that come in batches."""
    moments = ClassMoments(*weight.shape)
    for batch, of_batch in zip(features.split(BATCH), labels.split(BATCH), strict=True):
        moments.update(batch, of_batch)
    return collapse_report(moments, weight)


def memory_rows() -> list[Row]:
    """Peak memory of reports whose features are made batch by batch, each in a process of its own."""
    K = max(WANTED)
    few, many = (peak_of_a_process(samples, K) / 2**20 for samples in (SAMPLES, 10 * SAMPLES))
    return [
        Row(f"collapse: peak memory, K = {K}, n = {SAMPLES:,}", few, "MiB"),
        Row(f"collapse: at n = {10 * SAMPLES:,}; over the above", many, "MiB", ratio=many / few, at_most=1.1),
    ]


def peak_of_a_process(samples: int, classes: int) -> int:
    """:func:`peak_growth` in a new process."""
    arguments = f"{samples}, {classes}, {torch.get_num_threads()}"
    done = subprocess.run(
        (sys.executable, "-c", f"from benchmarks import collapse; print(collapse.peak_growth({arguments}))"),
        cwd=ROOT,
        # Tensors go back to the system when they die: what glibc keeps in reserve varies from run to run.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


def peak_growth(samples: int, classes: int, threads: int) -> int:
    """Bytes by which this process's peak exceeds what it held before the report."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, FEATURES, generator=generator)
    before = _kibibytes("VmRSS")
    moments = ClassMoments(classes, FEATURES)
    for _ in range(samples // BATCH):
        features = torch.randn(BATCH, FEATURES, generator=generator)
        moments.update(features, torch.randint(classes, (BATCH,), generator=generator))
    collapse_report(moments, weight)
    return 1024 * (_kibibytes("VmHWM") - before)


def _kibibytes(field: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))
