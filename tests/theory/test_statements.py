"""What every statement owes its reader: one contract, run on each of them.

A statement's certificates, counterexamples and false siblings run once; every test reads the same outcome.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from grokcore.documents import with_tables
from theory import statements
from theory.__main__ import tables
from theory.statement import status_of
from theory.status import Outcome, run

STATEMENTS = {statement.name: statement for statement in statements()}
ROOT = Path(__file__).parents[2]

# The back-quoted names of the groups A to F, so that a lost file cannot pass unseen.
NAMES = [
    "head_hessian",
    "head_closed_form",
    "invariance",
    "why_kappa",
    "bounds_from_outputs",
    "layer_closed_form",
    "collapse_curve",
    "collapse_and_low_loss_is_flat",
    "published_bound",
    "rise_then_fall",
    "spectrum",
    "flattest_given_outputs",
    "flattest_factorisation",
    "converse_fails",
    "relu_price",
    "stability",
    "surrogate_upper_bound",
    "surrogate_ratio",
    "surrogate_is_gameable",
    "ufm_law",
    "ufm_landscape",
    "two_clocks",
    "label_smoothing_floor",
    "squared_loss_does_not_flatten",
    "cantelli_bound",
    "directional_cantelli",
    "nearest_boundary",
    "information_bound",
    "rnc1_nc1",
    "finite_robustness",
    "strong_collapse_is_bayes",
    "test_variance_floor",
    "transfer_ceiling",
    "variance_is_the_price",
]

every_statement = pytest.mark.parametrize("name", list(STATEMENTS))


@cache
def outcome(name: str) -> Outcome:
    return run(STATEMENTS[name])


def test_every_name_is_there() -> None:
    assert set(NAMES) <= set(STATEMENTS)


def test_labels_and_names_are_unique() -> None:
    assert len({statement.label for statement in STATEMENTS.values()}) == len(statements())


@every_statement
def test_certificates_hold(name: str) -> None:
    certificates = outcome(name).certificates
    assert not [(c.channel, step.text) for c in certificates for step in c.steps if step.holds is not True]
    assert all(c.steps for c in certificates)


@every_statement
def test_recorded_status_is_what_the_certificates_carry(name: str) -> None:
    statement = STATEMENTS[name]
    if statement.status not in ("open", "refuted"):
        assert statement.status == status_of(outcome(name).certificates)
    if statement.status == "refuted":
        assert statement.instead in STATEMENTS


@every_statement
def test_two_channels_that_rely_on_different_code(name: str) -> None:
    certificates = outcome(name).certificates
    assert len({c.channel for c in certificates}) >= 2
    assert len({c.relies_on for c in certificates}) >= 2


@every_statement
def test_each_assumption_has_a_counterexample_that_works(name: str) -> None:
    found = {c.drops for c in outcome(name).counterexamples if c.holds}
    assert found == set(STATEMENTS[name].assumptions)


@every_statement
def test_a_stronger_claim_is_refuted(name: str) -> None:
    siblings = outcome(name).siblings
    assert siblings or STATEMENTS[name].status == "refuted"
    assert all(sibling.refuted for sibling in siblings)
    raised = [step.text for s in siblings for step in s.steps if step.text.startswith("raised ")]
    assert not raised


@every_statement
def test_nothing_contradicts_the_record(name: str) -> None:
    assert outcome(name).contradictions == []


@pytest.mark.slow
@every_statement
def test_nothing_contradicts_the_record_in_the_thorough_profile(name: str) -> None:
    assert run(STATEMENTS[name], thorough=True).contradictions == []


@every_statement
def test_says_what_it_is(name: str) -> None:
    statement = STATEMENTS[name]
    assert len(statement.claim.text) > 20
    assert statement.claim.latex.count("{") == statement.claim.latex.count("}")
    # Two commands run together when a string ends in one: \quad and WH.
    assert not re.search(r"\\q?quad[A-Za-z]", statement.claim.latex)
    assert "\\" in statement.claim.latex
    assert statement.source
    assert str(statement.claim) == statement.claim.text


@pytest.mark.parametrize("document", ["README.md", "docs/theory.md"])
def test_tables_in_the_documents_are_fresh(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    made = tables([outcome(name) for name in STATEMENTS])
    assert "<!-- table theory" in text
    assert with_tables(text, made) == text, "run: python -m theory --write README.md docs/theory.md"
