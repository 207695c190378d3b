"""Checkpoints: written atomically, read without unpickling code, refused when damaged or foreign."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from grokcore.errors import UsageError
from grokcore.files import sync_folder

MAGIC = b"grokcore checkpoint 1 "


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a crash leaves either the old file or the new one, whole.

    The file is one line, ``grokcore checkpoint 1 <sha256 of the rest>``, and then what torch.save writes.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(_header(payload))
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of :func:`save_checkpoint` onto the CPU; ``load_state`` moves what it must.

    Raises:
        UsageError: the file cannot be read, is damaged (its hash tells), or is no grokcore checkpoint.
    """
    advice = "nothing was changed: put it back, or start anew beside it with --fresh"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the checkpoint {path} cannot be read ({error.strerror}); {advice}") from None
    header, newline, payload = content.partition(b"\n")
    if not header.startswith(MAGIC):
        raise UsageError(f"{path} is not a checkpoint of this program; {advice}")
    if header + newline != _header(payload):
        raise UsageError(f"the checkpoint {path} is damaged: its hash does not match; {advice}")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        state = None  # something that would have to be run to be read
    if not isinstance(state, dict):
        raise UsageError(f"{path} is not a checkpoint of this program; {advice}")
    return state


def _header(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
