"""Running statements and holding what was found against the recorded status; the tables made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

from grokcore.documents import escaped
from theory.statement import Certificate, Checked, Counterexample, Sibling, Statement, Status, status_of

HEADER = ["statement", "kind", "status", "channels that hold", "counterexamples", "siblings refuted", "covers"]
MEASURED = ["worst residual", "time (s)"]

_STRENGTH: dict[Status | None, int] = {None: 0, "checked": 1, "certified": 2, "proved": 3}


@dataclass(frozen=True)
class Outcome:
    """What one run of a statement found."""

    statement: Statement
    certificates: list[Certificate]
    counterexamples: list[Counterexample]
    siblings: list[Sibling]

    @property
    def contradictions(self) -> list[str]:
        """Each way in which the checks contradict the recorded status; empty where they agree."""
        recorded, found = self.statement.status, status_of(self.certificates)
        failed = [
            f"{kind} {item.text!r} fails at {_first_failure(item)}"
            for kind, items in (("certificate", self.certificates), ("counterexample", self.counterexamples))
            for item in items
            if not item.holds and not (recorded == "open" and kind == "certificate")
        ]
        failed += [f"the false claim {s.text!r} is not refuted" for s in self.siblings if not s.refuted]
        if recorded == "refuted" and not self.certificates:
            failed.append("recorded as refuted, with no certificate that it is")
        if not failed and recorded not in ("open", "refuted") and _STRENGTH[found] < _STRENGTH[recorded]:
            failed.append(f"recorded as {recorded}, its certificates carry {found or 'nothing'}")
        return failed

    @property
    def residual(self) -> float | None:
        """The worst residual of its certificates."""
        return max((c.residual for c in self.certificates if c.residual is not None), default=None)

    @property
    def seconds(self) -> float:
        """Everything that ran, seconds."""
        return sum(item.seconds for item in (*self.certificates, *self.counterexamples, *self.siblings))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        statement = self.statement
        return {
            "name": statement.name,
            "label": statement.label,
            "claim": asdict(statement.claim),
            "kind": statement.kind,
            "status": statement.status,
            "instead": statement.instead,
            "source": statement.source,
            "assumptions": statement.assumptions,
            "contradictions": self.contradictions,
            "certificates": [asdict(c) | {"holds": c.holds, "residual": c.residual} for c in self.certificates],
            "counterexamples": [asdict(c) | {"holds": c.holds} for c in self.counterexamples],
            "siblings": [asdict(s) | {"refuted": s.refuted} for s in self.siblings],
            "seconds": self.seconds,
        }


def run(statement: Statement, *, thorough: bool = False) -> Outcome:
    """Certificates, counterexamples and false siblings of one statement."""
    return Outcome(statement, statement.certify(thorough=thorough), statement.counterexamples(), statement.siblings())


def row(outcome: Outcome) -> list[str]:
    """The cells of HEADER: the same on every machine where every check holds."""
    statement = outcome.statement
    right = f"; what is right: {statement.instead}" if statement.instead else ""
    dropped = {c.drops for c in outcome.counterexamples if c.holds}
    refuted = sum(s.refuted for s in outcome.siblings)
    return [
        f"{statement.label} {statement.name}",
        statement.kind,
        "CONTRADICTED" if outcome.contradictions else statement.status,
        ", ".join(dict.fromkeys(c.channel for c in outcome.certificates if c.holds)) or "none",
        f"{len(dropped)} of {len(statement.assumptions)}",
        f"{refuted} of {len(outcome.siblings)}",
        coverage(outcome.certificates) + right,
    ]


def measured(outcome: Outcome) -> list[str]:
    """The cells of MEASURED."""
    return ["" if outcome.residual is None else f"{outcome.residual:.1e}", f"{outcome.seconds:.1f}"]


def coverage(certificates: Sequence[Certificate]) -> str:
    """The widest range that holds: that of the whole certificates, or of all where none covers the whole."""
    holding = [c for c in certificates if c.holds]
    whole = [c.covers for c in holding if c.whole]
    return "; ".join(dict.fromkeys(whole or [c.covers for c in holding])) or "nothing"


ASSUMPTIONS_HEADER = ["statement", "assumption", "meaning", "a configuration without it"]


def assumption_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row for each assumption of each statement: the stored configuration in which the claim fails without it.

    The last cell, what was found there, holds numbers, whose last digits differ between machines.
    """
    rows = []
    for outcome in outcomes:
        for name, meaning in outcome.statement.assumptions.items():
            cases = [c for c in outcome.counterexamples if c.drops == name]
            found = [step.text for case in cases for step in case.steps if case.holds]
            texts = [case.text for case in cases] or ["none stored"]
            label = f"{outcome.statement.label} {outcome.statement.name}"
            rows.append([label, name, meaning, " ".join(texts), "; ".join(found) or "does not fail"])
    return rows


