"""A CIFAR-10 training step beside a plain eager loop with the published penalty, and how far both are from the machine.

The plain loop is written as papers' code usually is: float32 images in the usual memory order, normalised before,
PyTorch's layers and its SGD as they come (on a GPU with TF32 products in convolutions, its default), and the minibatch
CDNV of paper A by loops over samples and classes in Python, which reads a number off the device for each. It has our
weights and must compute our objective. Ours is `Trainer.step` of the arm ncc_prevent. All are timed in turns, in one
run.

The share of the matrix rate counts a step's useful multiply-adds, three times those of a forward pass, against a
square product of the same dtype; products with the zeros that pad a map are not useful and not counted.

    python -m benchmarks.cifar10     where our steps spend their time, operator by operator
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.cdnv import looped_cdnv
from benchmarks.row import Row
from benchmarks.timing import Stopwatch, interleaved, operators, require_same, stopwatch
from experiments.arms import ARMS
from experiments.cifar10 import measure_row, prepare
from experiments.cifar10_config import PRESETS, ImageCommand, build_model
from experiments.runner import make_deterministic
from grokcore.data.split import Split
from grokcore.training.captured import CapturedStep
from grokcore.training.config import epoch_steps
from grokcore.training.step import Trainer

Precision = Literal["float32", "bfloat16"]
TRAIN, TEST = 50_000, 10_000
"""Images of the whole set."""


def run(device: torch.device) -> list[Row]:
    """Images a second, ratios and shares of the matrix rate: the cpu preset on a CPU, paper-nc on a GPU."""
    name = "cpu" if device.type == "cpu" else "paper-nc"
    command = replace(PRESETS[name], arm="ncc_prevent", intervention=ARMS["ncc_prevent"].coefficients[name])
    split = random_images(5_000).to(device)
    cuda, tf32 = device.type == "cuda", torch.backends.cudnn.allow_tf32
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if cuda else ("float32",)
    steps: dict[str, Callable[[], object]] = {}
    for precision in precisions:
        steps[f"ours in {precision}"] = trainer(command, split, device, precision).step
        if cuda:
            captured = trainer(command, split, device, precision)
            CapturedStep(captured)
            steps[f"ours in {precision}, as a graph"] = captured.step
    plain = PlainLoop(command, split, device)
    ours = trainer(command, split, device, "float32")
    require_same("cifar10 step", float(ours.objective(*ours.next_batch())[0].detach()), plain.objective_at(ours))

    if cuda:
        make_deterministic()  # as our runs are

    def plain_step() -> None:
        """As PyTorch comes; ours, in float32, goes without TF32, and repeats itself."""
        torch.backends.cudnn.allow_tf32 = tf32
        torch.use_deterministic_algorithms(False)
        plain.step()
        torch.backends.cudnn.allow_tf32 = False
        torch.use_deterministic_algorithms(cuda, warn_only=True)

    watches = [stopwatch(step, device) for step in (plain_step, *steps.values())]
    rates = {precision: matrix_rate(precision, device) for precision in precisions}
    plain_s, *seconds = interleaved(*watches, rounds=5, turn=1.0)
    # Two operations a multiply-add; forward, and once more for each of its two gradients.
    batch, work = command.training.batch_size, 6 * useful_multiply_adds(ours.model)
    title = f"cifar10, {name}"
    rows = [Row(f"{title}: plain eager float32, published penalty", batch / plain_s, "images/s", ratio=1.0)]
    for (what, _), found in zip(steps.items(), seconds, strict=True):
        ratio = plain_s / found
        rows.append(Row(f"{title}: {what}", batch / found, "images/s", ratio=ratio, at_least=5.0 if cuda else None))
    rows += [Row(f"{title}: {p} matrix rate", rate / 1e9, "GFLOP/s") for p, rate in rates.items()]
    for (what, _), found in zip(steps.items(), seconds, strict=True):
        rate = rates["bfloat16" if "bfloat16" in what else "float32"]
        rows.append(Row(f"{title}: {what}, share of the matrix rate", 100 * work * batch / found / rate, "%"))
    (measured,) = interleaved(stopwatch(lambda: measure_row(ours), device), rounds=2, turn=0.1)
    images = len(split.train_labels) + len(split.test_labels)
    rows.append(Row(f"{title}: measuring everything", images / measured, "images/s"))
    if cuda:
        training = command.training.epochs * epoch_steps(TRAIN, batch) * min(seconds)
        measuring = len(command.training.measured_steps(TRAIN)) * measured * (TRAIN + TEST) / images
        whole = (training + measuring) / 60
        rows.append(Row(f"{title}: a whole run from these rates; over 10 min", whole, "min", whole / 10, at_most=1.0))
    return rows


def random_images(count: int) -> Split:
    """Images of noise: their time is that of any others."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator).byte()
    labels = torch.arange(count) % 10
    return Split(pixels, labels, pixels[: count // 5], labels[: count // 5], 10)


def trainer(command: ImageCommand, split: Split, device: torch.device, precision: Precision) -> Trainer:
    """The arm's trainer."""
    command = replace(command, model=replace(command.model, precision=precision))
    model = build_model(command, split, 0).to(device)
    found = Trainer(model, "head", split, command.training, command.intervention, 0)
    prepare(command, found)
    return found


class PlainLoop:
    """The hand-written loop."""

    def __init__(self, command: ImageCommand, split: Split, device: torch.device) -> None:
        command = replace(command, model=replace(command.model, precision="float32"))
        self.model = with_plain_convolutions(build_model(command, split, 0)).to(device)
        config = command.training
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.learning_rate, momentum=config.momentum)
        self.batch, self.weight = config.batch_size, command.intervention.cdnv_weight
        self.images, self.labels = split.train_inputs.float() / 127.5 - 1, split.train_labels
        self._order, self._position = torch.randperm(len(self.labels), device=device), 0
        self.model.head.register_forward_pre_hook(lambda module, entering: setattr(self, "features", entering[0]))
        self.features = torch.empty(0)

    def step(self) -> None:
        """One step on the next batch."""
        if self._position + self.batch > len(self.labels):
            self._order, self._position = torch.randperm(len(self.labels), device=self.labels.device), 0
        index = self._order[self._position : self._position + self.batch]
        self._position += self.batch
        loss = self._objective(self.images[index], self.labels[index])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def objective_at(self, ours: Trainer) -> float:
        """Its objective on the batch that our trainer takes next."""
        index = ours.batches.indices(ours.steps_done + 1)
        return float(self._objective(self.images[index], self.labels[index]).detach())

    def _objective(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = cross_entropy(self.model(images), labels)
        return loss + self.weight * looped_cdnv(self.features, labels)


def with_plain_convolutions(model: nn.Module) -> nn.Module:
    """The same weights in PyTorch's own layers and the usual memory order."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d
    return model.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def useful_multiply_adds(model: nn.Module) -> int:
    """Of a forward pass of one 32x32 image: products with the zeros around a map are not counted."""
    counted = 0

    def count(module: nn.Module, entering: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Linear):
            counted += module.weight.numel()
        elif isinstance(module, nn.Conv2d):
            map_of_ones = torch.ones(1, 1, *entering[0].shape[2:])
            taps = torch.ones(1, 1, *module.kernel_size)
            met = torch.nn.functional.conv2d(map_of_ones, taps, stride=module.stride, padding=module.padding)
            counted += int(met.sum()) * module.in_channels * module.out_channels

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    training, device = model.training, next(model.parameters()).device
    model.eval()(torch.zeros(1, 3, 32, 32, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return counted


def matrix_rate(precision: Precision, device: torch.device) -> float:
    """Operations a second of a large square product; float32 without the tensor cores' shorter one."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    watch: Stopwatch = stopwatch(lambda: a @ b, device)
    (seconds,) = interleaved(watch)
    return 2 * size**3 / seconds


def profile() -> str:
    """Our steps' time by operator on the CPU, as a table."""
    command = replace(PRESETS["cpu"], arm="ncc_prevent", intervention=ARMS["ncc_prevent"].coefficients["cpu"])
    return operators(trainer(command, random_images(1_000), torch.device("cpu"), "float32").step)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"20 steps:\n{profile()}")
