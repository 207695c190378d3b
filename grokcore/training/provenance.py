"""Where a run comes from: library versions, code version, hardware."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy
import torch

from grokcore.files import ROOT


def origin(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, commit, device and threads, for config.json and recorded results."""
    versions = {
        "grokcore": _version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
    return {
        "versions": versions,
        "commit": commit(),
        "device": device_words(device),
        "threads": threads,
    }


def commit() -> str:
    """The checkout's commit, ending in ``-dirty`` where tracked code differs; ``unknown`` outside git."""
    code = ("grokcore", "theory", "experiments", "pyproject.toml")
    try:
        head = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", *code).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changed else "")


def device_words(device: torch.device) -> str:
    """The name of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else (platform.processor() or platform.machine())


def _version() -> str:
    from grokcore import __version__  # late: grokcore imports are still running when this file loads

    return __version__


def _git(*words: str) -> str:
    done = subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout
