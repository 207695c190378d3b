"""Memory and time on a CPU: which batch would fit, keeping what a step has freed, numbers too small to matter."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from grokcore.errors import UsageError
from grokcore.training.step import Trainer

_LEAST = 5e-324
_MALLOPT = {-3: 2**30, -1: 2**31 - 1, -2: 2**26}  # glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD


def keep_freed_memory() -> None:
    """Have this process keep the memory of freed CPU tensors for new ones.

    Otherwise a step's buffers of megabytes go back to the system when they are freed, and the next step gets them page
    by page, each one zeroed first. Only glibc has the switch; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for name, value in _MALLOPT.items():
            mallopt(name, value)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Within it numbers below 1.2e-38 (2.2e-308 in float64) count as zero, in this thread, where the processor can.

    AdamW's momentum of a weight that gets no gradient falls by a tenth each step, below that within a thousand steps,
    and stays there for good; in a network with dead units arithmetic on such numbers came to half of a step's time.
    """
    before = _LEAST * 1.0 == 0.0  # flushed already
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU had no room for a tensor."""
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def out_of_memory(trainer: Trainer) -> UsageError:
    """What to tell a person whose batch does not fit: the largest one, by halving, whose gradient was computed here.

    The trainer must not go on afterwards: batch norms have counted the trials.
    """
    tried = trainer.batches.batch_size
    advice = "no batch fits: take a smaller model"
    batch = tried // 2
    while batch:
        if _fits(trainer, batch):
            advice = f"--batch-size {batch} fits"
            break
        batch //= 2
    return UsageError(f"out of memory at a batch of {tried} on {_place(trainer)}: {advice}; checkpoints are kept")


@contextmanager
def explained(device: torch.device) -> Iterator[None]:
    """Where no batch is to blame: the data, the model or a measurement do not fit."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory on {device.type} outside a training step, by the data, the model or a measurement: "
            "take a smaller model or fewer images; checkpoints are kept"
        ) from None


def _fits(trainer: Trainer, batch: int) -> bool:
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.data.train_labels.is_cuda:
        torch.cuda.empty_cache()
    inputs, labels = trainer.next_batch(batch)
    try:
        loss, _ = trainer.objective(inputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return True
    except RuntimeError as error:
        if is_out_of_memory(error):
            return False
        raise


def _place(trainer: Trainer) -> str:
    return str(trainer.data.train_labels.device.type)
