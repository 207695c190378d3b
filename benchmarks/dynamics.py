"""Paper B's sweep of weight decays and seeds: one run after another, runs in processes, one batch, a batch a core.

Each way takes the same steps of the same runs, 784-200-200-200-10 on 1,000 images a seed, AdamW, without measurements.
What `python -m experiments.dynamics` does by itself is the last. Its limit is the time of a step's matrix products at
the rate that one thread reaches on each core, with the optimiser's pass over the weights added: eight numbers a weight
move, and no cache of a core holds them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benchmarks.row import Row
from benchmarks.seeds import team, with_one_thread
from benchmarks.timing import Stopwatch, interleaved, product, require_same, stopwatch
from experiments.dynamics_config import FIT_DECAYS, PRESETS, DynamicsCommand, build_model
from experiments.parallel import share, usable_cores
from grokcore.data.split import Split
from grokcore.training.cohort import Cohort
from grokcore.training.step import Trainer

STEPS, ROUNDS, SEEDS = 10, 4, 5


def run(device: torch.device) -> list[Row]:
    """Run-steps a second of each way; nothing on a GPU, where the sweep is one batch."""
    if device.type != "cpu":
        return []
    members = [(decay, seed) for seed in range(SEEDS) for decay in FIT_DECAYS]
    makers = [partial(our_trainer, decay, seed) for decay, seed in members]
    alone, cohort = [make() for make in makers], Cohort([make() for make in makers])
    wanted = [float(trainer.step()[0]) for trainer in alone]
    for one, (loss, _) in zip(wanted, cohort.step(), strict=True):
        require_same("the batched objective of the first step", float(loss), one)

    def steps_alone() -> None:
        for trainer in alone:
            for _ in range(STEPS):
                trainer.step()

    def steps_batched() -> None:
        for _ in range(STEPS):
            cohort.step()

    workers, threads = share(len(members), usable_cores())
    groups = [makers[worker::workers] for worker in range(workers)]
    with (
        team(groups, threads) as (_, _, single),
        team(groups, threads, batched=True) as (_, losses, batches),
    ):
        for worker, group in enumerate(losses):
            for loss, one in zip(group, wanted[worker::workers], strict=True):
                require_same("the objective of a batch's first step", loss, one)
        watches: dict[str, Stopwatch] = {
            f"one after another, {torch.get_num_threads()} threads": stopwatch(steps_alone, device),
            f"{workers} processes, one after another in each": partial(single, STEPS),
            f"one batch, {torch.get_num_threads()} threads": stopwatch(steps_batched, device),
            f"a batch in each of {workers} processes": partial(batches, STEPS),
        }
        seconds = interleaved(*watches.values(), rounds=ROUNDS)
    rates = {name: len(members) * STEPS / s for name, s in zip(watches, seconds, strict=True)}
    base, best = next(iter(rates.values())), list(rates.values())[-1]
    title = f"dynamics: {len(FIT_DECAYS)} decays x {SEEDS} seeds"
    rows = [Row(f"{title}, {name}", rate, "run-steps/s", ratio=rate / base) for name, rate in rates.items()]
    rows[-1] = replace(rows[-1], at_least=1.8)
    flops, rate = step_flops(alone[0]), one_thread_rate(alone[0])
    optimizer = one_thread_optimizer(alone[0])
    limit = workers * threads / (flops / rate + optimizer)
    return [
        *rows,
        Row(f"{title}, a step's products, one thread", flops / rate),
        Row(f"{title}, the optimiser's pass, one thread", optimizer),
        Row(f"{title}, the limit: both alone on each core", limit, "run-steps/s", ratio=limit / base),
        Row(f"{title}, batches in processes; share of the limit", 100 * best / limit, "%"),
    ]


def our_trainer(decay: float, seed: int) -> Trainer:
    """A run of the sweep, on images of noise of MNIST's shape: a step's time does not depend on what they show."""
    preset = PRESETS["grey"]
    assert isinstance(preset, DynamicsCommand)
    command = replace(preset, training=replace(preset.training, weight_decay=decay))
    split = noise_images(command.data.train_images, seed)
    return Trainer(build_model(command, split, seed), "head", split, command.training, command.intervention, seed)


def noise_images(count: int, seed: int) -> Split:
    """`count` images of 28 x 28, as many of each of ten classes, and a test set of ten."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(count + 10, 1, 28, 28, generator=generator), torch.arange(count + 10) % 10
    return Split(images[:count], labels[:count], images[count:], labels[count:], 10)


def layers_of(trainer: Trainer) -> list[nn.Linear]:
    """The linear layers, first to last."""
    return [module for module in trainer.model.modules() if isinstance(module, nn.Linear)]


def step_flops(trainer: Trainer) -> int:
    """Of a step's matrix products: forward, gradient of the weight, and of the input but for the first layer's."""
    batch, layers = trainer.batches.batch_size, layers_of(trainer)
    first, *rest = (layer.weight.numel() for layer in layers)
    return 2 * batch * (2 * first + 3 * sum(rest))


def one_thread_rate(trainer: Trainer) -> float:
    """Flops a second of the first layer's product on one thread."""
    weight = layers_of(trainer)[0].weight
    shape = (trainer.batches.batch_size, weight.shape[1], weight.shape[0])
    seconds = list[float]()
    with_one_thread(lambda: seconds.extend(interleaved(product(*shape, torch.device("cpu")))))
    return 2 * math.prod(shape) / seconds[0]


def one_thread_optimizer(trainer: Trainer) -> float:
    """Seconds of the optimiser's pass over one run's weights, on one thread."""
    seconds = list[float]()
    watch = stopwatch(trainer.optimizer.step, torch.device("cpu"))
    with_one_thread(lambda: seconds.extend(interleaved(watch)))
    return seconds[0]
