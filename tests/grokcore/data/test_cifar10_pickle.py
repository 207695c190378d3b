"""Pickles crafted to run code: refused also where their checksum matches, and nothing of them has run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grokcore import UsageError
from grokcore.data import cifar10_pickle
from grokcore.data.cifar10_official import ARCHIVE, FOLDER, read_archive, read_folder
from grokcore.data.cifar10_pickle import parse_batch
from tests.grokcore.data.tiny_cifar10 import checksums, official_files, python2_batch, write_files, write_tar


class Calls:
    """Is pickled as a call."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def makes(mark: Path) -> Calls:
    return Calls(os.mkdir, os.fspath(mark))


def by_numpy_load(mark: Path) -> bytes:
    file = mark.with_name("inner.npy")
    np.save(file, np.array([makes(mark)], dtype=object), allow_pickle=True)
    return pickle.dumps(Calls(np.load, os.fspath(file), None, True))


IMAGES = np.zeros((1, 3072), dtype=np.uint8)

LIVE: dict[str, Callable[[Path], bytes]] = {
    "os.mkdir": lambda mark: pickle.dumps(makes(mark)),
    "os.system": lambda mark: pickle.dumps(Calls(os.system, f"mkdir '{mark}'")),
    "os.system by INST": lambda mark: b"(S'mkdir %s'\nios\nsystem\n." % os.fsencode(mark),
    "builtins.eval": lambda mark: pickle.dumps(Calls(eval, f"__import__('os').mkdir({os.fspath(mark)!r})")),
    "builtins.exec of Python 2": lambda mark: (
        b"c__builtin__\neval\n(S\"__import__('os').mkdir('%s')\"\ntR." % os.fsencode(mark)
    ),
    "numpy.load": by_numpy_load,
    "pickle.loads": lambda mark: pickle.dumps(Calls(pickle.loads, pickle.dumps(makes(mark)))),
    "an array of objects": lambda mark: pickle.dumps({b"data": np.array([makes(mark)], dtype=object)}, protocol=2),
    "labels": lambda mark: pickle.dumps({b"data": IMAGES, b"labels": makes(mark)}, protocol=2),
    "after a batch": lambda mark: pickle.dumps({b"data": IMAGES, b"labels": [1], b"more": makes(mark)}, protocol=4),
}
"""Pickles that make the folder `mark` where they are loaded as any pickle is."""


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_crafted_pickle_is_refused_and_has_not_run(name: str, form: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    files = official_files() | {"data_batch_1": LIVE[name](mark)}
    write_files(tmp_path / FOLDER, files)
    write_tar(tmp_path / ARCHIVE, {f"{FOLDER}/{each}": content for each, content in files.items()})
    matching = checksums(files, (tmp_path / ARCHIVE).read_bytes())
    with pytest.raises(UsageError, match=r"data_batch_1 is not a batch of CIFAR-10: .*(not given|not of bytes)$"):
        read_folder(tmp_path / FOLDER, matching) if form == "folder" else read_archive(tmp_path / ARCHIVE, matching)
    assert not mark.exists()
    pickle.loads(files["data_batch_1"], encoding="bytes")
    assert mark.exists()  # it was live


NUMPY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Pid\n.", "persistent"),
        (b"\x80\x02\x82\x01.", "extension"),
        (b"cnumpy\nload\n.", "asks for 'numpy.load'"),
        (b"cnumpy\nfromfile\n.", "asks for 'numpy.fromfile'"),
        (b"cnumpy.core.multiarray\nscalar\n.", "asks for 'numpy.core.multiarray.scalar'"),
        (b"c_codecs\ndecode\n.", "asks for '_codecs.decode'"),
        (b"ccopy_reg\n_reconstructor\n.", "asks for 'copy_reg._reconstructor'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.", "asks for 'numpy.ndarray.__reduce__'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x09__class__\x93.", "asks for 'numpy.__class__'"),
        (NUMPY + b"(I8\ntR.", "a call of numpy's array class"),
        (NUMPY + b")\x81.", "NEWOBJ"),
        (NUMPY + b"}b.", "a change to a function"),
        (RECONSTRUCT + b"N}S'__defaults__'\nNs\x86b.", "a change to a function"),
        (RECONSTRUCT + b"(c_codecs\nencode\n(I0\ntS'b'\ntR.", "another class than numpy's"),
        (b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.", "not of bytes"),
        (b"cnumpy\ndtype\n((lS'x'\ntR.", "not of bytes"),
        (b"c_codecs\nencode\n(Vtext\nS'zlib_codec'\ntR.", "an encoding that no array has"),
        (RECONSTRUCT + b"(" + NUMPY + b"(I0\ntS'b'\ntR(I1\n(I1\ntNI00\nS'x'\ntb.", "something else than bytes"),
    ],
)
def test_the_names_of_the_format_do_nothing_else(content: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_batch(content, "here")


def test_an_array_cannot_claim_to_be_larger_than_its_bytes() -> None:
    content = python2_batch(IMAGES, [1])
    assert parse_batch(content, "here")[0].shape == (1, 3072)
    with pytest.raises(UsageError, match="reshape"):
        parse_batch(content.replace(b"M\x01\x00M\x00\x0c", b"M\xff\xffM\x00\x0c"), "here")


def test_every_name_is_an_object_of_the_reader() -> None:
    assert {type(each).__module__ for each in cifar10_pickle._NAMES.values()} == {cifar10_pickle.__name__}
