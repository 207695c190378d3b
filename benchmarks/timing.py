"""Times that can be compared: taken in turns, in one run, the best of several rounds.

A machine that slows down burdens everything that is timed in turns, and what disturbs a measurement only ever adds to
it: so ratios are of the best rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch

Stopwatch = Callable[[int], float]
"""Seconds that so many calls of something take; the calls may be made in another process."""


def stopwatch(work: Callable[[], object], device: torch.device) -> Stopwatch:
    """Times calls in this process, waiting for the device before and after."""
    return partial(_seconds, work, device)


def interleaved(*watches: Stopwatch, rounds: int = 5, turn: float = 0.2) -> list[float]:
    """Seconds of one call of each: the best measurement of some rounds, in each of which everything has its turn.

    Args:
        watches: what is timed. Each is called before, which warms it up.
        rounds: turns of each.
        turn: seconds of measurements that a turn is made of; one measurement where that takes longer. A measurement
            is the mean of calls that take a millisecond together.
    """
    counts = [_calls(watch) for watch in watches]
    best = [math.inf] * len(watches)
    for _ in range(rounds):
        for index, (watch, count) in enumerate(zip(watches, counts, strict=True)):
            spent = 0.0
            while spent < turn:
                seconds = watch(count)
                spent += seconds
                best[index] = min(best[index], seconds / count)
    return best


def require_same(what: str, ours: float, theirs: float, tolerance: float = 1e-4) -> None:
    """Raise unless a baseline computes our number: the time of another one would say nothing."""
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        raise RuntimeError(f"{what}: the baseline computes {theirs:.7g}, we compute {ours:.7g}")


def product(rows: int, inner: int, columns: int, device: torch.device) -> Stopwatch:
    """A float32 matrix product of rows * inner * columns multiply-adds: the floor of whatever contains it."""
    a, b = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
    return stopwatch(lambda: a @ b, device)


def operators(work: Callable[[], object], calls: int = 20) -> str:
    """Where so many calls spend their time on the CPU, operator by operator, as a table; some before warm up."""
    for _ in range(5):
        work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(calls):
            work()
    return str(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def _calls(watch: Stopwatch) -> int:
    count = 1
    while watch(count) < 1e-3:
        count *= 2
    return count


def _seconds(work: Callable[[], object], device: torch.device, count: int) -> float:
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
