"""From nothing to a figure: the experiments that it needs, as processes, their results, and the drawing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from grokcore.commandline import STOPPED
from grokcore.errors import UsageError
from paper.catalogue import PaperFigure
from paper.drawing import Drawing, draw
from paper.recorded import Need, refresh, settings

QUICK = "quick"
"""Folder below the runs' of what quick versions leave: runs, results and figures."""
Words = tuple[str, ...]


def commands_of(needs: Sequence[Need]) -> list[Words]:
    """The commands of all needs, each once with all its seeds, trunks before their forks."""
    found: dict[Words, set[int]] = {}

    def add(need: Need) -> None:
        if need.after is not None:
            add(need.after)
        found.setdefault(need.words, set()).update(need.seeds)

    for need in needs:
        add(need)
    return [(*words, "--seeds", *map(str, sorted(seeds))) for words, seeds in found.items()]


def reproduce(figure: PaperFigure, *, quick: bool, runs: Path, results: Path, folder: Path, dry: bool = False) -> Path:
    """Run what is missing, refresh the results and draw the figure; returns its PNG.

    A finished run says so and costs nothing; a killed one goes on. A quick version is seed 0 of `figure.quick`, with
    runs, results and figure of its own below ``runs/quick``: nothing recorded is touched.

    Raises:
        UsageError: an experiment failed; what is finished stays.
    """
    if quick:
        runs = runs / QUICK / figure.name
        results, folder = runs / "results", runs / "figures"
        commands = [(*words, "--seeds", "0") for words in figure.quick]
    else:
        commands = commands_of(figure.needs)
    for number, words in enumerate(commands, 1):
        command = (sys.executable, "-m", *words, "--runs", str(runs))
        print(f"[{number}/{len(commands)}] {shlex.join(('python', *command[1:]))}", flush=True)
        if not dry and _run(command):
            raise UsageError(f"{words[0]} failed; the same command goes on where it stopped")
    if dry:
        return folder / f"{figure.name}.png"
    if commands:
        refresh(runs, results)
    records = [r for each in settings(results).values() for r in each] if quick else figure.records(results)
    draw([Drawing(figure.name, records, lambda: figure.draw(records))], results, folder)
    return folder / f"{figure.name}.png"


def _run(command: Words) -> int:
    """Its exit code. Ctrl-C reaches the command too, which is given the time to write its checkpoint.

    Raises:
        KeyboardInterrupt: the command was stopped.
    """
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        code = STOPPED
    if code == STOPPED:
        raise KeyboardInterrupt("stopped; the same command goes on from there")
    return code
