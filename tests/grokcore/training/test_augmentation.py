"""Crops and flips, against one image at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.training.augmentation import CropFlip
from grokcore.training.schedules import torch_seed

CPU = torch.device("cpu")


def images(count: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()


def by_hand(image: torch.Tensor, down: int, right: int, flip: bool, padding: int) -> torch.Tensor:
    channels, size, _ = image.shape
    padded = torch.zeros(channels, size + 2 * padding, size + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + size, padding : padding + size] = image
    cropped = padded[:, down : down + size, right : right + size]
    return cropped.flip(2) if flip else cropped


@given(seed=st.integers(0, 1000), epoch=st.integers(0, 50), padding=st.integers(0, 4))
def test_each_image_is_padded_cropped_and_flipped(seed: int, epoch: int, padding: int) -> None:
    whole, index = images(12), torch.tensor([7, 0, 11, 3])
    before = whole.clone()
    found = CropFlip(12, seed, CPU, padding=padding)(whole[index], index, epoch)
    generator = torch.Generator().manual_seed(torch_seed(seed, "augmentation", epoch))
    shifts = torch.randint(0, 2 * padding + 1, (2, 12), generator=generator)
    flips = torch.randint(0, 2, (1, 12), generator=generator)[0]
    for row, sample in zip(found, index.tolist(), strict=True):
        expected = by_hand(whole[sample], *shifts[:, sample].tolist(), bool(flips[sample]), padding)
        assert torch.equal(row, expected)
    assert torch.equal(whole, before)


def test_a_sample_moves_from_epoch_to_epoch_and_not_within_one() -> None:
    whole, augment = images(40), CropFlip(40, 3, CPU)
    index = torch.arange(40)
    first, again, next_epoch = augment(whole, index, 0), augment(whole, index, 0), augment(whole, index, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, next_epoch)
    assert torch.equal(CropFlip(40, 3, CPU)(whole, index, 1), next_epoch)  # a resumed run needs no state
    assert not torch.equal(CropFlip(40, 4, CPU)(whole, index, 0), first)


def test_shifts_and_flips_are_uniform() -> None:
    """A mark in the middle of a large image shows where it went."""
    count, size, padding = 8_000, 17, 4
    whole = torch.zeros(count, 1, size, size)
    whole[:, 0, 8, 8] = 1
    whole[:, 0, 8, 10] = 2  # to the right of it, unless flipped
    found = CropFlip(count, 0, CPU)(whole, torch.arange(count), 0)
    places, second = (found == 1).flatten(1).int().argmax(1), (found == 2).flatten(1).int().argmax(1)
    rows, flipped = places // size, (second < places).float()
    assert flipped.mean().item() == pytest.approx(0.5, abs=0.03)
    counts = torch.bincount(rows - (8 - padding), minlength=9)
    assert counts.shape == (9,)
    assert counts.min() > 0.8 * count / 9
    assert counts.max() < 1.2 * count / 9


def test_float_images_too_and_channels_come_last_in_memory() -> None:
    whole = images(6).float()
    found = CropFlip(6, 0, CPU)(whole, torch.arange(6), 0)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
