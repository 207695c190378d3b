"""Ratios against baselines measured in the same run.

    python -m benchmarks                 every benchmark, on the CPU and then on the GPU where there is one
    python -m benchmarks head layer      some of them
    python -m benchmarks --device cpu --json out.json

`make peers` installs the public libraries that `layer` compares with. Machines are noisy and ratios hold: compare the
ratio columns, not the times.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import cdnv, cifar10, collapse, dynamics, head, layer, seeds, step, training
from benchmarks.row import Row, table
from grokcore.commandline import OneLineParser, run_command
from grokcore.training.memory import keep_freed_memory
from grokcore.training.provenance import device_words

BENCHMARKS: dict[str, Callable[[torch.device], list[Row]]] = {
    "head": head.run,
    "layer": layer.run,
    "cdnv": cdnv.run,
    "collapse": collapse.run,
    "training": training.run,
    "seeds": seeds.run,
    "step": step.run,
    "cifar10": cifar10.run,
    "dynamics": dynamics.run,
}


def main(argv: Sequence[str]) -> int:
    """The command line; exit code 0 whatever the numbers are."""
    parser = OneLineParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the CPU, then the GPU where there is one")
    words = parser.parse_args(argv)
    unknown = [name for name in words.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r} (benchmarks: {', '.join(BENCHMARKS)})")
    if words.threads < 1:
        parser.error("--threads must be at least 1")
    cuda = torch.cuda.is_available()
    if words.device == "cuda" and not cuda:
        parser.error("--device cuda: this machine or this PyTorch has no CUDA GPU")
    torch.set_num_threads(words.threads)
    keep_freed_memory()  # as every experiment does
    runs = []
    for kind in [words.device] if words.device else ["cpu", *["cuda"] * cuda]:
        device = torch.device(kind)
        machine = f"{device_words(device)}, {words.threads} threads, torch {torch.__version__}"
        print(machine, flush=True)
        rows: list[Row] = []
        for name in words.names or BENCHMARKS:
            found = BENCHMARKS[name](device)
            rows += found
            if found:
                print(table(found), flush=True)
        runs.append({"device": kind, "machine": machine, "rows": [row.as_dict() for row in rows]})
    if words.json:
        content = {"python": platform.python_version(), "runs": runs}
        words.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
