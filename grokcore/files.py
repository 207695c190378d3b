"""Where the checkout is, and files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout; of an installed package, the folder that it is installed in."""


def write_text_atomically(path: Path, text: str) -> None:
    """:func:`write_bytes_atomically` of a text in UTF-8."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one move; a file that stands there passes on its permissions."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, temporary)
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows has no folder handles
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
