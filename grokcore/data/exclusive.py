"""One process at a time, where several would make the same file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the right to make `path`, whose folder is made too; yields whether another process had to be waited for.

    The right ends with the process, however that ends.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"note: waiting for another process that makes {path}", file=sys.stderr, flush=True)
        lock.acquire()
        waited = True
    try:
        yield waited
    finally:
        lock.release()
