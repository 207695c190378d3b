"""Downloads, from a server on this machine: resumed, checked, and nothing lost where it goes wrong."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grokcore import UsageError
from grokcore.data.cifar10 import load_cifar10
from grokcore.data.cifar10_official import ARCHIVE, Distribution
from grokcore.data.download import download
from tests.grokcore.data.tiny_cifar10 import write_jpeg_tar, write_official_archive

CONTENT = np.random.default_rng(0).bytes(500_000)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under every path, badly if told so."""

    content = CONTENT
    ranges = True
    """Whether it knows Range requests."""
    breaks: list[int]
    """After how many bytes each connection breaks off, until they are used up."""
    status = 200
    length = True
    """Whether it says how much it will send."""
    wrong_range = False
    kind = "application/x-gzip"
    stalls = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.asked = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"
        self.over = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + server.wrong_range
            self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Type", server.kind)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)
        if server.stalls:
            server.over.wait(20)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "file.bin"


def part(path: Path) -> Path:
    return path.with_name("file.bin.part")


def left(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir() if each.suffix != ".lock"}


def test_a_file_comes_whole_and_only_once(server: Server, path: Path) -> None:
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert left(path) == {"file.bin"}
    download(server.url, path, md5(CONTENT))
    assert server.asked == [None]


def test_a_connection_that_breaks_off_is_gone_on_with(server: Server, path: Path) -> None:
    server.breaks = [200_000, 150_000, 1]
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=200000-", "bytes=350000-", "bytes=350001-"]


def test_a_part_of_an_earlier_process_is_gone_on_with(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(CONTENT[:123_456])
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=123456-"]


def test_a_server_without_ranges_sends_everything_again(server: Server, path: Path) -> None:
    server.ranges = False
    path.parent.mkdir()
    part(path).write_bytes(b"x" * 123_456)
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=123456-"]


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(server: Server, path: Path) -> None:
    server.ranges, server.breaks = False, [200_000] * 100
    with pytest.raises(UsageError, match=r"the connection closed before the end\); 0.2 MB are kept in .*file.bin.part"):
        download(server.url, path, md5(CONTENT))
    assert part(path).read_bytes() == CONTENT[:200_000]
    assert len(server.asked) == 2
    server.breaks, server.ranges = [], True
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_server_that_stalls(server: Server, path: Path) -> None:
    server.breaks, server.stalls = [100_000, 0], True
    with pytest.raises(UsageError, match=r"timed out\); 0.1 MB are kept"):
        download(server.url, path, md5(CONTENT), timeout_s=0.2)
    assert part(path).read_bytes() == CONTENT[:100_000]


def test_a_server_that_does_not_say_how_much_comes(server: Server, path: Path) -> None:
    server.length = False
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("before", [0, 100])
def test_wrong_content_is_deleted_and_said(before: int, server: Server, path: Path) -> None:
    server.content = CONTENT[:-1] + b"?"
    path.parent.mkdir()
    if before:
        part(path).write_bytes(CONTENT[:before])
    with pytest.raises(UsageError, match=f"sent a file with the MD5 {md5(server.content)} instead of {md5(CONTENT)}"):
        download(server.url, path, md5(CONTENT))
    assert left(path) == set()
    server.content = CONTENT
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_whole_part_is_taken_without_a_server(path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)
    download("http://127.0.0.1:9/file.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(CONTENT + b"more")
    download(server.url, path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=500004-", None]


def test_another_range_than_asked_for_is_not_joined(server: Server, path: Path) -> None:
    server.wrong_range = True
    path.parent.mkdir()
    part(path).write_bytes(CONTENT[:1000])
    with pytest.raises(UsageError, match="another range"):
        download(server.url, path, md5(CONTENT))
    assert part(path).read_bytes() == CONTENT[:1000]


def test_a_web_page_does_not_take_the_parts_place(server: Server, path: Path) -> None:
    server.ranges, server.kind = False, "text/html; charset=utf-8"
    path.parent.mkdir()
    part(path).write_bytes(CONTENT[:1000])
    with pytest.raises(UsageError, match=r"a web page came in its place\); 0.0 MB are kept"):
        download(server.url, path, md5(CONTENT))
    assert part(path).read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("kept", [0, 2_000_000])
@pytest.mark.parametrize("status", [None, 404, 503])
def test_no_server_or_no_file_is_one_line_and_loses_nothing(
    kept: int, status: int | None, server: Server, path: Path
) -> None:
    path.parent.mkdir()
    if kept:
        part(path).write_bytes(b"x" * kept)
    if status is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
    else:
        server.status, url = status, server.url
    words = "Connection refused" if status is None else f"the server says {status}"
    end = (
        "2.0 MB are kept in .*file.bin.part, and the same command goes on from there" if kept else "nothing was changed"
    )
    with pytest.raises(UsageError, match=rf"cannot fetch {url} \(.*{words}.*\); {end}$") as error:
        download(url, path, md5(CONTENT))
    assert "\n" not in str(error.value)
    assert left(path) == ({"file.bin.part"} if kept else set())


def test_a_name_that_is_not_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UsageError, match=r"name resolution.*nothing was changed"):
        download("https://www.example.org/file.bin", path, md5(CONTENT))


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot write to .*made"):
        download(server.url, tmp_path / "made" / "file.bin", md5(CONTENT))


def test_a_full_disk_is_one_line(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        download(server.url, path, md5(CONTENT))
    assert part(path).read_bytes() == CONTENT


def test_two_at_once_fetch_it_once(server: Server, path: Path) -> None:
    threads = [threading.Thread(target=download, args=(server.url, path, md5(CONTENT))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


@pytest.fixture
def official(server: Server, tmp_path: Path) -> Distribution:
    made = write_official_archive(tmp_path / "upstream")
    server.content = (tmp_path / "upstream" / ARCHIVE).read_bytes()
    return Distribution(server.url, made.archive_md5, made.batch_md5)


@pytest.mark.usefixtures("elsewhere")
def test_cifar10_is_fetched_into_the_cache_where_nothing_is_found(
    official: Distribution, server: Server, tmp_path: Path
) -> None:
    server.breaks = [1000]
    first = load_cifar10(download=True, official=official)
    again = load_cifar10(official=official)
    assert first.name == "CIFAR-10"
    assert first.pixels == again.pixels
    assert len(first.train_labels) == 60
    assert server.asked == [None, "bytes=1000-"]
    assert (tmp_path / "cache" / "cifar10" / ARCHIVE).read_bytes() == server.content


def test_nothing_is_fetched_where_something_is_found_or_nobody_asked(
    official: Distribution, server: Server, elsewhere: Path
) -> None:
    with pytest.raises(UsageError, match="--download"):
        load_cifar10(official=official)
    write_jpeg_tar(elsewhere / "cifar10" / "cifar10-jpeg.tar")
    assert load_cifar10(download=True, official=official).name == "CIFAR-10 (JPEG)"
    assert server.asked == []


@pytest.mark.usefixtures("elsewhere")
def test_progress_is_shown_on_a_terminal_alone(
    official: Distribution, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_cifar10(download=True, official=official)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"fetching {official.url} to ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("GROKCORE_CACHE", str(Path(os.environ["GROKCORE_CACHE"]) / "other"))
    load_cifar10(download=True, official=official)
    assert "B/s" in capsys.readouterr().err
