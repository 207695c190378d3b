"""The training loop beside a plain eager loop of the same model without measurements.

The loop runs the whole quick preset, with its measurements, records, checkpoints and divergence checks. The
plain loop is what one writes by hand: shuffled batches, PyTorch's AdamW with its default implementation. It runs
half of its steps before and half after, so that a machine that slows down burdens both. A third loop takes the
trainer's own steps alone: against it the cost of measurements and bookkeeping shows by itself.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.row import Row
from experiments.grokking import PRESETS, build_model, measure_row, run_config, split_of
from grokcore.data.split import Split
from grokcore.training.loop import train
from grokcore.training.run_folder import RunFolder
from grokcore.training.step import Trainer

COMMAND = PRESETS["quick"]
BARE_STEPS = 2000


def run() -> list[Row]:
    """Three rates, their ratios, and the distance to the matrix rate."""
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
    rate = matrix_rate()
    return [
        Row("plain eager loop, no measurements", f"{plain_rate:.0f} steps/s", "1"),
        Row(
            f"our loop, {measured} measurements of everything, records, checkpoints",
            f"{loop_rate:.0f} steps/s",
            f"{loop_rate / plain_rate:.2f}",
            ">= 0.90",
        ),
        Row("our steps alone", f"{bare_rate:.0f} steps/s", f"{bare_rate / plain_rate:.2f}"),
        Row("measurements and bookkeeping, share of our loop", f"{100 * (1 - loop_rate / bare_rate):.1f} %"),
        Row("measured fp32 matrix rate (512 x 256 x 256)", f"{rate / 1e9:.0f} GFLOP/s"),
        Row("our steps alone, share of the matrix rate", f"{100 * bare_rate * flops / rate:.0f} %"),
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
        config = run_config(replace(COMMAND, runs=Path(runs)), 0)
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


def matrix_rate() -> float:
    """FLOP/s of the step's largest product, the best of several."""
    a, b = torch.randn(512, 256), torch.randn(256, 256)
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(50):
            a @ b
        best = min(best, time.perf_counter() - started)
    return 50 * 2 * 512 * 256 * 256 / best
