"""The numbers of the paper's text, each computed from recorded runs or by the theory: what its macros say.

Names: the set-up (Quick, Transformer, Cifar, Clocks, ...), the arm, the quantity; median [least, greatest] over seeds
where nothing else is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from grokcore.documents import Table
from grokcore.training.clocks import CONTRACTED
from grokcore.training.record import Record
from grokcore.training.table import event_step, short, spread, value_at_event
from paper import outcomes
from paper.charts.collapse_curve import classes_of
from paper.clock_law import decay_of, event_of
from paper.constants import MACRO_PREFIX
from paper.differences import accuracy_difference
from paper.dynamics import sweeps
from paper.latex import Number
from paper.limit_numbers import limit_numbers
from paper.macros import over, short_tex, step_tex, tex, title
from paper.onsets import generalisation_onset
from paper.recorded import Settings, by_full_name
from paper.timing import QUANTITIES, timing
from theory import statements
from theory.formulas import kappa_of_ufm
from theory.rise_then_fall import MAXIMA

SETUPS = {"Quick": ("grokking", "quick"), "Transformer": ("grokking", "transformer"), "Cifar": ("cifar10", "cpu")}


def numbers(recorded: Settings, full: Mapping[str, Table]) -> dict[str, Number]:
    """All macros, by name.

    Args:
        recorded: the results.
        full: their tables (:mod:`paper.every_table`).
    """
    parts: list[dict[str, Number]] = [_theory(), _counts(recorded)]
    for setup, (experiment, preset) in SETUPS.items():
        records = [r for key, each in recorded.items() if key[:2] == (experiment, preset) for r in each]
        parts.append({f"{setup}{name}": number for name, number in _arms(by_full_name(records)).items()})
    parts += [_differences(recorded), _surrogate(recorded), _published(recorded), _clocks(recorded, full)]
    parts.append(limit_numbers(recorded))
    return {f"{MACRO_PREFIX}{name}": number for part in parts for name, number in part.items()}


def _theory() -> dict[str, Number]:
    all_statements = statements()
    place, peak = MAXIMA[10]
    return {
        "Statements": Number(str(len(all_statements)), []),
        "Proved": Number(str(sum(each.status == "proved" for each in all_statements)), []),
        "PeakGapTen": Number(f"{float(place):.2f}", []),
        "PeakKappaTen": Number(f"{float(peak):.2f}", []),
        "SmoothingFloorTen": Number(f"{float(kappa_of_ufm(0.0, 10, 0.1)):.2f}", []),
    }


def _counts(recorded: Settings) -> dict[str, Number]:
    every = [r for records in recorded.values() for r in records]
    return {"Runs": Number(str(len(every)), every)}


def _arms(runs: Mapping[str, list[Record]]) -> dict[str, Number]:
    found = {}
    for arm, records in runs.items():
        grokking = "epoch" not in records[0].columns
        quantities: dict[str, tuple[Callable[[Record], float], Callable[[float], str]]] = {
            "Accuracy": (lambda r: 100 * r.final("test_accuracy"), lambda v: f"{v:.1f}"),
            "Kappa": (lambda r: r.final("train_kappa"), short_tex),
            "Cdnv": (lambda r: r.final("train_cdnv"), short_tex),
        }
        if grokking:
            quantities |= {
                "Fit": (lambda r: event_step(r, "train_99"), step_tex),
                "Grok": (lambda r: event_step(r, "test_99"), step_tex),
                "GrokKappa": (lambda r: value_at_event(r, "test_99", "train_kappa"), short_tex),
            }
        found |= {f"{title(arm)}{name}": over(records, of, show) for name, (of, show) in quantities.items()}
    return found


def _differences(recorded: Settings) -> dict[str, Number]:
    """``Diff<first>Vs<second>``: points of test accuracy on CIFAR-10, paired by seed, with their interval."""
    runs = by_full_name([r for key, each in recorded.items() if key[:2] == ("cifar10", "cpu") for r in each])
    found = {}
    for first, second in outcomes.COMPARED:
        if first in runs and second in runs:
            difference = accuracy_difference(runs[first], runs[second])
            found[f"Diff{title(first)}Vs{title(second)}"] = Number(tex(str(difference)), [*runs[first], *runs[second]])
    return found


def _surrogate(recorded: Settings) -> dict[str, Number]:
    """The surrogate over (K-1) kappa in the last rows, least and greatest over all arms."""
    found = {}
    for setup, (experiment, preset) in SETUPS.items():
        records = [r for r in recorded.get((experiment, preset, ""), []) if r.final("train_kappa") > 1e-8]
        ratios = [r.final("train_frobenius_surrogate") / r.final("train_kappa") / (classes_of(r) - 1) for r in records]
        found[f"{setup}SurrogateRatio"] = Number(f"{min(ratios):.2f} to {max(ratios):.2f}", records)
    return found


def _published(recorded: Settings) -> dict[str, Number]:
    """When quantities of the runs with the published head fall, linear scale, and what is left of them at the fit."""
    records = recorded.get(("grokking", "transformer", "headvocabulary"), [])
    names = {
        "train_kappa": "Kappa", "train_published_product": "Curve", "train_cdnv": "Cdnv",
        "train_within_class_variance": "Variance",
    }  # fmt: skip
    assert set(names) <= set(QUANTITIES)
    found = {}
    for column, name in names.items():
        timings = [timing(record, column) for record in records]
        found[f"Published{name}Step"] = Number(tex(spread([t.linear.step for t in timings], step_tex)), records)
        found[f"Published{name}AtFit"] = Number(tex(spread([t.levels[0] for t in timings], short)), records)
        exactly = sum(t.linear.exactly or t.log.exactly for t in timings)
        found[f"Published{name}Exactly"] = Number(f"{exactly} of {len(records)}", records)
    for event in ("train_99", "test_99"):
        found[f"Published{title(event)}"] = over(records, lambda r, e=event: event_step(r, e), step_tex)
    return found


def _clocks(recorded: Settings, full: Mapping[str, Table]) -> dict[str, Number]:
    found, groups = {}, sweeps(recorded)
    for name, decays, words, slope, _, counted in full["dynamics/law"].rows if groups else ():
        records, key = groups[name], "Theory" if name.endswith("theory") else "Grey"
        if slope:
            found[f"Clocks{key}{_slope_name(decays, words)}"] = Number(tex(slope), records)
            found[f"Clocks{key}{_slope_name(decays, words)}Runs"] = Number(counted, records)
    grey = next((records for name, records in groups.items() if name.endswith("grey")), [])
    small = [record for record in grey if 0 < decay_of(record) <= 0.01]
    without = [record for record in grey if decay_of(record) == 0]
    reached = [record for record in grey if not event_of(record).censored and generalisation_onset(record)]
    late = [event_of(record).step / _onset(record) for record in reached]
    dynamics = (record for key, each in recorded.items() if key[0] == "dynamics" for record in each)
    digits = [record for record in dynamics if record.config["arm"].startswith("digits-mlp")]
    found |= {
        "ClocksRuns": Number(str(len(grey)), grey),
        "ClocksReached": Number(str(len(reached)), grey),
        "ClocksLate": Number(f"{min(late):.1f} to {max(late):.1f}", reached),
        "ClocksSmallRuns": Number(str(len(small)), small),
        "ClocksSmallLeast": Number(step_tex(min(event_of(record).step for record in small)), small),
        "ClocksSmallGreatest": Number(step_tex(max(event_of(record).step for record in small)), small),
        "ClocksDigitsRnc": over(digits, lambda r: r.column("train_rnc1_mean")[0], _two),
        "ClocksDigitsNc": over(digits, lambda r: r.column("train_nc1_trace_ratio")[0], _two),
        "ClocksDigitsFirst": Number(step_tex(min(event_of(record).step for record in digits)), digits),
        "ClocksWithoutNorm": over(without, lambda r: r.final("weight_norm") / r.column("weight_norm")[0], _two),
        "ClocksWithoutRnc": over(without, lambda r: r.final("train_rnc1_mean"), _three),
        "ClocksWithoutGrok": over(without, _onset, step_tex),
        "ClocksWithoutAccuracy": over(without, lambda r: 100 * r.final("test_accuracy"), lambda v: f"{v:.1f}"),
    }
    return found


def _onset(record: Record) -> float:
    found = generalisation_onset(record)
    return math.inf if found is None else float(found.step)


def _slope_name(decays: str, words: str) -> str:
    kinds = {
        f"train RNC1 below {CONTRACTED:g}": "Slope", "train RNC1 below 0.2": "SlopeEarly",
        "half of its rise": "SlopeTest",
        "train RNC1 below 0.05": "SlopeLate", "fit": "SlopeFit", "imbalance": "SlopeBalance",
        f"test RNC1 below {CONTRACTED:g}": "SlopeOnTest",
    }  # fmt: skip
    kind = next(name for part, name in kinds.items() if part in words)
    if "paper B" in words:
        return "SlopeSix"
    if "every run gets there" in words:
        return "SlopeReached"
    parts = {"1 to 0.1": "Strong", "0.1 to 0.02": "Weak"}
    return kind + parts.get(decays, "")


def _two(value: float) -> str:
    return f"{value:.2f}"


def _three(value: float) -> str:
    return f"{value:.3f}"
