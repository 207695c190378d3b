"""The training loop beside a plain eager loop of the same model without measurements.

The loop runs the whole quick preset, with its measurements, records, checkpoints and divergence checks. The
plain loop is what one writes by hand: shuffled batches, PyTorch's AdamW with its default implementation. It runs
half of its steps before and half after, so that a machine that slows down burdens both. A third loop takes the
trainer's own steps alone: against it the cost of measurements and bookkeeping shows by itself.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.row import Row
from benchmarks.timing import interleaved, product
from experiments.commands import run_config
from experiments.grokking import EXPERIMENT, measure_row
from experiments.grokking_config import PRESETS, build_model, split_of
from grokcore.data.split import Split
from grokcore.training.loop import train
from grokcore.training.run_folder import RunFolder
from grokcore.training.step import Trainer

COMMAND = PRESETS["quick"]
BARE_STEPS = 2000
LARGEST_PRODUCT = (512, 256, 256)
"""Of a step."""


def run(device: torch.device) -> list[Row]:
    """Three rates, their ratios, and the distance to the matrix rate; nothing on a GPU, where no loop is tuned yet."""
    if device.type != "cpu":
        return []
    config = COMMAND.training
    split = split_of(COMMAND.data, 0)
    half = config.steps // 2
    plain_seconds = plain_loop(split, half)
    loop_seconds, measured = our_loop(split)
    plain_seconds += plain_loop(split, half)
    bare_rate = BARE_STEPS / bare_steps(split)
    plain_rate, loop_rate = config.steps / plain_seconds, config.steps / loop_seconds
    model = build_model(COMMAND, split, 0)
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    # Forward, gradient of the input, gradient of the weight: three products of 2 batch * weights flops.
    flops = 6 * config.batch_size * weights
    (seconds,) = interleaved(product(*LARGEST_PRODUCT, device))
    rate = 2 * math.prod(LARGEST_PRODUCT) / seconds
    loop = f"training: our loop, {measured} measurements of everything, records, checkpoints; over the plain loop"
    return [
        Row("training: plain eager loop, no measurements", plain_rate, "steps/s", ratio=1.0),
        Row(loop, loop_rate, "steps/s", ratio=loop_rate / plain_rate, at_least=0.9),
        Row("training: our steps alone; over the plain loop", bare_rate, "steps/s", ratio=bare_rate / plain_rate),
        Row("training: measurements and bookkeeping, share of our loop", 100 * (1 - loop_rate / bare_rate), "%"),
        Row(f"training: fp32 matrix rate ({' x '.join(map(str, LARGEST_PRODUCT))})", rate / 1e9, "GFLOP/s"),
        Row("training: our steps alone, share of the matrix rate", 100 * bare_rate * flops / rate, "%"),
    ]


def plain_loop(split: Split, steps: int) -> float:
    """Seconds that `steps` steps of the hand-written loop take."""
    config = COMMAND.training
    model = build_model(COMMAND, split, 0)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    n = len(split.train_labels)
    order, position = torch.randperm(n), 0
    started = time.perf_counter()
    for _ in range(steps):
        if position + config.batch_size > n:
            order, position = torch.randperm(n), 0
        index = order[position : position + config.batch_size]
        position += config.batch_size
        loss = nn.functional.cross_entropy(model(split.train_inputs[index]), split.train_labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def our_loop(split: Split) -> tuple[float, int]:
    """Seconds of the whole quick run, and how many measurements it took."""
    with tempfile.TemporaryDirectory() as runs:
        config = run_config(EXPERIMENT, replace(COMMAND, runs=Path(runs)), 0, split)
        trainer = our_trainer(split)
        with RunFolder(Path(runs), config, {}) as folder:
            started = time.perf_counter()
            rows = train(trainer, folder, lambda: measure_row(trainer), checkpoint_every=COMMAND.checkpoint_every)
            return time.perf_counter() - started, len(rows)


def bare_steps(split: Split) -> float:
    """Seconds of :data:`BARE_STEPS` of the trainer's steps."""
    trainer = our_trainer(split)
    started = time.perf_counter()
    for _ in range(BARE_STEPS):
        trainer.step()
    return time.perf_counter() - started


def our_trainer(split: Split) -> Trainer:
    """The baseline arm's trainer."""
    return Trainer(build_model(COMMAND, split, 0), "head", split, COMMAND.training, COMMAND.intervention, 0)
