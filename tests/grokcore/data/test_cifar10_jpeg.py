"""CIFAR-10 (JPEG): everything that is not ten classes of 32x32 JPEGs is refused, by name."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grokcore import UsageError
from grokcore.data.cifar10 import CLASSES, load_cifar10
from grokcore.data.cifar10_jpeg import read_folder, read_tar
from tests.grokcore.data.tiny_cifar10 import jpeg, jpeg_files, write_files, write_jpeg_folder, write_tar

FILES, SMALL = jpeg_files(2, 1), jpeg_files(1, 1)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def plain(height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((3, height, width), 100, dtype=np.uint8)


def grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(plain()[0]).save(buffer, "JPEG")
    return buffer.getvalue()


def huge() -> bytes:
    """Claims 60000x60000 pixels in its header."""
    content = jpeg(plain())
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + b"\xea\x60\xea\x60" + content[at + 4 :]


WRONG_IMAGES = {
    "another size": (jpeg(plain(32, 31)), r"has 31x32 pixels of mode RGB, not 32x32 of RGB"),
    "grey": (grey(), "has 32x32 pixels of mode L, not 32x32 of RGB"),
    "huge": (huge(), "damaged or no JPEG"),
    "PNG": (png(plain().transpose(1, 2, 0)), "damaged or no JPEG"),
    "text": (b"no image", "damaged or no JPEG"),
    "empty": (b"", "damaged or no JPEG"),
    "truncated": (FILES["train/cat/0001.jpg"][:-200], "damaged or no JPEG"),
    "only its head": (FILES["train/cat/0001.jpg"][:200], "damaged or no JPEG"),
}


@pytest.mark.parametrize("wrong", WRONG_IMAGES)
@pytest.mark.parametrize("form", ["tar", "folder"])
def test_an_image_that_is_none_is_named(wrong: str, form: str, tmp_path: Path) -> None:
    content, words = WRONG_IMAGES[wrong]
    files = FILES | {"train/cat/0001.jpg": content}
    write_tar(tmp_path / "a.tar", files)
    write_files(tmp_path / "folder", files)
    with pytest.raises(UsageError, match=rf"(a.tar|folder): train/cat/0001.jpg .*{words}") as error:
        read_tar(tmp_path / "a.tar", CLASSES) if form == "tar" else read_folder(tmp_path / "folder", CLASSES)
    assert "\n" not in str(error.value)


def without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(start)}


OTHER = {f"{chosen}/{label}/0000.jpg": b"" for chosen in ("train", "test") for label in "abcdefgh"}
WRONG_SETS = {
    "a class is missing": (without(FILES, "train/cat"), r"classes in train of .* not CIFAR-10's: it lacks 'cat'$"),
    "from test": (without(FILES, "test/dog"), r"classes in test of .* it lacks 'dog'$"),
    "a class too many": (FILES | {"train/apple/0000.jpg": b""}, r"classes in train of .* it has 'apple'$"),
    "other classes": (OTHER, r"it has 'a', 'b', 'c', 'd', 'e' and 3 more and it lacks 'airplane', .* and 5 more$"),
    "no test": (without(FILES, "test"), "classes in test of .* it lacks"),
    "no train": (without(FILES, "train"), "classes in train of .* it lacks"),
    "an image is missing": (without(FILES, "train/cat/0001"), "incomplete: train/cat has 1 images and train/.* 2$"),
    "another file": (FILES | {"train/cat/notes.txt": b""}, "holds 'train/cat/notes.txt', which is no file"),
    "another ending": (FILES | {"train/cat/0002.png": b""}, "holds 'train/cat/0002.png', which is no file"),
    "no number": (FILES | {"train/cat/._0000.jpg": b""}, "holds 'train/cat/._0000.jpg', which is no file"),
    "beside the classes": (FILES | {"train/list.txt": b""}, "holds 'train/list.txt', which is no file"),
    "a line break": (FILES | {"train/c\nat/0000.jpg": b""}, r"it has 'c\\nat'$"),
}


@pytest.mark.parametrize("wrong", WRONG_SETS)
@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_set_that_is_not_the_ten_classes(wrong: str, form: str, tmp_path: Path) -> None:
    files, words = WRONG_SETS[wrong]
    path = tmp_path / ("a.tar.gz" if form == "tar" else "folder")
    write_tar(path, files) if form == "tar" else write_files(path, files)
    with pytest.raises(UsageError, match=words) as error:
        load_cifar10(path, cache=tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache" / "decoded").glob("*.images"))


def test_an_empty_class_folder_is_a_missing_class(tmp_path: Path) -> None:
    write_jpeg_folder(tmp_path / "folder", 1, 1)
    (tmp_path / "folder" / "test" / "frog" / "0000.jpg").unlink()
    with pytest.raises(UsageError, match=r"classes in test of .* it lacks 'frog'$"):
        load_cifar10(tmp_path / "folder", cache=tmp_path / "cache")


def test_folders_and_a_leading_dot_are_no_strangers_in_a_tar(tmp_path: Path) -> None:
    write_files(tmp_path / "folder", FILES)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "folder", arcname=".")
    write_tar(tmp_path / "b.tar", FILES)
    a, b = (load_cifar10(tmp_path / name, cache=tmp_path / "cache") for name in ("a.tar", "b.tar"))
    assert a.pixels == b.pixels


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo("train/cat/0002.jpg")
    member.type, member.linkname = kind, target
    return member


def large() -> tarfile.TarInfo:
    member = tarfile.TarInfo("train/cat/0002.jpg")
    member.size = 1 << 20
    return member


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (special(tarfile.SYMTYPE, "/etc/passwd"), "which is no file"),
        (special(tarfile.SYMTYPE, "0000.jpg"), "which is no file"),
        (special(tarfile.LNKTYPE, "train/cat/0000.jpg"), "which is no file"),
        (special(tarfile.FIFOTYPE), "which is no file"),
        (special(tarfile.CHRTYPE), "which is no file"),
        (tarfile.TarInfo("train/cat/0000.jpg"), "twice"),
        (tarfile.TarInfo("./train/cat/0000.jpg"), "twice"),
        (tarfile.TarInfo("../train/cat/0002.jpg"), "which is no file train"),
        (tarfile.TarInfo("/train/cat/0002.jpg"), "which is no file train"),
        (tarfile.TarInfo("train/cat/../cat/0002.jpg"), "which is no file train"),
        (tarfile.TarInfo("README"), "which is no file train"),
        (large(), "is no 32x32 JPEG: it has 1048576 bytes"),
    ],
)
def test_strange_members(member: tarfile.TarInfo, words: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UsageError, match=words):
        load_cifar10(tmp_path / "a.tar", cache=tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["a.tar"]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_a_truncated_archive_is_an_error_wherever_it_ends(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    write_tar(path, FILES)
    content = path.read_bytes()
    if ending == "tar":  # one block of zeros ends it, and more of them nobody misses
        content = content[: 512 * (2 + len(content.rstrip(b"\0")) // 512)]
    path.write_bytes(content)
    assert read_tar(path, CLASSES).train == 20
    for length in {*range(0, len(content), len(content) // 25), *range(len(content) - 12, len(content))}:
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match="damaged or no tar archive") as error:
            read_tar(path, CLASSES)
        assert "\n" not in str(error.value)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@pytest.mark.parametrize("ending", ["tar.gz", "tar.xz", "tar.bz2"])
def test_a_bit_that_flipped_in_a_compressed_archive_changes_no_pixel(
    ending: str, at: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"flipped.{ending}"
    write_tar(path, SMALL)
    expected = read_tar(path, CLASSES)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = read_tar(path, CLASSES)
    except UsageError:
        return
    assert np.array_equal(found.values, expected.values)  # a byte that says nothing of the content


def test_a_plain_tar_that_ends_between_two_members_is_truncated(tmp_path: Path) -> None:
    """Its reader takes that for the end; in this order the classes left are still ten, of one size."""
    ordered = dict(sorted(FILES.items(), key=lambda item: (item[0].split("/")[0] == "train", item[0][-8:])))
    names = list(ordered)
    first = {name: ordered[name] for name in names[:20]}
    write_tar(tmp_path / "first.tar", first)
    assert len(load_cifar10(tmp_path / "first.tar", cache=tmp_path / "cache").train_labels) == 10
    whole = (tmp_path / "first.tar").read_bytes().rstrip(b"\0")
    cut = -(-len(whole) // 512) * 512
    (tmp_path / "cut.tar").write_bytes((tmp_path / "first.tar").read_bytes()[:cut])
    with pytest.raises(UsageError, match="it breaks off"):
        load_cifar10(tmp_path / "cut.tar", cache=tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "a.tar").chmod(0)
    with pytest.raises(UsageError, match=r"cannot read .*a.tar: Permission denied"):
        load_cifar10(tmp_path / "a.tar", cache=tmp_path / "cache")


def test_a_dangling_link_in_a_folder(tmp_path: Path) -> None:
    write_files(tmp_path / "folder", FILES)
    (tmp_path / "folder" / "train" / "cat" / "0002.jpg").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"cannot read .*0002.jpg"):
        load_cifar10(tmp_path / "folder", cache=tmp_path / "cache")


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    write_files(tmp_path / "there", FILES)
    (tmp_path / "here").symlink_to(tmp_path / "there")
    assert len(load_cifar10(tmp_path / "here", cache=tmp_path / "cache").train_labels) == 20
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(UsageError, match="here does not exist"):
        load_cifar10(tmp_path / "here", cache=tmp_path / "cache")
