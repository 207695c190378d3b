"""python -m theory: what it prints, and with which code it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import theory.__main__ as command
from grokcore.commandline import run_command
from theory.proof import Proof
from theory.statement import Statement
from theory.surrogate_ratio import SURROGATE_RATIO


def leave(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        run_command(command.main, list(argv))
    out, err = capsys.readouterr()
    return int(exit_info.value.code or 0), out, err


def small(status: str, *, holds: bool) -> Statement:
    statement = Statement(
        "small", label="Z", claim="1 = 1", latex="1 = 1", assumptions={}, source="test", kind="equality",
        status=status,  # type: ignore[arg-type]
    )  # fmt: skip
    for channel in ("symbolic", "numeric"):

        @statement.certificate(channel, covers="1", relies_on=channel, whole=True)  # type: ignore[arg-type]
        def check(proof: Proof) -> None:
            """1 is 1."""
            proof.require("1", holds)

    return statement


def test_one_statement_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = leave(capsys, "surrogate_ratio")
    assert code == 0
    for text in ("Assumes", "symbolic:", "numeric:", "without centred", "refuted: ", SURROGATE_RATIO.claim.text):
        assert text in out
    assert err == ""


def test_a_label_is_a_name_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(capsys, "c2")[1].splitlines()[0].startswith("C2  surrogate_ratio")


def test_json_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = leave(capsys, "surrogate_ratio", "--json")
    (data,) = json.loads(out)
    assert code == 0
    assert data["name"] == "surrogate_ratio"
    assert data["contradictions"] == []
    assert {c["channel"] for c in data["certificates"]} >= {"symbolic", "numeric"}
    assert all(c["holds"] for c in data["certificates"])
    assert data["assumptions"].keys() == {c["drops"] for c in data["counterexamples"]}


def test_a_wrong_name_lists_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = leave(capsys, "colapse_curve")
    assert (code, out) == (2, "")
    assert "did you mean 'collapse_curve'?" in err
    assert "surrogate_ratio" not in err
    assert "surrogate_ratio" in leave(capsys, "zzz")[2]
    assert err.count("\n") == 1


def test_a_contradicted_record_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "statements", lambda: [small("proved", holds=False)])
    code, out, err = leave(capsys)
    assert code == 1
    assert "CONTRADICTED" in out
    assert err.startswith("contradiction: small: certificate")


@pytest.mark.parametrize(("status", "holds"), [("open", False), ("open", True), ("refuted", True), ("proved", True)])
def test_open_and_refuted_statements_do_not_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: str, holds: bool
) -> None:
    monkeypatch.setattr(command, "statements", lambda: [small(status, holds=holds)])
    code, out, _ = leave(capsys)
    assert code == 0
    assert status in out


def test_table_has_residual_and_time_on_the_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "statements", lambda: [SURROGATE_RATIO])
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- table theory -->\nold\n<!-- end -->\nafter\n")
    assert "worst residual" in leave(capsys)[1]
    assert leave(capsys, "--write", str(document))[1].endswith("updated\n")
    text = document.read_text()
    assert text.startswith("before\n<!-- table theory -->\n| statement |")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "residual" not in text
    assert leave(capsys, "--write", str(document))[1].endswith("up to date\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write", "nowhere.md"], "there is no file nowhere.md"),
        (["--write", "pyproject.toml"], "has no line <!-- table theory -->"),
        (["surrogate_ratio", "--write", "README.md"], "give no NAME"),
        (["--wrong"], "unrecognized arguments"),
    ],
)
def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, _, err = leave(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_assumptions_are_a_list_of_their_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "statements", lambda: [SURROGATE_RATIO])
    code, out, _ = leave(capsys, "--assumptions")
    assert code == 0
    assert out.count("without it: ") == out.count("found: ") == len(SURROGATE_RATIO.assumptions)
    assert "does not fail" not in out
    assert all(f"\n  {name}: " in out for name in SURROGATE_RATIO.assumptions)
    assert max(map(len, out.splitlines())) <= 112


@pytest.mark.parametrize("forms", [("--json", "--write", "README.md"), ("--assumptions", "--json")])
def test_one_form_at_a_time(capsys: pytest.CaptureFixture[str], forms: tuple[str, ...]) -> None:
    code, out, err = leave(capsys, *forms)
    assert (code, out) == (2, "")
    assert "not allowed with" in err


def test_a_marker_without_an_end_shows_before_the_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- table theory -->\nmine\n")
    code, _, err = leave(capsys, "--write", str(document))
    assert code == 2
    assert "<!-- table theory --> has no <!-- end -->" in err
    assert document.read_text() == "<!-- table theory -->\nmine\n"


def test_names_in_any_case_run_once(capsys: pytest.CaptureFixture[str]) -> None:
    out = leave(capsys, "c2", "Surrogate_Ratio", "--json")[1]
    assert [data["label"] for data in json.loads(out)] == ["C2"]


def test_a_refutation_needs_a_certificate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bare = small("refuted", holds=True)
    bare._certificates.clear()
    monkeypatch.setattr(command, "statements", lambda: [bare])
    code, _, err = leave(capsys)
    assert code == 1
    assert "no certificate that it is" in err


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "theory", "surrogate_ratio", "--json"]
    root = Path(__file__).parents[2]
    left = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=root, check=False)
    os.close(writing)
    assert left.returncode == 141
    assert left.stderr == ""
