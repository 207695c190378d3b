"""The paper's figures: which results each is drawn from, and the commands that run them.

They are numbered as a list; LaTeX numbers them as the text comes to them. A figure is drawn from all of its results or
not at all. `quick` are commands of minutes that give the same figure of less: never the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from grokcore.errors import UsageError
from grokcore.training.record import Record
from paper import dynamics, limits
from paper.charts.arms import arms_chart
from paper.charts.cascade import cascade_figure
from paper.charts.clocks import clocks_figure
from paper.charts.collapse_curve import collapse_curve_chart
from paper.charts.collapse_on_test_data import collapse_on_test_data_figure
from paper.charts.published_kappa import timing_figure
from paper.charts.release import release_chart
from paper.charts.spectrum import spectrum_chart
from paper.charts.surrogate import surrogate_chart
from paper.charts.transfer import transfer_figure
from paper.charts.ufm_law import ufm_law_chart
from paper.needs import (
    CASCADE,
    CIFAR10_ARMS,
    CIFAR10_COLLAPSE,
    CIFAR10_RELEASE,
    CIFAR10_REST,
    CLOCKS,
    COLLAPSE_ON_TEST_DATA,
    PUBLISHED_HEAD,
    QUICK_ARMS,
    TRANSFER,
    TRANSFORMER_ARMS,
    TRANSFORMER_COLLAPSE,
    TRANSFORMER_RELEASE,
    TRANSFORMER_REST,
)
from paper.recorded import Need, records_of, settings_of

Words = tuple[str, ...]


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper.

    Attributes:
        number: in this list.
        name: of its files.
        shows: what it shows, in a line.
        draw: records to figure.
        needs: the results that it is drawn from; none for a figure of the theory alone.
        quick: commands, after ``python -m``, of its quick version.
    """

    number: int
    name: str
    shows: str
    draw: Callable[[Sequence[Record]], Figure]
    needs: tuple[Need, ...] = ()
    quick: tuple[Words, ...] = ()

    def missing(self, results: Path) -> list[Path]:
        """The results that are not recorded."""
        return [path for need in self.needs for path in need.missing(results)]

    def records(self, results: Path) -> list[Record]:
        """The results it is drawn from."""
        return records_of(self.needs, results)


def _setup(record: Record) -> str:
    return "CIFAR-10, ResNet-18" if record.config["experiment"] == "cifar10" else "x + y mod 97"


def _arms(records: Sequence[Record]) -> Figure:
    return arms_chart(records, words=f"{_setup(records[0])}, {records[0].config['preset']} preset")


def _published(records: Sequence[Record]) -> Figure:
    return timing_figure(f"x + y mod 97, {records[0].config['preset']} preset, published head", records)


def _release(records: Sequence[Record]) -> Figure:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_setup(record), []).append(record)
    return release_chart(groups)


def _clocks(records: Sequence[Record]) -> Figure:
    return clocks_figure(dynamics.sweeps(settings_of(records)))


def _of_study(study: str, draw: Callable[[dict[str, list[Record]]], Figure]) -> Callable[[Sequence[Record]], Figure]:
    return lambda records: draw(limits.runs_of(settings_of(records), study))


GROKKING, CIFAR10, DYNAMICS, LIMITS = (f"experiments.{name}" for name in ("grokking", "cifar10", "dynamics", "limits"))
_FEW_ARMS = tuple((GROKKING, "--arm", arm) for arm in ("baseline", "ncc_prevent", "flatness_prevent", "control_norm"))
_SMOKE = tuple((CIFAR10, "--preset", "smoke", "--arm", arm) for arm in ("baseline", "ncc_prevent", "flatness_prevent"))
_SHORT = ("--steps", "2000", "--measurements", "20")

FIGURES = (
    PaperFigure(1, "grokking-arms", "grokking under every arm", _arms, TRANSFORMER_ARMS, _FEW_ARMS),
    PaperFigure(
        2, "published-kappa", "the published curve of kappa beside the exact one", _published, PUBLISHED_HEAD,
        ((GROKKING, "--preset", "transformer", "--head", "vocabulary"),),
    ),
    PaperFigure(
        3, "collapse-curve", "kappa at collapse, the published bound, and runs", collapse_curve_chart,
        TRANSFORMER_COLLAPSE + CIFAR10_COLLAPSE, _SMOKE[:2],
    ),
    PaperFigure(4, "ufm-law", "the unconstrained-features model: law and optimiser", lambda _: ufm_law_chart()),
    PaperFigure(5, "spectrum", "the Hessian's spectrum at collapse", lambda _: spectrum_chart()),
    PaperFigure(6, "cifar10-arms", "CIFAR-10's arms and controls", _arms, CIFAR10_ARMS, _SMOKE),
    PaperFigure(
        7, "release", "the release beside its controls", _release, CIFAR10_RELEASE + TRANSFORMER_RELEASE,
        (
            *_SMOKE[::2],
            (CIFAR10, "--preset", "smoke", "--arm", "flatness_release", "--from", "flatness_prevent@0.5"),
            (CIFAR10, "--preset", "smoke", "--arm", "control_schedule", "--from", "baseline@0.5"),
        ),
    ),
    PaperFigure(
        8, "clocks", "the two clocks against weight decay", _clocks, CLOCKS, ((DYNAMICS, "--preset", "quick"),),
    ),
    PaperFigure(
        9, "collapse-on-test-data", "V on train and test sets, and the floor",
        _of_study("test-collapse", collapse_on_test_data_figure), COLLAPSE_ON_TEST_DATA,
        ((LIMITS, "test-collapse", "--preset", "digits", *_SHORT),),
    ),
    PaperFigure(
        10, "transfer", "transfer against collapse, and its ceiling", _of_study("transfer", transfer_figure), TRANSFER,
        ((LIMITS, "transfer", "--preset", "digits", "--arm", "all", *_SHORT),),
    ),
    PaperFigure(
        11, "cascade", "collapse layer by layer", _of_study("cascade", cascade_figure), CASCADE,
        ((LIMITS, "cascade", "--preset", "digits", *_SHORT),),
    ),
    PaperFigure(
        12, "surrogate", "the published surrogate against kappa, every run", surrogate_chart,
        QUICK_ARMS + TRANSFORMER_ARMS + TRANSFORMER_RELEASE + TRANSFORMER_REST + CIFAR10_ARMS + CIFAR10_RELEASE
        + CIFAR10_REST, _FEW_ARMS,
    ),
)  # fmt: skip


def figure_named(name: str) -> PaperFigure:
    """By number or name.

    Raises:
        UsageError: there is none.
    """
    for figure in FIGURES:
        if name in (figure.name, str(figure.number)):
            return figure
    known = ", ".join(f"{figure.number} {figure.name}" for figure in FIGURES)
    raise UsageError(f"no figure {name!r} (figures: {known})")
