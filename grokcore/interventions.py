"""What an arm is made of: penalties on the loss, caps on the head, and their release.

    objective = cross-entropy + sum of weight * penalty

A positive weight encourages what the penalty measures to fall, a negative weight prevents it. Penalties
are taken on the minibatch with the training-mode features that enter the head; the numbers an experiment
reports are measured apart, on whole sets in eval mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokcore.batch_cdnv import cdnv
from grokcore.errors import UsageError, flag, require_finite
from grokcore.flatness import frobenius_surrogate, gini_impurity, relative_flatness

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Intervention:
    """The switches of an arm; all off is the baseline. Independent: any may be combined."""

    cdnv_weight: float = 0.0
    """Weight of the minibatch CDNV (paper A: -lambda)."""
    cdnv_cap: float | None = None
    """The CDNV penalty counts as the lesser of CDNV and cap, so that past the cap it has no gradient."""
    surrogate_weight: float = 0.0
    """Weight of paper A's flatness penalty ||W||_F^2 mean (1 - ||softmax(z/tau)||^2) ||h||^2."""
    kappa_weight: float = 0.0
    """Weight of the exact relative flatness of the head."""
    kappa_cap: float | None = None
    """The exact penalty counts as the lesser of kappa and cap, so that past the cap it has no gradient."""
    gini_weight: float = 0.0
    """Weight of mean (1 - ||softmax(z/tau)||^2): the confidence part of the surrogate, no norms."""
    temperature: float = 2.0
    """tau in the surrogate and gini penalties; never used in a measurement."""
    normalize_features: bool = True
    """Features of norm 1 in the surrogate penalty's last factor (its logits use the raw ones)."""
    head_norm_cap: float | None = None
    """After each step the head is scaled down to this Frobenius norm where it exceeds it."""
    head_norm_hold: float | None = None
    """After each step the head is scaled to exactly this Frobenius norm."""
    release_at: float | None = None
    """The release: a step, or below 1 a fraction of the run. The switches below act after it."""
    release_penalty: bool = True
    """At the release all penalties go off."""
    release_cap: bool = True
    """At the release the cap or hold on the head's norm goes off."""
    release_lr: float = 1.0
    """At the release the learning rate is multiplied by this."""
    release_weight_decay: float | None = None
    """At the release the weight decay becomes this."""
    release_schedule: Schedule = "constant"
    """Learning rate after the release: constant, or a cosine to 0 at the run's end."""

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("cdnv_cap", "kappa_cap", "head_norm_cap", "head_norm_hold"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{flag(name)} must be positive, got {value:g}")
        if not self.temperature > 0:
            raise UsageError(f"--temperature must be positive, got {self.temperature:g}")
        if self.head_norm_cap is not None and self.head_norm_hold is not None:
            raise UsageError("--head-norm-cap and --head-norm-hold exclude each other")
        if self.release_at is not None and not self.release_at > 0:
            raise UsageError(f"--release-at must be positive, got {self.release_at:g}")
        if not self.release_lr > 0:
            raise UsageError(f"--release-lr must be positive, got {self.release_lr:g}")
        if self.release_weight_decay is not None and self.release_weight_decay < 0:
            raise UsageError(f"--release-weight-decay must not be negative, got {self.release_weight_decay:g}")

    def release_step(self, steps: int) -> int | None:
        """Last step before the release in a run of `steps` steps; None without one."""
        if self.release_at is None:
            return None
        at = self.release_at * steps if self.release_at < 1 else self.release_at
        if round(at) >= steps:
            raise UsageError(f"--release-at {self.release_at:g} is not before the run's end at step {steps}")
        return max(1, round(at))


def penalties(
    intervention: Intervention,
    features: Float[Tensor, "n m"],
    logits: Float[Tensor, "n K"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, "K m"],
    bias: Float[Tensor, " K"] | None,
) -> dict[str, tuple[float, Float[Tensor, ""]]]:
    """Each active penalty's weight and raw minibatch value, by name, differentiable.

    The value is before the cap; :func:`objective` applies caps.
    """
    terms: dict[str, tuple[float, Tensor]] = {}
    if intervention.cdnv_weight:
        terms["cdnv"] = (intervention.cdnv_weight, cdnv(features, labels, weight.shape[0]))
    if intervention.surrogate_weight:
        surrogate = frobenius_surrogate(
            features,
            weight,
            bias,
            temperature=intervention.temperature,
            normalize_features=intervention.normalize_features,
        )
        terms["surrogate"] = (intervention.surrogate_weight, surrogate)
    if intervention.kappa_weight:
        terms["kappa"] = (intervention.kappa_weight, relative_flatness(features, weight, bias))
    if intervention.gini_weight:
        impurity = gini_impurity(torch.softmax(logits / intervention.temperature, dim=1)).mean()
        terms["gini"] = (intervention.gini_weight, impurity)
    return terms


def objective(
    intervention: Intervention,
    cross_entropy: Float[Tensor, ""],
    terms: dict[str, tuple[float, Float[Tensor, ""]]],
) -> Float[Tensor, ""]:
    """Cross-entropy plus the weighted, capped penalties: what is minimised (nats)."""
    caps = {"cdnv": intervention.cdnv_cap, "kappa": intervention.kappa_cap}
    total = cross_entropy
    for name, (weight, value) in terms.items():
        cap = caps.get(name)
        total = total + weight * (value if cap is None else value.clamp(max=cap))
    return total


@torch.no_grad()
def constrain_head(intervention: Intervention, weight: Float[Tensor, "K m"]) -> None:
    """Scale the head in place to respect the cap or the hold on its Frobenius norm; no device sync."""
    if intervention.head_norm_cap is not None:
        weight.mul_((intervention.head_norm_cap / weight.norm()).clamp(max=1.0))
    elif intervention.head_norm_hold is not None:
        weight.mul_(intervention.head_norm_hold / weight.norm())
