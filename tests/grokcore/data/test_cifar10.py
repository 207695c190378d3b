"""CIFAR-10 as a whole: what each form gives, where it is looked for, which images a split has."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import UsageError
from grokcore.data.cifar10 import CLASSES, Images, image_split, load_cifar10
from grokcore.data.modular import modular_arithmetic
from tests.grokcore.data.tiny_cifar10 import (
    batches,
    jpeg_files,
    tiny_images,
    write_files,
    write_jpeg_folder,
    write_jpeg_tar,
    write_official_archive,
    write_official_folder,
)

FORMS = ["official archive", "official folder", "JPEG archive", "JPEG folder"]


def write(form: str, folder: Path) -> dict[str, object]:
    """A tiny set in `folder`; what load_cifar10 must be told."""
    if form == "official archive":
        return {"official": write_official_archive(folder)}
    if form == "official folder":
        return {"official": write_official_folder(folder)}
    if form == "JPEG archive":
        write_jpeg_tar(folder / "cifar10-jpeg.tar.xz")
    else:
        write_jpeg_folder(folder)
    return {}


@pytest.mark.parametrize("form", ["official archive", "official folder"])
def test_the_official_forms_are_the_batches_one_after_the_other(form: str, tmp_path: Path) -> None:
    images = load_cifar10(tmp_path, cache=tmp_path / "cache", **write(form, tmp_path))
    made = batches()
    train = np.concatenate([made[f"data_batch_{k}"][0] for k in range(1, 6)]).reshape(-1, 3, 32, 32)
    labels = [label for k in range(1, 6) for label in made[f"data_batch_{k}"][1]]
    assert images.name == "CIFAR-10"
    assert np.array_equal(images.train_images.numpy(), train)
    assert images.train_labels.tolist() == labels
    assert np.array_equal(images.test_images.numpy(), made["test_batch"][0].reshape(-1, 3, 32, 32))
    assert images.test_labels.tolist() == made["test_batch"][1]


@pytest.mark.parametrize("form", ["JPEG archive", "JPEG folder"])
def test_the_jpeg_forms_go_by_class_and_name(form: str, tmp_path: Path) -> None:
    images = load_cifar10(tmp_path, cache=tmp_path / "cache", **write(form, tmp_path))
    assert images.name == "CIFAR-10 (JPEG)"
    assert images.train_labels.tolist() == [k for k in range(10) for _ in range(6)]
    assert images.test_labels.tolist() == [k for k in range(10) for _ in range(3)]
    # What was encoded, up to what the encoding loses; another image of the class is far off.
    original = tiny_images(np.arange(10).repeat(6), 0).astype(int)
    error = np.abs(images.train_images.numpy().astype(int) - original).mean(axis=(1, 2, 3))
    shifted = np.abs(images.train_images.numpy().astype(int) - np.roll(original, 1, axis=0)).mean(axis=(1, 2, 3))
    assert error.max() < 9
    assert shifted.min() > 12


def test_a_tar_and_a_folder_give_the_same_set_whatever_the_order(tmp_path: Path) -> None:
    files = jpeg_files()
    shuffled = dict(sorted(files.items(), key=lambda item: hashlib.sha256(item[1]).digest()))
    assert list(shuffled) != list(files)
    write_files(tmp_path / "folder", shuffled)
    write_jpeg_tar(tmp_path / "a.tar")
    from_folder = load_cifar10(tmp_path / "folder", cache=tmp_path / "cache")
    from_tar = load_cifar10(tmp_path / "a.tar", cache=tmp_path / "cache")
    assert from_folder.pixels == from_tar.pixels
    assert torch.equal(from_folder.train_images, from_tar.train_images)
    assert torch.equal(from_folder.test_labels, from_tar.test_labels)


def test_pixels_names_the_content(tmp_path: Path) -> None:
    write_jpeg_tar(tmp_path / "a.tar")
    write_jpeg_tar(tmp_path / "b.tar", per_class_test=2)
    a, b = (load_cifar10(tmp_path / name, cache=tmp_path / "cache") for name in ("a.tar", "b.tar"))
    parts = (a.train_images, a.train_labels.byte(), a.test_images, a.test_labels.byte())
    assert a.pixels == hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:12]
    assert a.pixels != b.pixels


def test_the_cache_is_read_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in FORMS:
        told = write(form, tmp_path / form)
        first = load_cifar10(tmp_path / form, cache=tmp_path / "cache", **told)
        with monkeypatch.context() as patch:
            patch.setattr("grokcore.data.cifar10_source.Source.decode", None)  # nothing may be decoded again
            again = load_cifar10(tmp_path / form, cache=tmp_path / "cache", **told)
        assert (first.name, first.pixels) == (again.name, again.pixels)
        for part in ("train_images", "train_labels", "test_images", "test_labels"):
            assert torch.equal(getattr(first, part), getattr(again, part))
    assert len(list((tmp_path / "cache" / "decoded").glob("*.images"))) == len(FORMS)


def test_a_path_may_be_spelt_in_several_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg_folder(tmp_path / "folder")
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.chdir(tmp_path)
    load_cifar10(tmp_path / "folder", cache=tmp_path / "cache")
    monkeypatch.setattr("grokcore.data.cifar10_source.Source.decode", None)
    for path in (Path("folder"), Path("folder/../folder"), tmp_path / "link"):
        assert len(load_cifar10(path, cache=tmp_path / "cache").train_labels) == 60


def test_a_changed_source_is_decoded_anew(tmp_path: Path) -> None:
    """An archive by its content, a folder by its files, even where size and time are made to look the same."""
    write_jpeg_tar(tmp_path / "a.tar")
    write_jpeg_folder(tmp_path / "folder")
    before = [load_cifar10(tmp_path / name, cache=tmp_path / "cache") for name in ("a.tar", "folder")]
    write_jpeg_tar(tmp_path / "a.tar", per_class_train=7)
    file = tmp_path / "folder" / "train" / "cat" / "0000.jpg"
    about, other = file.stat(), jpeg_files()["train/dog/0000.jpg"]
    file.write_bytes(other.ljust(about.st_size, b"\0")[: max(about.st_size, len(other))])
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    after = [load_cifar10(tmp_path / name, cache=tmp_path / "cache") for name in ("a.tar", "folder")]
    assert len(after[0].train_labels) == 70
    assert before[1].pixels != after[1].pixels


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [".", "cifar10"])
def test_each_place_may_hold_each_form(
    form: str, inside: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROKCORE_DATA", str(tmp_path / "named"))
    for place in (tmp_path / "named", elsewhere, tmp_path / "cache"):
        told = write(form, place / inside)
        found = load_cifar10(**told)
        assert found.name == ("CIFAR-10" if form.startswith("official") else "CIFAR-10 (JPEG)")
        shutil.rmtree((place / inside).resolve())
    with pytest.raises(UsageError, match="no CIFAR-10 found"):
        load_cifar10(**told)


def test_places_in_their_order(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place has a set of its own size, so that it shows which was taken."""
    given_path, named, cache = tmp_path / "given", tmp_path / "named", tmp_path / "cache"
    for count, place in enumerate((given_path, named, elsewhere, cache), start=1):
        write_jpeg_tar(place / "cifar10-jpeg.tar", per_class_train=count, per_class_test=1)
    monkeypatch.setenv("GROKCORE_DATA", str(named))
    assert len(load_cifar10(given_path).train_labels) == 10
    assert len(load_cifar10().train_labels) == 20
    monkeypatch.setenv("GROKCORE_DATA", str(tmp_path / "empty"))
    assert len(load_cifar10().train_labels) == 30
    (elsewhere / "cifar10-jpeg.tar").unlink()
    assert len(load_cifar10().train_labels) == 40


