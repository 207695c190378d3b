"""The named arms, as data.

An arm is an :class:`~grokcore.Intervention` and the question it asks. Coefficients belong to a preset: they
were chosen on seeds 100 to 102 by the arm's own target (train CDNV or kappa at step 3,000), never by test
accuracy; docs/arm-search.md shows the search.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from grokcore import Intervention, UsageError


@dataclass(frozen=True)
class Arm:
    """A named intervention."""

    question: str
    """What the arm asks, in one line."""
    quick: Intervention
    """Its coefficients for ``--preset quick``."""


ARMS: dict[str, Arm] = {
    "baseline": Arm("What happens if nothing is done?", Intervention()),
    "ncc_encourage": Arm("Does collapse, encouraged, hasten generalisation?", Intervention(cdnv_weight=0.1)),
    "ncc_prevent": Arm("Does the model generalise without collapse?", Intervention(cdnv_weight=-0.1, cdnv_cap=1.7)),
    "flatness_encourage": Arm("Does flatness, encouraged, hasten generalisation?", Intervention(surrogate_weight=0.01)),
    "flatness_prevent": Arm(
        "Does the model generalise while the published surrogate is kept high?",
        Intervention(surrogate_weight=-0.01, head_norm_cap=30),
    ),
    "flatness_prevent_exact": Arm(
        "Does the model generalise while the exact relative flatness is kept high?",
        Intervention(kappa_weight=-0.01, kappa_cap=100),
    ),
    "flatness_release": Arm(
        "Does generalisation return when flatness is released?",
        Intervention(surrogate_weight=-0.01, head_norm_cap=30, release_at=0.5),
    ),
    "control_confidence": Arm("Is it only the confidence?", Intervention(gini_weight=-1.0)),
    "control_norm": Arm("Is it only the norm of the head?", Intervention(head_norm_hold=30)),
    "control_schedule": Arm("Is it only the new schedule?", Intervention(release_at=0.5)),
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
