"""Paper C's numbers of the text: test collapse, transfer, the cascade."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grokcore.training import collapse_verdict
from grokcore.training.cascade import layers_of
from grokcore.training.collapse_verdict import FLOOR, STRONG, WEAK
from grokcore.training.record import Record
from grokcore.training.table import short, spread
from grokcore.training.transfer import HEAD, best_earlier
from paper.latex import Number
from paper.limits import runs_of
from paper.macros import over, short_tex, tex, title
from paper.recorded import Settings

DECAY = re.compile(r"-wd[0-9.]+(?:e-[0-9]+)?")


def limit_numbers(recorded: Settings) -> dict[str, Number]:
    """``TestData<run>...``, ``Transfer<run>...`` and ``Cascade<run>...``; runs as in the tables, less their decay."""
    found: dict[str, Number] = {}
    for run, records in runs_of(recorded, "test-collapse").items():
        found |= {f"TestData{_name(run)}{key}": number for key, number in _test_data(records).items()}
    for run, records in runs_of(recorded, "transfer").items():
        found |= {f"Transfer{_name(run)}{key}": number for key, number in _transfer(records).items()}
    for run, records in runs_of(recorded, "cascade").items():
        found |= {f"Cascade{_name(run)}{key}": number for key, number in _cascade(records).items()}
    return found


def _name(run: str) -> str:
    """``mnist-mlp-wd0.1 (grokking-mnist)`` as MnistMlpGrokkingMnist."""
    return title(DECAY.sub("", run))


def _test_data(records: Sequence[Record]) -> dict[str, Number]:
    verdict = collapse_verdict.verdict(records)
    return {
        "Train": over(records, lambda r: r.final("train_nc1_trace_ratio"), short_tex),
        "Test": over(records, lambda r: r.final(STRONG), short_tex),
        "Floor": over(records, lambda r: r.final(FLOOR), short_tex),
        "Predicted": over(records, lambda r: r.final(WEAK), short_tex),
        "Error": over(records, lambda r: 100 * (1 - r.final("test_accuracy")), lambda v: f"{v:.1f}"),
        "Excess": Number(tex(short(verdict.excess)), records),
        "Verdict": Number(verdict.word, records),
    }


def _transfer(records: Sequence[Record]) -> dict[str, Number]:
    def one(value: float) -> str:
        return f"{value:.1f}"

    return {
        "Train": over(records, lambda r: r.final("train_variance_ratio"), short_tex),
        "Cdnv": over(records, lambda r: r.final("train_cdnv"), short_tex),
        "Accuracy": over(records, lambda r: 100 * r.final("test_accuracy"), one),
        "Probe": over(records, lambda r: 100 * r.final(f"probe_transfer/{HEAD}"), one),
        "Fitted": over(records, lambda r: 100 * r.final(f"probe_train/{HEAD}"), one),
        "Fresh": over(records, lambda r: 100 * r.final(f"probe_fresh/{HEAD}"), one),
        "Best": over(records, lambda r: 100 * float(r.column(f"probe_transfer/{HEAD}").max()), one),
        "Earlier": over(records, lambda r: 100 * best_earlier({n: r.final(n) for n in r.columns})[1], one),
    }


def _cascade(records: Sequence[Record]) -> dict[str, Number]:
    layers = layers_of(records[0].columns)
    first, last = f"train_variance_ratio/{layers[0]}", f"train_variance_ratio/{layers[-1]}"
    return {
        "First": Number(tex(spread([r.final(first) for r in records], short)), records),
        "Last": Number(tex(spread([r.final(last) for r in records], short)), records),
        "Layers": Number(str(len(layers)), records),
    }
