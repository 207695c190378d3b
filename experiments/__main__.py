"""What can be run: ``python -m experiments`` lists the experiments with the first line of what each says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from grokcore.commandline import run_command

EXPERIMENTS = ("grokking", "cifar10", "dynamics", "limits", "flatness_bounds", "representativeness")
"""The modules with a command line; the last two read a finished run's folder."""


def main(argv: Sequence[str]) -> int:
    """Print the list; 2 where a word was given that it does not take."""
    for name in EXPERIMENTS:
        said = (import_module(f"experiments.{name}").__doc__ or "").splitlines()[0]
        print(f"python -m experiments.{name}\n    {said}")
    print("Flags: --help after any of them.")
    return 0 if set(argv) <= {"-h", "--help"} else 2


if __name__ == "__main__":
    run_command(main)
