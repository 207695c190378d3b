"""The named arms, as data.

An arm is an :class:`~grokcore.Intervention` and the question it asks. Coefficients belong to a preset: they
were chosen on seeds that no table reports, by the arm's own target (train CDNV or kappa), never by test accuracy;
docs/arm-search.md shows the search, which for CIFAR-10 is of one seed so far. Those of the grokking preset paper are
the transformer's, those of the CIFAR-10 presets paper-nc and paper-rf the published ones; neither was tuned there.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from grokcore import Intervention, UsageError

NOT_TUNED = frozenset({"paper", "smoke", "paper-nc", "paper-rf"})
"""Presets whose coefficients were not searched for."""


@dataclass(frozen=True)
class Arm:
    """A named intervention."""

    question: str
    """What the arm asks, in one line."""
    quick: Intervention
    """Its coefficients for grokking's ``--preset quick``."""
    transformer: Intervention
    """Its coefficients for ``--preset transformer``, and for ``--preset paper``, whose loss is the same."""
    cpu: Intervention
    """Its coefficients for CIFAR-10's ``--preset cpu`` and ``--preset smoke``."""
    published: Intervention
    """Paper A's coefficients on CIFAR-10 where it has any, for ``--preset paper-nc`` and ``--preset paper-rf``."""
    trunk: str = "baseline"
    """The arm that a fork of this one starts from, if nothing else is said."""

    @property
    def coefficients(self) -> dict[str, Intervention]:
        """By preset."""
        return {
            "quick": self.quick,
            "transformer": self.transformer,
            "paper": self.transformer,
            "smoke": self.cpu,
            "cpu": self.cpu,
            "paper-nc": self.published,
            "paper-rf": self.published,
        }


_PREVENT = {
    "quick": Intervention(surrogate_weight=-0.001, head_norm_cap=20.0),
    "transformer": Intervention(surrogate_weight=-0.01, head_norm_cap=15.0),
    "cpu": Intervention(surrogate_weight=-0.01, head_norm_cap=10.0),
    "published": Intervention(surrogate_weight=-0.01, head_norm_cap=50.0),
}
_SCHEDULE = {
    "grokking": Intervention(release_at=0.5, release_lr=3.0, release_weight_decay=2.0, release_schedule="cosine"),
    # Paper A, ResNet-18: the learning rate times 10, weight decay 2e-4.
    "cifar10": Intervention(release_at=0.5, release_lr=10.0, release_weight_decay=2e-4, release_schedule="cosine"),
}


def _released(schedule: str, preset: str) -> Intervention:
    prevent = _PREVENT[preset]
    weight, cap = prevent.surrogate_weight, prevent.head_norm_cap
    return replace(_SCHEDULE[schedule], surrogate_weight=weight, head_norm_cap=cap)


