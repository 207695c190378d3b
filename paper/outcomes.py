"""Paper A's outcomes on CIFAR-10, arm by arm, beside recorded runs: by the exact kappa and by the published surrogate.

Paper A ("Flatness is Necessary, Neural Collapse is Not", NeurIPS 2025): ResNet-18 on 50,000 images, 250 epochs for
collapse (lambda 1e-3) and 400 for flatness (lambda 0.01, cap 50, release at 200; single seeds); what it calls relative
flatness is the surrogate, with other settings before and after the release. The recorded runs of the small presets are
no reproductions of it: the table shows whether the same arm says the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, short, spread
from paper import differences
from paper.recorded import by_full_name

PUBLISHED = {
    "baseline": "78 %; train 100 % by epoch 25",
    "baseline+augment": "94 % (3x3 stem)",
    "ncc_prevent": "78 %, as without",
    "ncc_prevent+lambda0.01": "training collapses",
    "ncc_prevent+lambda1e-3": "78 %, as without: its lambda",
    "ncc_prevent+lambda1e-4": "no effect",
    "ncc_prevent+augment": "94 % (3x3 stem); collapse no longer prevented",
    "ncc_encourage": "claimed, not shown",
    "flatness_prevent": '60 %; "flatness" 2,210, at the surrogate\'s ceiling (2,250)',
    "flatness_release": "78 % after the release",
}
"""By arm and penalty's lambda; arms that are not named are not in the paper."""
HEADER = (
    "arm", "paper A: validation", "here: seeds", "test accuracy (%)", "against the baseline, points",
    "exact kappa, train", "surrogate, train", "surrogate / kappa", "CDNV, train",
)  # fmt: skip
COMPARED = (
    ("ncc_prevent", "baseline"),
    ("ncc_encourage", "baseline"),
    ("flatness_prevent", "baseline"),
    ("flatness_encourage", "baseline"),
    ("control_confidence", "baseline"),
    ("control_norm", "baseline"),
    ("flatness_prevent", "control_confidence"),
    ("flatness_prevent", "control_norm"),
    ("control_schedule+fork", "baseline"),
    ("flatness_release+fork", "flatness_prevent"),
    ("flatness_release+at0.25+fork", "flatness_prevent"),
    ("flatness_release+fork", "control_schedule+fork"),
    ("flatness_release+at0.25+fork", "control_schedule+at0.25+fork"),
    ("baseline+augment", "baseline"),
    ("ncc_prevent+augment", "baseline+augment"),
    ("ncc_prevent+augment", "ncc_prevent"),
)
"""Which differences are shown: each arm's from the baseline, from its control, and what augmentation changes."""


def table(records: Sequence[Record], order: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Rows under HEADER, one an arm with its variants: final values, median [least, greatest] over seeds, beside the
    baseline of the same data, model and training."""
    runs = by_full_name(records)
    return [_row(arm, of_arm, runs) for arm, of_arm in arms_in_order(runs, order)]


def differences_table(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under :data:`paper.differences.HEADER`."""
    return differences.table(by_full_name(records), COMPARED)


def published(arm: str) -> str:
    """What paper A says of an arm; a release forked or at the quarter is still its release."""
    parts = [token for token in arm.split("+") if not token.startswith(("fork", "at0"))]
    return PUBLISHED.get("+".join(parts), "not in the paper")


def _row(arm: str, runs: Sequence[Record], all_runs: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
    kappas, surrogates = ([r.final(f"train_{n}") for r in runs] for n in ("kappa", "frobenius_surrogate"))
    baselines = [b for each in all_runs.values() for b in each if b.config["arm"] == "baseline" and _alike(b, runs)]
    against = [] if runs[0] in baselines else differences.pairs(runs, baselines)
    return (
        arm,
        published(arm),
        " ".join(str(r.config["seed"]) for r in runs),
        spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
        str(differences.accuracy_difference(*zip(*against, strict=True))) if against else "",
        spread(kappas, short),
        spread(surrogates, short),
        spread([differences.ratio(s, k) for s, k in zip(surrogates, kappas, strict=True)], short),
        spread([r.final("train_cdnv") for r in runs], short),
    )


def _alike(baseline: Record, runs: Sequence[Record]) -> bool:
    """Whether it has the data, model and training of one of the runs: augmented arms have an augmented baseline."""
    parts = ("data", "model", "training")
    return any(all(baseline.config[part] == run.config[part] for part in parts) for run in runs)
