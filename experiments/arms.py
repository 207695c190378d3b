"""The named arms, as data.

An arm is an :class:`~grokcore.Intervention` and the question it asks. Coefficients belong to a preset: they
were chosen on seeds that no table reports, by the arm's own target (train CDNV or kappa), never by test accuracy;
docs/arm-search.md shows the search. Those of the paper preset are the transformer's, not tuned there.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from grokcore import Intervention, UsageError

NOT_TUNED = frozenset({"paper"})
"""Presets whose coefficients were not searched for."""


@dataclass(frozen=True)
class Arm:
    """A named intervention."""

    question: str
    """What the arm asks, in one line."""
    quick: Intervention
    """Its coefficients for ``--preset quick``."""
    transformer: Intervention
    """Its coefficients for ``--preset transformer``, and for ``--preset paper``, whose loss is the same."""
    trunk: str = "baseline"
    """The arm that a fork of this one starts from, if nothing else is said."""

    @property
    def coefficients(self) -> dict[str, Intervention]:
        """By preset."""
        return {"quick": self.quick, "transformer": self.transformer, "paper": self.transformer}


_PREVENT = {
    "quick": Intervention(surrogate_weight=-0.001, head_norm_cap=20.0),
    "transformer": Intervention(surrogate_weight=-0.01, head_norm_cap=15.0),
}
_RELEASE = Intervention(release_at=0.5, release_lr=3.0, release_weight_decay=2.0, release_schedule="cosine")


def _released(preset: str) -> Intervention:
    prevent = _PREVENT[preset]
    return replace(_RELEASE, surrogate_weight=prevent.surrogate_weight, head_norm_cap=prevent.head_norm_cap)


ARMS: dict[str, Arm] = {
    "baseline": Arm("What happens if nothing is done?", quick=Intervention(), transformer=Intervention()),
    "ncc_encourage": Arm(
        "Does collapse, encouraged, hasten generalisation?",
        quick=Intervention(cdnv_weight=0.03),
        transformer=Intervention(cdnv_weight=1.0),
    ),
    "ncc_prevent": Arm(
        "Does the model generalise while collapse is prevented?",
        # Without the cap the penalty outweighs the loss: CDNV runs into the thousands, accuracy stays at chance.
        quick=Intervention(cdnv_weight=-0.1, cdnv_cap=2.5),
        transformer=Intervention(cdnv_weight=-1.0, cdnv_cap=2.5),
    ),
    "flatness_encourage": Arm(
        "Does flatness, encouraged through the published surrogate, hasten generalisation?",
        quick=Intervention(surrogate_weight=0.03),
        transformer=Intervention(surrogate_weight=0.03),
    ),
    "flatness_prevent": Arm(
        "Does the model generalise while flatness is prevented through the published surrogate?",
        quick=_PREVENT["quick"],
        transformer=_PREVENT["transformer"],
    ),
    "flatness_prevent_exact": Arm(
        "Does the model generalise while the exact relative flatness is kept high?",
        quick=Intervention(kappa_weight=-0.0001, kappa_cap=200.0),
        transformer=Intervention(kappa_weight=-0.01, kappa_cap=70.0),
    ),
    "flatness_release": Arm(
        "What changes when flatness_prevent is released, as the paper did it: penalty and cap off, learning "
        "rate up, weight decay up, cosine schedule, all at once?",
        quick=_released("quick"),
        transformer=_released("transformer"),
        trunk="flatness_prevent",
    ),
    "control_confidence": Arm(
        "Is it the confidence? The surrogate's Gini factor alone, at the weight lambda B^2 of flatness_prevent.",
        quick=Intervention(gini_weight=-0.4),
        transformer=Intervention(gini_weight=-2.25),
    ),
    "control_norm": Arm(
        "Is it the norm? The head held at the cap of flatness_prevent, no penalty.",
        quick=Intervention(head_norm_hold=20.0),
        transformer=Intervention(head_norm_hold=15.0),
    ),
    "control_schedule": Arm(
        "Is it the schedule? The baseline with everything else that flatness_release changes at its step.",
        quick=_RELEASE,
        transformer=_RELEASE,
    ),
}


def arm_named(name: str) -> Arm:
    """The arm called `name`.

    Raises:
        UsageError: there is none; the message lists the arms and the nearest name.
    """
    if name in ARMS:
        return ARMS[name]
    near = difflib.get_close_matches(name, [*ARMS, "all"], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"unknown arm {name!r}{hint} (arms: {', '.join(ARMS)}, or all)")
