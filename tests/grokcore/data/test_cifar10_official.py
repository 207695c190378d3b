"""The official distribution: checksums first, then content that must be CIFAR-10's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from grokcore import UsageError
from grokcore.data import cifar10_pickle
from grokcore.data.cifar10 import load_cifar10
from grokcore.data.cifar10_official import ARCHIVE, FOLDER, OFFICIAL, read_archive, read_folder
from grokcore.data.cifar10_pickle import parse_batch
from tests.grokcore.data.tiny_cifar10 import (
    batches,
    checksums,
    official_files,
    python2_batch,
    write_files,
    write_official_archive,
    write_official_folder,
    write_tar,
)

IMAGES = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)


def test_python_2_pickles_give_their_arrays() -> None:
    for images, labels in batches().values():
        content = python2_batch(images, labels)
        plain = pickle.loads(content, encoding="bytes")
        found = parse_batch(content, "here")
        assert np.array_equal(plain[b"data"], images)
        assert np.array_equal(found[0], images)
        assert found[1].tolist() == labels == plain[b"labels"]


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_spellings_of_the_same(protocol: int, order: str) -> None:
    content = pickle.dumps({b"data": np.array(IMAGES, order=order), b"labels": [3, 9]}, protocol=protocol)
    spellings = {content}
    if protocol < 4:  # later protocols have a name's length before it
        spellings.add(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        assert len(spellings) == 2
    for spelling in spellings:
        images, labels = parse_batch(spelling, "here")
        assert np.array_equal(images, IMAGES)
        assert labels.tolist() == [3, 9]


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickling anything is an error that no test expects."""
    monkeypatch.setattr(cifar10_pickle, "_ArrayUnpickler", None)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize("damage", ["one bit", "truncated", "longer", "empty"])
def test_a_wrong_checksum_is_refused_unopened(form: str, damage: str, tmp_path: Path) -> None:
    write = write_official_archive if form == "archive" else write_official_folder
    official = write(tmp_path)
    path = tmp_path / (ARCHIVE if form == "archive" else f"{FOLDER}/data_batch_1")
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "truncated": content[:middle],
        "longer": content + b"\0",
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(UsageError, match=rf"{path.name} is damaged or another file and was not opened: its MD5 is "):
        load_cifar10(tmp_path, cache=tmp_path / "cache", official=official)
    assert path.read_bytes() == damaged[damage]
    assert not list((tmp_path / "cache" / "decoded").glob("*.images"))


@pytest.mark.usefixtures("unopened")
def test_tiny_sets_do_not_have_the_official_checksums(tmp_path: Path) -> None:
    write_official_archive(tmp_path)
    write_official_folder(tmp_path)
    with pytest.raises(UsageError, match=OFFICIAL.archive_md5):
        read_archive(tmp_path / ARCHIVE)
    with pytest.raises(UsageError, match=OFFICIAL.batch_md5["data_batch_1"]):
        read_folder(tmp_path / FOLDER)


def test_the_official_checksums_are_whole() -> None:
    sums = [OFFICIAL.archive_md5, *OFFICIAL.batch_md5.values()]
    assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in sums)
    assert len(set(sums)) == 7
    assert list(OFFICIAL.batch_md5) == [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def test_a_batch_is_missing(tmp_path: Path) -> None:
    files = official_files()
    official = checksums(files)
    del files["data_batch_3"], files["test_batch"]
    write_files(tmp_path / FOLDER, files)
    with pytest.raises(UsageError, match="incomplete: data_batch_3, test_batch missing"):
        read_folder(tmp_path / FOLDER, official)
    write_tar(tmp_path / "a.tar.gz", {f"{FOLDER}/{name}": content for name, content in files.items()})
    official = checksums(official_files(), (tmp_path / "a.tar.gz").read_bytes())
    with pytest.raises(UsageError, match="incomplete: data_batch_3, test_batch missing"):
        read_archive(tmp_path / "a.tar.gz", official)


def test_an_archive_is_read_in_place_whatever_else_it_holds(tmp_path: Path) -> None:
    files = {f"{FOLDER}/{name}": content for name, content in official_files().items()}
    strange = {"../escaped": b"1", "/absolute": b"2", f"{FOLDER}/../../escaped": b"3", f"{FOLDER}/readme.html": b"4"}
    write_tar(tmp_path / "in" / "a.tar.gz", files | strange)
    official = checksums(official_files(), (tmp_path / "in" / "a.tar.gz").read_bytes())
    assert len(read_archive(tmp_path / "in" / "a.tar.gz", official).train_labels) == 60
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "in"]


def batch(**changes: object) -> bytes:
    return pickle.dumps({b"data": IMAGES, b"labels": [0, 9]} | {k.encode(): v for k, v in changes.items()}, protocol=3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a batch"),
        (b"text", "not a batch"),
        (b"\x80\x02}(" * 100_000, "not a batch"),
        (pickle.dumps([1, 2]), "no data and labels"),
        (pickle.dumps({b"data": IMAGES}, protocol=2), "no data and labels"),
        (pickle.dumps({b"data": IMAGES, b"fine_labels": [0, 9]}, protocol=2), "no data and labels"),
        (batch(data=IMAGES[:, :-1]), "no array of bytes"),
        (batch(data=IMAGES[:0], labels=[]), "no array of bytes"),
        (batch(data=IMAGES.reshape(2, 3, 32, 32)), "no array of bytes"),
        (batch(data=IMAGES.astype(np.int8)), "not of bytes"),
        (batch(data=IMAGES.astype(np.float64)), "not of bytes"),
        (batch(data=IMAGES.tobytes()), "no array of bytes"),
        (batch(data=[[0] * 3072] * 2), "no array of bytes"),
        (b"\x80\x04\x8c\x01a\x8c\x03b\nc\x93.", "asks for 'a.b"),
        (batch(labels=[0]), "no list of 2"),
        (batch(labels=(0, 9)), "no list of 2"),
        (batch(labels=[0, 10]), "not one of 0 to 9"),
        (batch(labels=[0, -1]), "not one of 0 to 9"),
        (batch(labels=[0, 1.0]), "not one of 0 to 9"),
        (batch(labels=[0, True]), "not one of 0 to 9"),
    ],
)
def test_content_that_is_no_batch(content: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        parse_batch(content, "here")
    assert str(error.value).startswith("here is not a batch of CIFAR-10: ")
    assert "\n" not in str(error.value)
