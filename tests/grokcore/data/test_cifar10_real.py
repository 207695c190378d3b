"""The real CIFAR-10, where this machine has it in one of its forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grokcore.data.cifar10 import Images, image_split, load_cifar10
from grokcore.data.cifar10_source import Source


@pytest.fixture(scope="module")
def images(real_cifar10: tuple[Path, Path]) -> Images:
    path, cache = real_cifar10
    return load_cifar10(path, cache=cache)


def test_it_has_the_published_sizes(images: Images) -> None:
    assert images.train_images.shape == (50_000, 3, 32, 32)
    assert images.test_images.shape == (10_000, 3, 32, 32)
    assert torch.equal(images.train_labels.bincount(), torch.full((10,), 5000))
    assert torch.equal(images.test_labels.bincount(), torch.full((10,), 1000))


def test_it_has_the_published_colours(images: Images) -> None:
    """Means and deviations of red, green and blue that everybody normalises by: 0.491, 0.482, 0.447 and 0.247, ..."""
    pixels = images.train_images.transpose(0, 1).flatten(1).double() / 255
    assert pixels.mean(dim=1).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert pixels.std(dim=1).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=3e-3)


def test_the_labels_go_with_the_images(images: Images) -> None:
    """Ships and airplanes are bluer than frogs and deer."""
    blue = [
        images.train_images[images.train_labels == k, 2].float().mean()
        - images.train_images[images.train_labels == k, 0].float().mean()
        for k in range(10)
    ]
    assert min(blue[0], blue[8]) > max(blue[k] for k in range(1, 8))


def test_the_second_load_is_the_cache(
    images: Images, real_cifar10: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = real_cifar10
    monkeypatch.setattr(Source, "decode", None)
    again = load_cifar10(path, cache=cache)
    assert again.pixels == images.pixels
    assert torch.equal(again.train_images, images.train_images)
    assert torch.equal(again.test_labels, images.test_labels)


def test_a_split_of_it(images: Images) -> None:
    split = image_split(images, train_images=5000, test_images=0, label_noise=0.0, seed=0)
    assert split.train_inputs.shape == (5000, 3, 32, 32)
    assert split.test_inputs.shape == (10_000, 3, 32, 32)
    assert torch.equal(split.train_labels.bincount(), torch.full((10,), 500))
    assert torch.equal(split.train_inputs[split.train_labels == 3], images.train_images[images.train_labels == 3][:500])
