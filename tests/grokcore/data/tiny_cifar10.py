"""Small sets in the forms in which CIFAR-10 is distributed: 32x32 images whose class shows in colour and stripes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grokcore.data.cifar10 import CLASSES
from grokcore.data.cifar10_official import ARCHIVE, FOLDER, OFFICIAL, Distribution


def tiny_images(labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Images (n, 3, 32, 32): a class has its colour, and stripes of its own width; noise on top."""
    stream = np.random.default_rng(seed)
    phase = stream.integers(0, 32, size=(len(labels), 1, 1, 1))
    rows = (np.arange(32).reshape(1, 1, 32, 1) + phase) * (labels.reshape(-1, 1, 1, 1) + 1) // 16 % 2
    colour = np.random.default_rng(0).integers(40, 160, size=(10, 3))[labels].reshape(-1, 3, 1, 1)
    noise = stream.integers(-20, 21, size=(len(labels), 3, 32, 32))
    return (colour + 50 * rows + noise).astype(np.uint8)


def jpeg(image: NDArray[np.uint8], **options: object) -> bytes:
    """One image (3, h, w) as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def jpeg_files(per_class_train: int = 6, per_class_test: int = 3) -> dict[str, bytes]:
    """Content by name, ``train|test/CLASS/NNNN.jpg``."""
    files = {}
    for seed, (chosen, count) in enumerate((("train", per_class_train), ("test", per_class_test))):
        labels = np.arange(10).repeat(count)
        for i, image in enumerate(tiny_images(labels, seed)):
            files[f"{chosen}/{CLASSES[i // count]}/{i % count:04d}.jpg"] = jpeg(image)
    return files


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar of files, compressed as its name ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compression = path.suffix[1:] if path.suffix[1:] in ("gz", "xz", "bz2") else ""
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Files, by their names in a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_jpeg_tar(path: Path, per_class_train: int = 6, per_class_test: int = 3) -> None:
    """A tiny CIFAR-10 (JPEG) in a tar, compressed as its name ends."""
    write_tar(path, jpeg_files(per_class_train, per_class_test))


def write_jpeg_folder(path: Path, per_class_train: int = 6, per_class_test: int = 3) -> None:
    """The same images in folders ``train`` and ``test`` of `path`."""
    write_files(path, jpeg_files(per_class_train, per_class_test))


def batches(per_class_train: int = 6, per_class_test: int = 3) -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    """Images (n, 3072) and labels of the six official batches, classes in turn; the train set is cut into five."""
    labels = np.arange(10 * per_class_train) % 10
    cuts = np.array_split(np.arange(len(labels)), 5)
    images = tiny_images(labels, 0).reshape(len(labels), -1)
    found = {f"data_batch_{k}": (images[cut], labels[cut].tolist()) for k, cut in enumerate(cuts, start=1)}
    labels = np.arange(10 * per_class_test) % 10
    return found | {"test_batch": (tiny_images(labels, 1).reshape(len(labels), -1), labels.tolist())}


def official_files(per_class_train: int = 6, per_class_test: int = 3) -> dict[str, bytes]:
    """Content of the six official files by name, pickled as Python 2 did."""
    made = batches(per_class_train, per_class_test)
    return {name: python2_batch(images, labels) for name, (images, labels) in made.items()}


def checksums(files: dict[str, bytes], archive: bytes = b"", url: str = OFFICIAL.url) -> Distribution:
    """What stands for the official checksums of these files."""
    return Distribution(url, _md5(archive), {name: _md5(content) for name, content in files.items()})


def write_official_folder(path: Path, per_class_train: int = 6, per_class_test: int = 3) -> Distribution:
    """A tiny official set in the folder ``cifar-10-batches-py`` of `path`."""
    files = official_files(per_class_train, per_class_test)
    write_files(path / FOLDER, files)
    return checksums(files)


def write_official_archive(path: Path, per_class_train: int = 6, per_class_test: int = 3) -> Distribution:
    """The same in an archive ``cifar-10-python.tar.gz`` in the folder `path`."""
    files = official_files(per_class_train, per_class_test)
    write_tar(path / ARCHIVE, {f"{FOLDER}/{name}": content for name, content in files.items()})
    return checksums(files, (path / ARCHIVE).read_bytes())


def python2_batch(images: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The pickle, protocol 2, that Python 2 and its numpy wrote: strings are bytes, modules have their old names."""
    kind = b"cnumpy\ndtype\n(" + _string(b"u1") + b"K\x00K\x01tR"
    kind += b"(K\x03" + _string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = _number(images.shape[0]) + _number(images.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + _string(b"b") + b"tR"
    array += b"(K\x01" + shape + kind + b"\x89" + _string(images.tobytes()) + b"tb"
    names = b"](" + b"".join(_string(b"tiny_%06d.png" % i) for i in range(len(labels))) + b"e"
    items = {b"batch_label": _string(b"tiny batch"), b"data": array, b"filenames": names}
    items[b"labels"] = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + b"".join(_string(key) + value for key, value in items.items()) + b"u."


def _string(content: bytes) -> bytes:
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + len(content).to_bytes(4, "little") + content


def _number(value: int) -> bytes:
    return b"M" + value.to_bytes(2, "little")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