def test_the_official_set_goes_before_the_jpeg(tmp_path: Path) -> None:
    write_jpeg_tar(tmp_path / "a.tar")
    write_jpeg_folder(tmp_path)
    official = write_official_archive(tmp_path)
    assert load_cifar10(tmp_path, cache=tmp_path / "cache", official=official).name == "CIFAR-10"


def test_foreign_archives_beside_it_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    (tmp_path / "cifar-100-python.tar.gz").write_text("no archive")
    write_jpeg_tar(tmp_path / "b.tar.gz")
    assert len(load_cifar10(tmp_path, cache=tmp_path / "cache").train_labels) == 60


def test_a_damaged_archive_is_not_passed_over(elsewhere: Path, tmp_path: Path) -> None:
    elsewhere.mkdir(parents=True)
    (elsewhere / "cifar10-jpeg.tar.xz").write_bytes(b"no archive")
    write_jpeg_tar(tmp_path / "cache" / "cifar10-jpeg.tar")
    with pytest.raises(UsageError, match="damaged or no tar archive"):
        load_cifar10()


def test_nothing_anywhere_says_where_it_looked(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROKCORE_DATA", str(tmp_path / "named"))
    with pytest.raises(UsageError) as error:
        load_cifar10()
    said = str(error.value)
    assert "\n" not in said
    for words in (str(tmp_path / "named"), str(elsewhere), str(tmp_path / "cache"), "--data", "--download"):
        assert words in said
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_given_path_without_data_is_an_error_though_another_place_has_some(tmp_path: Path) -> None:
    write_jpeg_tar(tmp_path / "cache" / "cifar10-jpeg.tar")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "notes.txt").write_text("no images")
    with pytest.raises(UsageError, match=r"given holds no CIFAR-10"):
        load_cifar10(tmp_path / "given", download=True)
    with pytest.raises(UsageError, match=r"missing does not exist"):
        load_cifar10(tmp_path / "missing", download=True)
    with pytest.raises(UsageError, match=r"notes.txt is damaged or no tar archive"):
        load_cifar10(tmp_path / "given" / "notes.txt")
    assert len(load_cifar10().train_labels) == 60


