"""What the paper's figures are drawn from: recorded runs by name, each with the command that runs it."""

from __future__ import annotations

from paper.recorded import Need

THREE, FIVE = (0, 1, 2), (0, 1, 2, 3, 4)
FITTED = ("1", "0.5", "0.3", "0.2", "0.1", "0.05", "0.03", "0.02")
"""Weight decays of the law's fit, as results name them; then paper B's three that are not among them."""
SMALL = ("0.01", "3e-3", "1e-3")
THEORY = ("0.05", "0.03", "0.02", "0.01", "5e-3")
SLOWER = ("--release-lr", "1.5", "--release-weight-decay", "1.5")
"""The milder release of the transformer."""


def arm(experiment: str, preset: str, name: str, *more: str, seeds: tuple[int, ...] = THREE, variant: str = "") -> Need:
    """An arm of experiments.grokking or cifar10; `more` are the flags that `variant` names."""
    words = (f"experiments.{experiment}", "--preset", preset, "--arm", name, *more)
    return Need(experiment, preset, name + variant, seeds, words)


def fork(trunk: Need, name: str, *more: str, at: str = "0.5", variant: str = "") -> Need:
    """An arm that goes on from a trunk's checkpoint."""
    words = (f"experiments.{trunk.experiment}", "--preset", trunk.preset, "--arm", name, *more)
    words = (*words, "--from", f"{trunk.arm}@{at}")
    return Need(trunk.experiment, trunk.preset, f"{name}{variant}+fork", trunk.seeds, words, trunk)


def study(name: str, preset: str, run: str, *more: str) -> Need:
    """Three seeds of a study of experiments.limits."""
    words = ("experiments.limits", name, "--preset", preset, *more)
    return Need(f"limits-{name}", preset, run, THREE, words)


def sweep(preset: str, decays: tuple[str, ...], seeds: tuple[int, ...]) -> tuple[Need, ...]:
    """Runs of experiments.dynamics, in one batched command."""
    words = ("experiments.dynamics", "--preset", preset, "--weight-decays", *decays)
    return tuple(Need("dynamics", preset, f"mnist-mlp-wd{decay}", seeds, words) for decay in decays)


def _arms(experiment: str, preset: str, names: tuple[str, ...]) -> tuple[Need, ...]:
    return tuple(arm(experiment, preset, name) for name in names)


COLLAPSE = ("baseline", "ncc_encourage", "ncc_prevent")
CONTROLS = ("control_confidence", "control_norm")
FORCED = (*COLLAPSE, "flatness_encourage", "flatness_prevent", "flatness_prevent_exact", *CONTROLS)

QUICK_ARMS = _arms("grokking", "quick", (*FORCED, "flatness_release", "control_schedule"))
TRANSFORMER_ARMS = _arms("grokking", "transformer", FORCED)
TRANSFORMER_COLLAPSE = TRANSFORMER_ARMS[:3]
PUBLISHED_HEAD = (arm("grokking", "transformer", "baseline", "--head", "vocabulary", variant="+headvocabulary"),)

_TRUNK, _SHARP = TRANSFORMER_ARMS[0], TRANSFORMER_ARMS[4]
TRANSFORMER_RELEASE = (
    _TRUNK,
    fork(_TRUNK, "control_schedule", *SLOWER, variant="+releaselr1.5+releaseweightdecay1.5"),
    _SHARP,
    fork(_SHARP, "flatness_release", *SLOWER, variant="+releaselr1.5+releaseweightdecay1.5"),
)

TRANSFORMER_REST = (
    fork(_TRUNK, "control_schedule"),
    fork(_SHARP, "flatness_release"),
    arm("grokking", "transformer", "baseline", "--precision", "float32", variant="+precisionfloat32"),
    *(
        arm("grokking", "paper", name, "--steps", "35000", seeds=(0,), variant="+steps35000")
        for name in ("baseline", "ncc_prevent")
    ),
)

CIFAR10_COLLAPSE = _arms("cifar10", "cpu", COLLAPSE)
_CIFAR10_SHARP = arm("cifar10", "cpu", "flatness_prevent")
CIFAR10_ARMS = (
    *CIFAR10_COLLAPSE,
    arm("cifar10", "cpu", "flatness_encourage", seeds=(0,)),
    _CIFAR10_SHARP,
    *_arms("cifar10", "cpu", CONTROLS),
)
CIFAR10_RELEASE = (
    CIFAR10_COLLAPSE[0],
    fork(CIFAR10_COLLAPSE[0], "control_schedule"),
    _CIFAR10_SHARP,
    fork(_CIFAR10_SHARP, "flatness_release"),
)
CIFAR10_REST = (
    *(arm("cifar10", "cpu", name, "--augment", variant="+augment") for name in ("baseline", "ncc_prevent")),
    *(
        arm("cifar10", "cpu", f"{collapse}+{flatness}", seeds=(0,))
        for collapse in ("ncc_encourage", "ncc_prevent")
        for flatness in ("flatness_encourage", "flatness_prevent")
    ),
    *(
        arm("cifar10", "cpu", "ncc_prevent", "--lambdas", value, seeds=(0,), variant=f"+lambda{value}")
        for value in ("0.01", "1e-3", "1e-4")
    ),
    *(
        fork(trunk, name, "--release-at", "0.25", at="0.25", variant="+at0.25")
        for trunk, name in ((CIFAR10_COLLAPSE[0], "control_schedule"), (_CIFAR10_SHARP, "flatness_release"))
    ),
)

CLOCKS = (
    *sweep("grey", FITTED, FIVE),
    *sweep("grey", SMALL, FIVE),
    *sweep("grey", ("0",), FIVE),
    *sweep("theory", THEORY, THREE),
)

_LAST = "wd0.3"
COLLAPSE_ON_TEST_DATA = (
    study("test-collapse", "digits", f"digits-mlp-{_LAST}"),
    study("test-collapse", "digits", f"digits-cnn-{_LAST}", "--network", "cnn"),
    study("test-collapse", "mnist", f"mnist-mlp-{_LAST}"),
    study("test-collapse", "mnist", f"mnist-cnn-{_LAST}", "--network", "cnn"),
    study("test-collapse", "cifar10", "cifar10-resnet18-wd5e-4"),
    study("test-collapse", "grokking", "modular-mlp-wd1"),
    study("test-collapse", "grokking-mnist", "mnist-mlp-wd0.1"),
)
TRANSFER = tuple(
    study("transfer", preset, run if name == "baseline" else f"{run}+{name}", "--arm", name)
    for preset, run in (("digits", f"digits-mlp-{_LAST}"), ("cifar10", "cifar10-resnet18-wd5e-4"))
    for name in COLLAPSE
)
CASCADE = (
    study("cascade", "digits", f"digits-mlp-{_LAST}"),
    study("cascade", "mnist", f"mnist-mlp-{_LAST}"),
    study("cascade", "cifar10", "cifar10-resnet18-wd5e-4"),
)
