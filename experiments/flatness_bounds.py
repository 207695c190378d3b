"""How loose the bounds of kappa about the collapse curve are along a run (theory B8, B8s, B8l and A5).

    python -m experiments.grokking --keep 50 200 1000 2000 4000 8000
    python -m experiments.flatness_bounds runs/grokking/baseline/seed0-885c893a

Reads every checkpoint that the run kept: its features enter :func:`grokcore.flatness_sandwich`, eval mode, whole train
and test sets, Delta the mean logit gap of each.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.stored import run_parser, stored_run
from grokcore import FlatnessSandwich, flatness_sandwich
from grokcore.commandline import run_command
from grokcore.documents import markdown, plain

PAIRS = {"exponential": "B8", "extremal": "B8s", "losses": "B8l", "outputs": "A5"}
"""The fields of a FlatnessSandwich that are bounds, and the statements that prove them."""


def main(argv: Sequence[str]) -> int:
    """Print the table of one run."""
    words = run_parser("flatness_bounds", "Bounds of kappa along a run.").parse_args(argv)
    table: list[tuple[str, ...]] = []
    for step, seen in stored_run(words.run, words.data).features():
        for name, features, labels in (("train", seen.train, seen.train_labels), ("test", seen.test, seen.test_labels)):
            found = flatness_sandwich(features, labels, seen.weight, seen.bias)
            table.append((f"{step:,}", name, *_cells(found)))
    header = ("step", "data", "kappa", "gap", "mean omega", *(f"{label}: U/kappa, kappa/L" for label in PAIRS.values()))
    print((markdown if words.markdown else plain)(header, table))
    return 0


def _cells(found: FlatnessSandwich) -> tuple[str, ...]:
    """kappa, gap and oscillation, then how far each pair of bounds lies above and below kappa."""
    sides = [getattr(found, name) for name in PAIRS]
    ratios = [(_ratio(side.upper, found.kappa), _ratio(found.kappa, side.lower)) for side in sides]
    numbers = (found.kappa, found.gap, found.oscillation)
    return (*(f"{n:.3g}" for n in numbers), *(f"{up}, {down}" for up, down in ratios))


def _ratio(larger: float, smaller: float) -> str:
    return f"{larger / smaller:.3g}" if smaller > 0 else "-"


if __name__ == "__main__":
    run_command(main)
