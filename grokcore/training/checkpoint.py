"""Checkpoints: written atomically, read without unpickling code, refused when damaged or foreign."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from grokcore.errors import UsageError

FORMAT = "grokcore checkpoint 1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a crash leaves either the old file or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state | {"format": FORMAT}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of :func:`save_checkpoint` onto the CPU; ``load_state`` moves what it must.

    Raises:
        UsageError: the file cannot be read, is damaged, or is no grokcore checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"the checkpoint {path} is damaged or foreign ({type(error).__name__}); nothing was changed: "
            "put it back, or start anew beside it with --fresh"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a checkpoint of this program; nothing was changed: "
            "put the right one back, or start anew beside it with --fresh"
        )
    return state


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a text file in one move."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
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
