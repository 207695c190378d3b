"""Ratios against baselines measured in the same run.

    python -m benchmarks                 every benchmark
    python -m benchmarks training        one of them
    python -m benchmarks training --json out.json

Machines are noisy and ratios hold: compare the ratio columns, not the times.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import training
from benchmarks.row import Row, table
from grokcore.commandline import OneLineParser, run_command
from grokcore.training.provenance import device_words

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {"training": training.run}


def main(argv: Sequence[str]) -> int:
    """The command line; exit code 0 whatever the numbers are."""
    parser = OneLineParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    words = parser.parse_args(argv)
    unknown = [name for name in words.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r} (benchmarks: {', '.join(BENCHMARKS)})")
    if words.threads < 1:
        parser.error("--threads must be at least 1")
    torch.set_num_threads(words.threads)
    machine = f"{device_words(torch.device('cpu'))}, {words.threads} threads, torch {torch.__version__}"
    print(machine)
    rows = [row for name in words.names or BENCHMARKS for row in BENCHMARKS[name]()]
    print(table(rows))
    if words.json:
        content = {"machine": machine, "python": platform.python_version(), "rows": [row.as_dict() for row in rows]}
        words.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
