"""The cache of decoded images: damage is seen, processes do not disturb each other, and it can be done without."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokcore import UsageError
from grokcore.data.image_cache import Decoded, cached
from grokcore.data.lookup import cache_folder


def decoded(seed: int = 0, train: int = 3, test: int = 2) -> Decoded:
    made = Decoded.empty("a set", train, test)
    made.values[:] = np.random.default_rng(seed).integers(0, 256, size=len(made.values))
    return made


def never() -> Decoded:
    raise AssertionError("decoded where the cache has it")


def test_views_are_the_parts_in_their_order() -> None:
    made = decoded(train=3, test=2)
    parts = (made.train_images, made.train_labels, made.test_images, made.test_labels)
    assert [part.shape for part in parts] == [(3, 3, 32, 32), (3,), (2, 3, 32, 32), (2,)]
    assert np.array_equal(np.concatenate([part.ravel() for part in parts]), made.values)
    assert all(np.shares_memory(part, made.values) for part in parts)


@settings(max_examples=10)
@given(train=st.integers(1, 4), test=st.integers(1, 4), source=st.text(max_size=20), seed=st.integers(0, 9))
def test_what_is_read_is_what_was_written(
    train: int, test: int, source: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    made = decoded(seed, train, test)
    first = cached(folder, source, lambda: made)
    again = cached(folder, source, never)
    assert first[1] == again[1]
    assert (again[0].name, again[0].train, again[0].test) == ("a set", train, test)
    assert np.array_equal(again[0].values, made.values)
    assert again[0].values.flags.writeable


def test_another_source_is_another_file(tmp_path: Path) -> None:
    a, b = (cached(tmp_path, source, lambda seed=seed: decoded(seed)) for seed, source in enumerate("ab"))
    assert a[1] != b[1]
    assert cached(tmp_path, "a", never)[1] == a[1]
    assert cached(tmp_path, "b", never)[1] == b[1]


def test_a_file_under_another_sources_name_is_not_taken(tmp_path: Path) -> None:
    cached(tmp_path, "a", decoded)
    (a,) = tmp_path.glob("*.images")
    content = a.read_bytes()
    cached(tmp_path, "b", lambda: decoded(1))
    (b,) = set(tmp_path.glob("*.images")) - {a}
    b.write_bytes(content)
    assert cached(tmp_path, "b", lambda: decoded(1))[1] != cached(tmp_path, "a", never)[1]


@given(data=st.data())
def test_damage_anywhere_is_seen_and_mended(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cached(folder, "source", decoded)
    (path,) = folder.glob("*.images")
    content = path.read_bytes()
    at = data.draw(st.one_of(st.integers(0, 250), st.integers(0, len(content) - 1)))
    flipped = bytearray(content)
    flipped[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(data.draw(st.sampled_from([bytes(flipped), content[:at], content + bytes(at + 1)])))
    calls: list[int] = []
    found = cached(folder, "source", lambda: calls.append(1) or decoded())
    assert calls == [1]
    assert np.array_equal(found[0].values, decoded().values)
    assert path.read_bytes() == content


def test_damage_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached(tmp_path, "source", decoded)
    assert capsys.readouterr().err == ""
    (path,) = tmp_path.glob("*.images")
    path.write_bytes(b"text")
    cached(tmp_path, "source", decoded)
    assert capsys.readouterr().err == f"note: {path} is damaged (its checksum does not match); decoding anew\n"


def test_an_error_of_the_source_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def refuses() -> Decoded:
        raise UsageError("the source is damaged")

    with pytest.raises(UsageError, match="the source is damaged"):
        cached(tmp_path, "source", refuses)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])
    assert len(cached(tmp_path, "source", decoded)[0].values) == 5 * 3073


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_noted_and_done_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        found = cached(tmp_path, "source", decoded)
    assert np.array_equal(found[0].values, decoded().values)
    said = capsys.readouterr().err
    assert said == f"note: cannot write to {tmp_path} (No space left on device); going on without a cache\n"
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert cached(tmp_path, "source", decoded)[1] == found[1]


def test_a_folder_that_cannot_be_written_is_noted_and_done_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    found = cached(tmp_path / "cache" / "decoded", "source", decoded)
    assert np.array_equal(found[0].values, decoded().values)
    said = capsys.readouterr().err
    assert said.startswith(f"note: cannot write to {tmp_path / 'cache' / 'decoded'} (")
    assert said.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached(tmp_path, "source", decoded)
    tmp_path.chmod(0o500)
    assert cached(tmp_path, "source", never)[0].train == 3
    assert capsys.readouterr().err == ""
    assert cached(tmp_path, "other", decoded)[0].train == 3
    assert "going on without a cache" in capsys.readouterr().err


def test_several_at_once_decode_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def slow() -> Decoded:
        calls.append(1)
        time.sleep(0.2)
        return decoded()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached(tmp_path, "source", slow), range(4)))
    assert calls == [1]
    assert len({digest for _, digest in found}) == 1


HOLDER = """
import sys, time
from pathlib import Path
from grokcore.data.image_cache import cached

def hang():
    print("decoding", flush=True)
    time.sleep(60)

cached(Path(sys.argv[1]), "source", hang)
"""


def test_a_process_that_is_killed_leaves_the_right_to_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "decoding\n"
            waiting = pool.submit(cached, tmp_path, "source", decoded)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        finally:
            holder.kill()
        assert np.array_equal(waiting.result(timeout=20)[0].values, decoded().values)
    assert "waiting for another process" in capsys.readouterr().err
    assert cached(tmp_path, "source", never)[0].train == 3


def test_where_the_users_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.setenv("GROKCORE_CACHE", "")
    assert cache_folder().name == "grokcore"
    monkeypatch.delenv("GROKCORE_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("grokcore", appauthor=False)
