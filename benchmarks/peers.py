"""Public libraries in a process of their own, timed in turns with ours.

``make peers`` puts them into a folder beside the checkout, without what they depend on: that process runs our
interpreter and our PyTorch, and alone has the folder on its path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from types import TracebackType

import torch

from benchmarks.timing import Stopwatch
from grokcore.errors import UsageError
from grokcore.files import ROOT

FOLDER = ROOT / ".venv-peers"


class Peers:
    """The process, :mod:`benchmarks.peer_process`; it ends with the context."""

    def __init__(self, device: torch.device) -> None:
        paths = (str(ROOT), str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")]))
        command = (sys.executable, "-W", "ignore", "-m", "benchmarks.peer_process")
        self._process = subprocess.Popen(
            (*command, str(torch.get_num_threads()), str(device)),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def installed() -> bool:
        """Whether ``make peers`` has finished here."""
        return (FOLDER / ".installed").exists()

    def value(self, name: str) -> float:
        """What this piece of work computes."""
        return self._answer(name, 1)["value"]

    def stopwatch(self, name: str) -> Stopwatch:
        """Times calls of a piece of work in that process, by its own clock."""
        return partial(self._seconds, name)

    def __enter__(self) -> Peers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _seconds(self, name: str, count: int) -> float:
        return self._answer(name, count)["seconds"]

    def _answer(self, name: str, count: int) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps({"name": name, "count": count}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise UsageError(f"the peers in {FOLDER.name} failed at {name!r}, as said above; make peers renews them")
        answer: dict[str, float] = json.loads(line)
        return answer