def assumption_list(outcomes: Sequence[Outcome]) -> str:
    """The same for a terminal: each statement, its assumptions below it, and below each what fails without it."""
    lines: list[str] = []
    for label, name, meaning, without, found in assumption_rows(outcomes):
        lines += [] if label in lines else [label]
        for indent, text in ((2, f"{name}: {meaning}"), (6, f"without it: {without}"), (6, f"found: {found}")):
            lines.append(fill(text, 112, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2)))
    return "\n".join(lines)


def claims(outcomes: Sequence[Outcome]) -> str:
    """Each claim with its LaTeX, assumptions and source, in Markdown."""
    sections = []
    for outcome in outcomes:
        s = outcome.statement
        instead = f", see `{s.instead}`" if s.instead else ""
        sections.append(
            f"### {s.label} `{s.name}`\n\n{escaped(s.claim.text)}\n\n$${s.claim.latex}$$\n\n"
            f"{s.kind.capitalize()}; {s.status}{instead}. Source: {escaped(s.source)}. "
            f"Assumes: {', '.join(s.assumptions) or 'nothing'}."
        )
    return "\n\n".join(sections)


def page(outcome: Outcome) -> str:
    """Everything about one statement, for a terminal."""
    s = outcome.statement
    lines = [f"{s.label}  {s.name}  ({s.kind}; {s.status}; source: {s.source})", "", f"  {s.claim.text}"]
    lines += [f"  {s.claim.latex}", ""]
    if s.instead:
        lines += [f"Refuted as stated. The right statement: {s.instead}", ""]
    lines += ["Assumes", *(f"  {name}: {meaning}" for name, meaning in s.assumptions.items()), ""]
    for c in outcome.certificates:
        whole = "its whole range" if c.whole else "part of its range"
        lines.append(f"{_mark(c.holds)} {c.channel}: {c.text}")
        lines.append(f"      covers {c.covers} ({whole}); relies on {c.relies_on}; {c.seconds:.1f} s")
        lines += [_step(step.text, step.holds, step.residual) for step in c.steps]
    lines += ["", "Without an assumption it fails"]
    for case in outcome.counterexamples:
        lines.append(f"{_mark(case.holds)} without {case.drops}: {case.text}")
        lines += [_step(step.text, step.holds, step.residual) for step in case.steps]
    lines += ["", "Stronger claims, put through the same checks"]
    for sibling in outcome.siblings:
        lines.append(f"{_mark(sibling.refuted)} refuted: {sibling.text}")
        lines += [_step(step.text, step.holds, step.residual) for step in sibling.steps if step.holds is not True]
    return "\n".join([*lines, *(f"CONTRADICTION: {text}" for text in outcome.contradictions)])


def _first_failure(item: Checked) -> str:
    return next((repr(step.text) for step in item.steps if step.holds is not True), "no step at all")


def _mark(holds: bool) -> str:
    return "ok   " if holds else "FAILS"


def _step(text: str, holds: bool | None, residual: float | None) -> str:
    word = {True: "ok", False: "false", None: "undecided"}[holds]
    return f"        [{word}] {text}" + ("" if residual is None else f"  (residual {residual:.1e})")
