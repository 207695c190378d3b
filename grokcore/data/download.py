"""A file fetched over the network: gone on with where it broke off, in its place only once its checksum matched."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from grokcore.data.exclusive import exclusive
from grokcore.errors import UsageError
from grokcore.files import sync_folder

TIMEOUT_S = 30.0
"""A server that sends nothing for so long has broken off."""
_PIECE = 1 << 16


class _BrokenOffError(Exception):
    """The server cannot be reached, or stopped before the end."""


def download(url: str, path: Path, md5: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Fetch `url` to `path` if nothing is there yet; its MD5 must be `md5`.

    What has come so far lies in ``<path>.part``, and an HTTP Range request asks for the rest; a server that knows no
    ranges sends everything again. One process at a time works on it, another waits.

    Raises:
        UsageError: the server cannot be reached or stopped before the end (the part stays), the checksum does not
            match (the part is deleted), the folder cannot be written.
    """
    try:
        with exclusive(path):
            if not path.exists():
                part = path.with_name(path.name + ".part")
                print(f"fetching {url} to {path}", file=sys.stderr, flush=True)
                _complete(url, part, md5, timeout_s)
                os.replace(part, path)
                sync_folder(path.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {error.filename or path}: {error.strerror or error}") from None


def _complete(url: str, part: Path, md5: str, timeout_s: float) -> None:
    """Receive until the part is whole, over as many connections as it takes while each brings something."""
    if _size(part) and _md5(part) == md5:  # stopped between the last byte and the move
        return
    while True:
        have = _size(part)
        try:
            _receive(url, part, have, timeout_s)
            break
        except _BrokenOffError as reason:
            if (now := _size(part)) <= have:
                kept = f"{now / 1e6:.1f} MB are kept in {part}, and the same command goes on from there"
                raise UsageError(f"cannot fetch {url} ({reason}); {kept if now else 'nothing was changed'}") from None
    if (found := _md5(part)) != md5:
        part.unlink()
        raise UsageError(f"{url} sent a file with the MD5 {found} instead of {md5}; it was deleted, try again")


def _receive(url: str, part: Path, have: int, timeout_s: float) -> None:
    """Add to the `have` bytes of the part what the server still has, or put everything in their place."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        reply = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise _BrokenOffError(f"the server says {error.code} {error.reason}") from None
        part.unlink()  # as long as the file or longer, and not the file
        return _receive(url, part, 0, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(getattr(error, "reason", None) or error) from None
    with reply:
        resumed = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _BrokenOffError("the server answers another range than was asked for")
        if reply.headers.get_content_type() == "text/html":  # of a network that wants a login
            raise _BrokenOffError("a web page came in its place")
        length = reply.headers.get("Content-Length", "")
        start = have if resumed else 0
        total = start + int(length) if length.isdecimal() else None
        bar = tqdm(
            desc=part.name.removesuffix(".part"),
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        with bar, open(part, "ab" if resumed else "wb") as file:
            for piece in _pieces(reply):
                file.write(piece)
                bar.update(len(piece))
    if total is not None and _size(part) < total:
        raise _BrokenOffError("the connection closed before the end")


def _pieces(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            piece = reply.read1(_PIECE)  # what has come so far: read would lose it where it times out
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(error) from None
        if not piece:
            return
        yield piece


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