ARMS: dict[str, Arm] = {
    "baseline": Arm(
        "What happens if nothing is done?",
        quick=Intervention(),
        transformer=Intervention(),
        cpu=Intervention(),
        published=Intervention(),
    ),
    "ncc_encourage": Arm(
        "Does collapse, encouraged, hasten generalisation?",
        quick=Intervention(cdnv_weight=0.03),
        transformer=Intervention(cdnv_weight=1.0),
        cpu=Intervention(cdnv_weight=1.0),
        published=Intervention(cdnv_weight=1e-3),
    ),
    "ncc_prevent": Arm(
        "Does the model generalise while collapse is prevented?",
        # Without the cap the penalty outweighs the loss: CDNV runs into the thousands, accuracy stays at chance.
        quick=Intervention(cdnv_weight=-0.1, cdnv_cap=2.5),
        transformer=Intervention(cdnv_weight=-1.0, cdnv_cap=2.5),
        cpu=Intervention(cdnv_weight=-0.03),
        published=Intervention(cdnv_weight=-1e-3),
    ),
    "flatness_encourage": Arm(
        "Does flatness, encouraged through the published surrogate, hasten generalisation?",
        quick=Intervention(surrogate_weight=0.03),
        transformer=Intervention(surrogate_weight=0.03),
        cpu=Intervention(surrogate_weight=1.0),
        published=Intervention(surrogate_weight=0.01),
    ),
    "flatness_prevent": Arm(
        "Does the model generalise while flatness is prevented through the published surrogate?",
        quick=_PREVENT["quick"],
        transformer=_PREVENT["transformer"],
        cpu=_PREVENT["cpu"],
        published=_PREVENT["published"],
    ),
    "flatness_prevent_exact": Arm(
        "Does the model generalise while the exact relative flatness is kept high?",
        quick=Intervention(kappa_weight=-0.0001, kappa_cap=200.0),
        transformer=Intervention(kappa_weight=-0.01, kappa_cap=70.0),
        cpu=Intervention(kappa_weight=-0.001, kappa_cap=200.0),
        published=Intervention(kappa_weight=-0.01, kappa_cap=200.0),
    ),
    "flatness_release": Arm(
        "What changes when flatness_prevent is released, as the paper did it: penalty and cap off, learning "
        "rate up, weight decay up, cosine schedule, all at once?",
        quick=_released("grokking", "quick"),
        transformer=_released("grokking", "transformer"),
        cpu=_released("cifar10", "cpu"),
        published=_released("cifar10", "published"),
        trunk="flatness_prevent",
    ),
    "control_confidence": Arm(
        "Is it the confidence? The surrogate's Gini factor alone, at the weight lambda B^2 of flatness_prevent.",
        quick=Intervention(gini_weight=-0.4),
        transformer=Intervention(gini_weight=-2.25),
        cpu=Intervention(gini_weight=-1.0),
        published=Intervention(gini_weight=-25.0),
    ),
    "control_norm": Arm(
        "Is it the norm? The head held at the cap of flatness_prevent, no penalty.",
        quick=Intervention(head_norm_hold=20.0),
        transformer=Intervention(head_norm_hold=15.0),
        cpu=Intervention(head_norm_hold=10.0),
        published=Intervention(head_norm_hold=50.0),
    ),
    "control_schedule": Arm(
        "Is it the schedule? The baseline with everything else that flatness_release changes at its step.",
        quick=_SCHEDULE["grokking"],
        transformer=_SCHEDULE["grokking"],
        cpu=_SCHEDULE["cifar10"],
        published=_SCHEDULE["cifar10"],
    ),
}

LAMBDAS = ("cdnv_weight", "surrogate_weight", "kappa_weight", "gini_weight")
"""The weights of penalties."""


def _cell(collapse: str, flatness: str) -> Arm:
    """Both interventions at once, each with its own coefficients."""
    first, second = ARMS[collapse], ARMS[flatness]
    return Arm(
        f"The factorial's cell: {collapse} and {flatness} together.",
        quick=_both(first.quick, second.quick),
        transformer=_both(first.transformer, second.transformer),
        cpu=_both(first.cpu, second.cpu),
        published=_both(first.published, second.published),
    )


def _both(collapse: Intervention, flatness: Intervention) -> Intervention:
    return replace(flatness, cdnv_weight=collapse.cdnv_weight, cdnv_cap=collapse.cdnv_cap)


CELLS: dict[str, Arm] = {name: ARMS[name] for name in ("baseline", "ncc_encourage", "ncc_prevent")} | {
    name: ARMS[name] for name in ("flatness_encourage", "flatness_prevent")
}
"""The factorial collapse x flatness, {encourage, off, prevent} each: its nine cells, four of them pairs."""
CELLS |= {
    f"{collapse}+{flatness}": _cell(collapse, flatness)
    for collapse in ("ncc_encourage", "ncc_prevent")
    for flatness in ("flatness_encourage", "flatness_prevent")
}

COMPARED = list(ARMS | CELLS)
"""Every arm, in the order of tables."""


def arm_named(name: str) -> Arm:
    """The arm called `name`, or the factorial's cell.

    Raises:
        UsageError: there is none; the message lists the arms and the nearest name.
    """
    known = ARMS | CELLS
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, [*known, "all", "factorial"], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"unknown arm {name!r}{hint} (arms: {', '.join(ARMS)}; or all, factorial, ncc_prevent+flatness_encourage)"
    )


def with_lambda(intervention: Intervention, value: float | None) -> Intervention:
    """The same with another lambda for its one penalty: its weight is -`value`; unchanged where that is None.

    Raises:
        UsageError: it has no penalty, or several.
    """
    if value is None:
        return intervention
    active = [name for name in LAMBDAS if getattr(intervention, name)]
    if len(active) != 1:
        how_many = "several penalties" if active else "no penalty"
        raise UsageError(f"--lambdas: this arm has {how_many}; set the weights by their own flags")
    return replace(intervention, **{active[0]: -value})
