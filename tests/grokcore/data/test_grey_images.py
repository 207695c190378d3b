"""MNIST's form and the digits: what is read, what is drawn, what is refused."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from grokcore import UsageError
from grokcore.data.grey_images import GreyImages, load_digits, load_mnist, stratified_split
from grokcore.data.idx import read_idx

NAMES = {"train-images-idx3-ubyte": 40, "train-labels-idx1-ubyte": 40, "t10k-images-idx3-ubyte": 12,
         "t10k-labels-idx1-ubyte": 12}  # fmt: skip


def idx(values: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes() + values.tobytes()


def write_set(folder: Path, *, gzipped: bool = True, mark: str = "-") -> dict[str, NDArray[np.uint8]]:
    """Four files of four classes in turn."""
    rng, found = np.random.default_rng(0), {}
    folder.mkdir(exist_ok=True)
    for name, n in NAMES.items():
        values = np.arange(n) % 4 if "labels" in name else rng.integers(0, 256, (n, 5, 5))
        found[name] = values.astype(np.uint8)
        path = folder / (name.replace("-idx", f"{mark}idx") + (".gz" if gzipped else ""))
        path.write_bytes(gzip.compress(idx(found[name])) if gzipped else idx(found[name]))
    return found


@pytest.fixture(scope="module")
def digits() -> GreyImages:
    return load_digits()


@pytest.mark.parametrize(("gzipped", "mark"), [(True, "-"), (False, "-"), (False, ".")])
def test_a_set_in_the_form_of_mnist(tmp_path: Path, gzipped: bool, mark: str) -> None:
    folder = tmp_path / "my-set"
    wanted = write_set(folder, gzipped=gzipped, mark=mark)
    found = load_mnist(folder)
    assert found.name == "my-set"  # not MNIST: other bytes
    assert found.num_classes == 4
    assert torch.equal(
        (found.train_images[:, 0] * 255).round().byte(), torch.from_numpy(wanted["train-images-idx3-ubyte"])
    )
    assert torch.equal(found.test_labels, torch.from_numpy(wanted["t10k-labels-idx1-ubyte"]).long())
    assert 0 <= float(found.train_images.min()) < float(found.train_images.max()) <= 1


def test_the_real_one() -> None:
    try:
        found = load_mnist()
    except UsageError as error:
        if not str(error).startswith("no MNIST found"):
            raise
        pytest.skip(str(error))
    assert found.name == "MNIST"
    assert found.train_images.shape == (60_000, 1, 28, 28)
    assert found.test_images.shape == (10_000, 1, 28, 28)
    assert found.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert float(found.train_images.mean()) == pytest.approx(0.1307, abs=1e-4)


def test_the_digits(digits: GreyImages) -> None:
    assert digits.train_images.shape == (1797, 1, 8, 8)
    assert float(digits.train_images.max()) == 1
    split = stratified_split(digits, train_images=1000, label_noise=0.0, seed=0)
    assert len(split.test_labels) == 797
    rows = {tuple(image.flatten().tolist()) for image in split.train_inputs}
    assert not rows & {tuple(image.flatten().tolist()) for image in split.test_inputs}


@given(seed=st.integers(0, 1000), n=st.integers(10, 1700))
def test_draws_are_stratified_and_the_seeds_own(digits: GreyImages, seed: int, n: int) -> None:
    first, again, other = (
        stratified_split(digits, train_images=n, label_noise=0.0, seed=s) for s in (seed, seed, seed + 1)
    )
    counts = torch.bincount(first.train_labels, minlength=10)
    assert int(counts.sum()) == n
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(first.train_inputs, again.train_inputs)
    if 20 <= n <= 1600:
        assert not torch.equal(first.train_inputs, other.train_inputs)
    assert len(first.test_labels) == 1797 - n


def test_noise_is_on_the_train_labels_alone(digits: GreyImages) -> None:
    clean, noisy = (stratified_split(digits, train_images=500, label_noise=s, seed=3) for s in (0.0, 0.2))
    assert torch.equal(clean.train_inputs, noisy.train_inputs)
    assert int((clean.train_labels != noisy.train_labels).sum()) == 100
    assert torch.equal(clean.test_labels, noisy.test_labels)


@pytest.mark.parametrize(("n", "words"), [(9, "at least 10"), (1797, "a class of digits has"), (-5, "at least 10")])
def test_sizes_that_cannot_be(digits: GreyImages, n: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stratified_split(digits, train_images=n, label_noise=0.0, seed=0)


def test_what_is_missing_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROKCORE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr("grokcore.data.lookup.ROOT", tmp_path / "checkout")
    with pytest.raises(UsageError, match="no MNIST found"):
        load_mnist(cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="does not hold train-images"):
        load_mnist(tmp_path)
    folder = tmp_path / "set"
    write_set(folder)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(11, dtype=np.uint8))))
    with pytest.raises(UsageError, match="test images and labels do not belong together"):
        load_mnist(folder)
    labels.write_bytes(gzip.compress(idx(np.full(12, 9, dtype=np.uint8))))
    with pytest.raises(UsageError, match="classes that the train set lacks"):
        load_mnist(folder)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x01" + GOOD[4:], "not an IDX file"),  # floats
        (GOOD[:-1], "fewer bytes"),
        (GOOD + b"\0", "more bytes"),
        (GOOD[:9], "cut short"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "no data set does"),  # a header that asks for all memory
        (b"\0\0\x08\x01" + b"\0" * 4, "no data set does"),
        (gzip.compress(GOOD)[:-9], "cannot read"),
        (b"\x1f\x8b\x08damaged", "cannot read"),
    ],
    ids=["empty", "floats", "short", "long", "no sizes", "all memory", "nothing", "cut gzip", "damaged gzip"],
)
def test_files_that_are_no_idx(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_idx(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_idx(tmp_path / "absent")


def test_a_bomb_is_read_no_further_than_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        file.write(idx(np.zeros(8, dtype=np.uint8)))
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(UsageError, match="more bytes"):
        read_idx(path)
    assert os.path.getsize(path) < 1 << 20
