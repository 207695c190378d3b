"""What a statement is: a claim with its assumptions, its certificates, its counterexamples and its false siblings.

A statement proves itself by running: `certify` runs its certificates, each in one channel, and
`counterexamples` runs, for every assumption, a stored configuration in which the claim fails without it.
`siblings` are slightly stronger claims that are false, put through the same machinery, which must refute them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from theory.proof import Proof, Step

Kind = Literal["equality", "upper", "lower", "existence"]
Status = Literal["proved", "certified", "checked", "open", "refuted"]
Channel = Literal["symbolic", "rigorous", "numeric", "sampled"]

Check = Callable[[Proof], None]


@dataclass(frozen=True)
class Claim:
    """A claim in plain text and in LaTeX (without dollar signs)."""

    text: str
    latex: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Checked:
    """Steps that ran. ``residual`` is the worst relative one of the numeric steps, None where there is none."""

    text: str
    steps: tuple[Step, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether there are steps and each of them holds."""
        return bool(self.steps) and all(step.holds is True for step in self.steps)

    @property
    def residual(self) -> float | None:
        """The worst residual of the steps that compare two numbers."""
        return max((step.residual for step in self.steps if step.residual is not None), default=None)


@dataclass(frozen=True)
class Certificate(Checked):
    """One channel's evidence.

    Attributes:
        channel: "symbolic" (computer algebra), "rigorous" (ball arithmetic or SMT: every rounding enclosed),
            "numeric" (float64 on explicit configurations, exact Hessians) or "sampled" (random trials).
        covers: the range it speaks about, in words.
        whole: whether that range is the statement's own, with nothing left to extrapolate.
        relies_on: the code it trusts, so that shared code between channels shows.
    """

    channel: Channel
    covers: str
    whole: bool
    relies_on: str


@dataclass(frozen=True)
class Counterexample(Checked):
    """A configuration in which the claim fails without one assumption; `holds` where it does fail."""

    drops: str


@dataclass(frozen=True)
class Sibling(Checked):
    """A slightly stronger, false claim."""

    @property
    def refuted(self) -> bool:
        """Whether the machinery found one of its steps false; a step it could not decide refutes nothing."""
        return any(step.holds is False for step in self.steps)


class Statement:
    """A claim about collapse and flatness that can be run.

    Args:
        name: its name, the one the command line takes.
        label: its place in the list, such as ``"B1"``.
        claim: plain text.
        latex: the claim in LaTeX.
        assumptions: what it needs, name to meaning.
        source: where it is from, or ``"new"``.
        kind: the strength of the claim.
        status: what its checks amount to, on record: "proved" (for the whole range, symbolically or rigorously),
            "certified" (rigorously on a stated part), "checked" (numerically), "open", or "refuted" as stated.
        instead: of a refuted statement, the name of the right one.
    """

    def __init__(
        self,
        name: str,
        *,
        label: str,
        claim: str,
        latex: str,
        assumptions: dict[str, str],
        source: str,
        kind: Kind,
        status: Status = "proved",
        instead: str | None = None,
    ) -> None:
        self.name, self.label, self.source, self.kind, self.status = name, label, source, kind, status
        self.claim = Claim(claim, latex)
        self.assumptions, self.instead = dict(assumptions), instead
        self._certificates: list[tuple[Check, str, Channel, str, bool, str]] = []
        self._counterexamples: list[tuple[Check, str, str]] = []
        self._siblings: list[tuple[Check, str]] = []

    def __repr__(self) -> str:
        return f"<{self.label} {self.name}: {self.kind}, {self.status}>"

    def certificate(
        self, channel: Channel, *, covers: str, relies_on: str, whole: bool = False
    ) -> Callable[[Check], Check]:
        """Decorate a check as a certificate of this statement; its docstring's first line is its text."""

        def add(check: Check) -> Check:
            self._certificates.append((check, _first_line(check), channel, covers, whole, relies_on))
            return check

        return add

    def without(self, assumption: str) -> Callable[[Check], Check]:
        """Decorate a check as the counterexample that drops `assumption`."""
        if assumption not in self.assumptions:
            raise ValueError(f"{self.name} does not assume {assumption!r}")

        def add(check: Check) -> Check:
            self._counterexamples.append((check, assumption, _first_line(check)))
            return check

        return add

    def sibling(self, check: Check) -> Check:
        """Decorate a check of a stronger, false claim; its docstring's first line is that claim."""
        self._siblings.append((check, _first_line(check)))
        return check

    def certify(self, *, thorough: bool = False) -> list[Certificate]:
        """Run every certificate. `thorough` takes more cases where a channel is numeric or sampled."""
        found = []
        for check, text, channel, covers, whole, relies_on in self._certificates:
            found.append(Certificate(text, *_run(check, thorough), channel, covers, whole, relies_on))
        return found

    def counterexamples(self) -> list[Counterexample]:
        """Run the counterexample of every assumption."""
        return [Counterexample(text, *_run(check, False), drops) for check, drops, text in self._counterexamples]

    def siblings(self) -> list[Sibling]:
        """Run the same machinery on the stronger, false claims."""
        return [Sibling(text, *_run(check, False)) for check, text in self._siblings]


def status_of(certificates: list[Certificate]) -> Status | None:
    """The strongest status that these certificates carry; None where one of them does not hold."""
    if not certificates or not all(certificate.holds for certificate in certificates):
        return None
    strong = [c for c in certificates if c.channel in ("symbolic", "rigorous")]
    if any(c.whole for c in strong) and len({c.channel for c in certificates}) > 1:
        return "proved"
    return "certified" if any(c.channel == "rigorous" for c in strong) else "checked"


def _run(check: Check, thorough: bool) -> tuple[tuple[Step, ...], float]:
    proof = Proof(thorough=thorough)
    start, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)  # The matrices are tiny: more threads only wait for each other.
    try:
        check(proof)
    except Exception as error:  # One broken check must not hide the others; it decides nothing.
        proof.steps.append(Step(" ".join(f"raised {type(error).__name__}: {error}".split()), None))
    finally:
        torch.set_num_threads(threads)
    return tuple(proof.steps), time.perf_counter() - start


def _first_line(check: Check) -> str:
    lines = (check.__doc__ or "").strip().splitlines()
    if not lines:
        raise ValueError(f"{check.__name__} has no docstring to be shown")
    return lines[0]
