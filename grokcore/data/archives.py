"""Tar archives, compressed or not, read in memory: nothing is extracted to disk, and damage is an error by name."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grokcore.errors import UsageError


class DamagedArchiveError(UsageError):
    """A file that is no tar archive, or not a whole one."""


def read_members(
    path: Path, wanted: Callable[[tarfile.TarInfo], bool], content: bytes | None = None
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member that is `wanted`, which must be a file, in the archive's order.

    Args:
        path: of the archive, for messages too.
        content: the archive's bytes, where they are in memory already.

    Raises:
        DamagedArchiveError: it is no archive, or breaks off.
        OSError: it cannot be read.
    """
    with _opened(path, content) as archive:
        for member in archive:
            if wanted(member):
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise UsageError(f"{path} holds {member.name!r}, which is no file")
                yield member.name, file.read()
        # tarfile takes a damaged or missing header for the end of the archive.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off")
        while archive.fileobj.read(1 << 20):  # to where a compressed file has its checksum
            pass


def first_file(path: Path) -> str:
    """The name of the first member that is no folder; empty where there is none.

    Raises:
        DamagedArchiveError: it is no archive, or breaks off before.
        OSError: it cannot be read.
    """
    with _opened(path, None) as archive:
        return next((member.name for member in archive if not member.isdir()), "")


@contextmanager
def _opened(path: Path, content: bytes | None) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, fileobj=None if content is None else io.BytesIO(content)) as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not a decompressor's
            raise
        words = str(error).partition("\n")[0].rstrip(":")
        raise DamagedArchiveError(f"{path} is damaged or no tar archive ({words})") from None