def set_of(train: int, test: int) -> Images:
    """A set whose images hold their own position, in three of their bytes."""

    def numbered(n: int) -> torch.Tensor:
        images = torch.zeros(n, 3, 32, 32, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(n) % 256, torch.arange(n) // 256
        return images

    def labels(n: int) -> torch.Tensor:
        return torch.arange(n) * 7 % 10

    return Images("CIFAR-10", "0" * 12, numbered(train), labels(train), numbered(test), labels(test))


def positions(inputs: torch.Tensor) -> list[int]:
    return (inputs[:, 0, 0, 0].long() + 256 * inputs[:, 0, 0, 1].long()).tolist()


SET = set_of(400, 300)


@given(train=st.integers(0, 40), test=st.integers(0, 30), seed=st.integers(0, 2**32), noise=st.floats(0, 0.99))
def test_a_split_is_the_first_of_each_class_for_every_seed(train: int, test: int, seed: int, noise: float) -> None:
    split = image_split(SET, train_images=10 * train, test_images=10 * test, label_noise=noise, seed=seed)
    sides = (SET.train_labels, train or 40, split.train_inputs), (SET.test_labels, test or 30, split.test_inputs)
    for labels, each, inputs in sides:
        seen = [0] * 10
        expected = []
        for i, label in enumerate(labels.tolist()):
            if seen[label] < each:
                expected.append(i)
            seen[label] += 1
        assert positions(inputs) == expected
        assert inputs.dtype == torch.uint8
    true = SET.train_labels[positions(split.train_inputs)]
    assert int((split.train_labels != true).sum()) == round(noise * len(true))
    assert torch.equal(split.test_labels, SET.test_labels[positions(split.test_inputs)])
    assert split.num_classes == len(CLASSES)
    assert split.source["pixels"] == SET.pixels


def test_noise_goes_by_the_seed_and_leaves_the_set_as_it_is() -> None:
    before = SET.train_labels.clone()
    first, again, other = (
        image_split(SET, train_images=0, test_images=0, label_noise=0.4, seed=seed).train_labels for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(SET.train_labels, before)
    assert set(first.tolist()) == set(range(10))


def test_noise_is_drawn_as_for_the_equations() -> None:
    """One stream and one rule: as many train labels in as many classes are hit in the same places."""
    noisy, clean = (modular_arithmetic("x+y", 10, seed=5, label_noise=noise) for noise in (0.3, 0.0))
    split = image_split(set_of(50, 10), train_images=0, test_images=0, label_noise=0.3, seed=5)
    shifts = (noisy.train_labels - clean.train_labels) % 10
    assert torch.equal((split.train_labels - torch.arange(50) * 7) % 10, shifts)


@pytest.mark.parametrize(
    ("train", "test", "noise", "words"),
    [
        (25, 0, 0.0, "--train-images must be a multiple of 10"),
        (0, 5, 0.0, "--test-images must be a multiple of 10"),
        (-10, 0, 0.0, "--train-images must be a multiple of 10"),
        (410, 0, 0.0, "--train-images is 410, but the set has 400"),
        (0, 310, 0.0, "--test-images is 310, but the set has 300"),
        (0, 0, 1.0, "label noise"),
        (0, 0, -0.1, "label noise"),
        (0, 0, float("nan"), "label noise"),
    ],
)
def test_splits_that_are_refused(train: int, test: int, noise: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        image_split(SET, train_images=train, test_images=test, label_noise=noise, seed=0)
