"""The generalisation gap of a run as flatness plus representativeness, and how the density's width decides the shares.

    python -m experiments.grokking --keep 628 2000 4000
    python -m experiments.representativeness runs/grokking/baseline/seed0-885c893a --figure gap.png

Paper A's bound is flatness plus representativeness, and its Fig. 20 estimates the latter with a Gaussian kernel density
of bandwidth 1 and "train weight 0.02" on last-layer features; it has no public code for that. Here at every checkpoint
that a run kept, in eval mode on whole train and test sets: kernel densities of several bandwidths, 1 among them, and
densities as wide as a share of each feature vector's norm, 0.02 among them, which are those kappa belongs to. Beside
them what the public code of the measure's authors would estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.stored import Features, StoredRun, run_parser, stored_run
from grokcore import UsageError, generalisation_gap
from grokcore.commandline import run_command
from grokcore.documents import markdown, plain
from grokcore.representativeness import GeneralisationGap
from grokcore.style import BLUE, GREEN, ORANGE, STYLE
from grokcore.training.figures import save

NOISES = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Bandwidths of kernel densities, in the features' units; paper A's is 1."""
SIZES = (0.01, 0.02, 0.1, 0.3, 1.0, 3.0)
"""Widths as shares of each feature vector's norm; 0.02 is paper A's "train weight", if that is what it means."""
HEADER = (
    "step", "density about each train feature", "gap (nats)", "Rob", "Rep = gap - Rob",
    "Rob to leading order", "bound of Rob",
)  # fmt: skip
KINDS = {"noise": ("bandwidth {:g}", "bandwidth (units of the features)", 1.0),
         "size": ("{:g} of its norm", "width (share of the feature's norm)", 0.02)}  # fmt: skip

Found = dict[int, dict[str, list[tuple[float, GeneralisationGap]]]]
"""By step and kind of density: the gap's parts at each width."""


def main(argv: Sequence[str]) -> int:
    """Print the table of one run, and draw it."""
    parser = run_parser("representativeness", "The generalisation gap as flatness plus representativeness.")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it as a PNG")
    parser.add_argument("--probes", type=int, default=128, help="perturbations behind each number (default: 128)")
    words = parser.parse_args(argv)
    if words.figure is not None and not words.figure.parent.is_dir():
        raise UsageError(f"--figure: there is no folder {words.figure.parent}")
    run, found, rows = stored_run(words.run, words.data), Found(), list[tuple[str, ...]]()
    for step, seen in run.features():
        found[step] = parts(seen, words.probes)
        rows += [_row(step, kind, width, each) for kind, all_ in found[step].items() for width, each in all_]
        rows.append((f"{step:,}", "the public code's estimate of Rep", "", "", f"{public_estimate(seen):.4g}", "", ""))
    config = run.config
    print(f"{config['experiment']}, {config['preset']}, {config['arm']}, seed {config['seed']}, run {run.run_id}\n")
    print((markdown if words.markdown else plain)(HEADER, rows))
    if words.figure is not None:
        save(gap_figure(run, found), words.figure)
        print(f"\nfigure: {words.figure}")
    return 0


def parts(seen: Features, probes: int) -> dict[str, list[tuple[float, GeneralisationGap]]]:
    """The gap's parts at each width of each kind."""
    data = (seen.train, seen.train_labels, seen.test, seen.test_labels, seen.weight, seen.bias)
    return {
        "noise": [(width, generalisation_gap(*data, noise=width, probes=probes)) for width in NOISES],
        "size": [(width, generalisation_gap(*data, size=width, probes=probes)) for width in SIZES],
    }


def public_estimate(seen: Features, *, block: int = 500) -> float:
    """Representativeness as the public code of Petzka et al. 2021 estimates it, nats.

        mean_j [l(h_j, y_j) - (1/n) sum_i w_i k(sqrt(|h_j - h_i|)) l(h_i, y_j)],   k(x) = exp(-x^2/2) / sqrt(2 pi),

    over test samples j and train samples i, weights w_i = c ||h_i|| that the library it calls divides by their sum, so
    that c (its delta) drops out. The density then divides by n twice and has the kernel of one dimension: what is
    subtracted is below the mean of sum_i w_i l(h_i, y_j), divided by 2.5 n, and the estimate is the test loss but where
    that is as small. There j are folds of the train set and the notebook refits the head on the others; here j are the
    test set and the head is the run's.
    """
    train, test, weight = seen.train.double(), seen.test.double(), seen.weight.double()
    bias = None if seen.bias is None else seen.bias.double()
    losses, test_losses = (-torch.log_softmax(torch.nn.functional.linear(h, weight, bias), 1) for h in (train, test))
    norms = torch.linalg.vector_norm(train, dim=1)
    weights = norms / norms.sum() / (math.sqrt(2 * math.pi) * len(train))
    subtracted = 0.0
    for h, y in zip(torch.split(test, block), torch.split(seen.test_labels, block), strict=True):
        kernel = (torch.cdist(h, train) / -2).exp()
        subtracted += float((kernel * losses[:, y].T @ weights).sum())
    return float(test_losses.gather(1, seen.test_labels[:, None]).mean()) - subtracted / len(test)


def gap_figure(run: StoredRun, found: Found) -> Figure:
    """The gap, Rob, its leading order and its bound against the density's width: a column a step, a row a kind."""
    with rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(found) + 1.2, 5.6))
        grid = figure.subplots(len(KINDS), len(found), sharex="row", sharey=True, squeeze=False)
        for (kind, (_, label, published)), row in zip(KINDS.items(), grid, strict=True):
            for (step, each), axes in zip(found.items(), row, strict=True):
                _draw(axes, each[kind])
                axes.axvline(published, color="0.5", lw=0.8, ls=":")
                axes.set_xlabel(label)
                axes.set_title(f"step {step:,}")
            row[0].set_ylabel("nats")
        for axes in grid.flat:
            gaps = [parts[0][1].gap for each in found.values() for parts in each.values()]
            axes.set_ylim(1e-10, 30 * max(1.0, *gaps))
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        config = run.config
        words = f"{config['experiment']} {config['preset']}, {config['arm']}, seed {config['seed']}"
        figure.suptitle(f"{words}: generalisation gap = Rob (flatness) + Rep; dotted: paper A's widths", fontsize=10)
    return figure


def _draw(axes: Axes, each: Sequence[tuple[float, GeneralisationGap]]) -> None:
    widths, gaps = zip(*each, strict=True)
    gap = gaps[0]
    axes.axhline(gap.gap, color="black", lw=1.4, label="gap: test minus train loss")
    axes.plot(widths, [g.robustness.value for g in gaps], color=BLUE, lw=1.8, marker="o", ms=3, label="Rob, measured")
    axes.plot(widths, [g.leading for g in gaps], color=ORANGE, lw=1.3, ls="--", label="Rob to leading order (kappa)")
    axes.plot(widths, [g.bound for g in gaps], color=GREEN, lw=1.3, ls="-.", label="bound of Rob (theory E4)")
    axes.set_xscale("log")
    axes.set_yscale("log")


def _row(step: int, kind: str, width: float, found: GeneralisationGap) -> tuple[str, ...]:
    rep, rob = found.representativeness, found.robustness
    return (
        f"{step:,}",
        KINDS[kind][0].format(width),
        f"{found.gap:.4g} ± {found.gap_stderr:.2g}",
        f"{rob.value:.3g} ± {rob.stderr:.1g}",
        f"{rep.value:.4g}",
        f"{found.leading:.3g}",
        f"{found.bound:.3g}",
    )


if __name__ == "__main__":
    run_command(main)
