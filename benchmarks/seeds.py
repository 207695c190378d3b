"""Several seeds at once: one after another, in processes of their own, and batched by vmap.

Each way takes the same steps of the same seeds, baseline arm, without measurements; processes are started before the
time is taken. What the command's ``--together auto`` does rests on these rows. The limit of processes is every core at
the rate that one thread has alone; a step whose threads scale well leaves them little to gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from benchmarks.row import Row
from benchmarks.timing import Stopwatch, interleaved, require_same, stopwatch
from experiments.grokking_config import PRESETS, build_model, split_of
from experiments.parallel import share, usable_cores
from grokcore.training.cohort import Cohort
from grokcore.training.memory import keep_freed_memory
from grokcore.training.step import Trainer

AT_LEAST = 4
"""Seeds; on more cores as many as there are."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how much of it a measurement takes."""

    name: str
    preset: str
    steps: int
    rounds: int


CASES = (
    Case("MLP of the quick preset, batch 512", "quick", steps=60, rounds=5),
    Case("transformer, batch 512", "transformer", steps=5, rounds=3),
)


def run(device: torch.device) -> list[Row]:
    """Steps a second, summed over seeds, of each way and of the best; on a GPU without processes."""
    return [row for case in CASES for row in rows_of(case, device)]


def rows_of(case: Case, device: torch.device) -> list[Row]:
    """The rows of one model."""
    seeds = range(max(AT_LEAST, usable_cores()) if device.type == "cpu" else AT_LEAST)
    alone = [our_trainer(case.preset, seed, device) for seed in seeds]
    cohort = Cohort([our_trainer(case.preset, seed, device) for seed in seeds])
    workers, threads = share(len(seeds), usable_cores())
    wanted = [float(trainer.step()[0]) for trainer in alone]
    for one, (loss, _) in zip(wanted, cohort.step(), strict=True):
        require_same("the batched objective of the first step", float(loss), one)

    def steps_alone() -> None:
        for trainer in alone:
            for _ in range(case.steps):
                trainer.step()

    def steps_batched() -> None:
        for _ in range(case.steps):
            cohort.step()

    watches: dict[str, Stopwatch] = {
        f"one after another, {torch.get_num_threads()} threads": stopwatch(steps_alone, device),
        "batched by vmap": stopwatch(steps_batched, device),
    }
    title, started = f"seeds: {case.name}, {len(seeds)} seeds", 0.0
    if device.type == "cuda":
        seconds = interleaved(*watches.values(), rounds=case.rounds)
    else:
        groups = [tuple(seeds[worker::workers]) for worker in range(workers)]
        makers = [[partial(our_trainer, case.preset, seed, device) for seed in group] for group in groups]
        with team(makers, threads) as (started, losses, steps_in_processes):
            for group, found in zip(groups, losses, strict=True):
                for seed, loss in zip(group, found, strict=True):
                    require_same("the objective of a process's first step", loss, wanted[seed])
            watches[f"{workers} processes, threads {threads} each"] = partial(steps_in_processes, case.steps)
            watches["one after another, 1 thread"] = stopwatch(partial(with_one_thread, steps_alone), device)
            seconds = interleaved(*watches.values(), rounds=case.rounds)
    rates = {name: len(seeds) * case.steps / s for name, s in zip(watches, seconds, strict=True)}
    base, *others = rates.values()
    rows = [Row(f"{title}, {name}", rate, "steps/s", ratio=rate / base) for name, rate in rates.items()]
    best = max(others)
    rows.append(Row(f"{title}, the best; over one after another", best, "steps/s", ratio=best / base, at_least=1.6))
    if device.type == "cpu":
        _, processes, one_thread = others
        limit = workers * threads * one_thread
        rows.append(Row(f"{title}, the limit: one thread's rate on each core", limit, "steps/s", ratio=limit / base))
        rows.append(Row(f"{title}, the processes; share of the limit", processes, "steps/s", ratio=processes / limit))
        rows.append(Row(f"{title}, until the processes' first step", started))
    return rows


def with_one_thread(work: Callable[[], object]) -> None:
    """Call it with one of PyTorch's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work()
    finally:
        torch.set_num_threads(threads)


def our_trainer(preset: str, seed: int, device: torch.device) -> Trainer:
    """The baseline arm's trainer."""
    command = PRESETS[preset]
    split = split_of(command.data, seed).to(device)
    model = build_model(command, split, seed).to(device)
    return Trainer(model, "head", split, command.training, command.intervention, seed)


@contextmanager
def team(
    groups: Sequence[Sequence[Callable[[], Trainer]]], threads: int, *, batched: bool = False
) -> Iterator[tuple[float, list[list[float]], Callable[[int, int], float]]]:
    """Processes that each make a group of trainers and step them, one after another or as a cohort.

    Gives the seconds until all had taken their first step, the objectives of that step for each group, and a function
    of steps and calls: the seconds until all have taken calls * steps of each of their trainers.
    """
    context, begun = get_context("spawn"), time.perf_counter()
    pipes, processes = [], []
    try:
        for group in groups:
            mine, theirs = context.Pipe()
            pipes.append(mine)
            processes.append(context.Process(target=_serve, args=(theirs, group, threads, batched), daemon=True))
            processes[-1].start()
            theirs.close()
        losses = [pipe.recv() for pipe in pipes]

        def seconds(steps: int, calls: int) -> float:
            started = time.perf_counter()
            for pipe in pipes:
                pipe.send(calls * steps)
            for pipe in pipes:
                pipe.recv()
            return time.perf_counter() - started

        yield time.perf_counter() - begun, losses, seconds
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(connection: Connection, group: Sequence[Callable[[], Trainer]], threads: int, batched: bool) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    trainers = [make() for make in group]
    cohort = Cohort(trainers) if batched else None
    first = [trainer.step() for trainer in trainers] if cohort is None else cohort.step()
    connection.send([float(loss) for loss, _ in first])
    while True:
        steps = connection.recv()
        if cohort is not None:
            for _ in range(steps):
                cohort.step()
        else:
            for trainer in trainers:
                for _ in range(steps):
                    trainer.step()
        connection.send(None)
