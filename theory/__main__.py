"""The theory, run: every statement with its certificates, counterexamples and false siblings.

python -m theory                      the status table of every statement
python -m theory collapse_curve       one statement: assumptions, steps of its proof, counterexamples
python -m theory --json               the same as data
python -m theory --write README.md docs/theory.md    put the tables (without time and residuals) between their markers

Exit code 1 where a check contradicts a recorded status.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from grokcore.commandline import OneLineParser, run_command
from grokcore.documents import markdown, plain, with_tables, write_tables
from grokcore.errors import UsageError, without_nan
from theory import statements
from theory.statement import Statement
from theory.status import (
    ASSUMPTIONS_HEADER,
    HEADER,
    MEASURED,
    Outcome,
    assumption_list,
    assumption_rows,
    claims,
    measured,
    page,
    row,
    run,
)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = OneLineParser(prog="python -m theory", description="Run the statements of the theory.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="statements to run in full, by name or label")
    parser.add_argument("--thorough", action="store_true", help="more cases in the numeric and sampled channels")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print data instead of text")
    form.add_argument("--assumptions", action="store_true", help="print each assumption with its counterexample")
    form.add_argument(
        "--write",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="put the tables into Markdown files, between <!-- table theory --> and <!-- end -->",
    )
    words = parser.parse_args(argv)
    chosen = list(dict.fromkeys(find(name) for name in words.names)) or statements()
    documents: list[Path] = words.write or []
    if documents and words.names:
        raise UsageError("--write takes the table of every statement: give no NAME with it")
    for document in documents:
        if not document.is_file():
            raise UsageError(f"there is no file {document}")
        text = document.read_text(encoding="utf-8")
        if "<!-- table theory" not in text:
            raise UsageError(f"{document} has no line <!-- table theory --> ... <!-- end -->")
        with_tables(text, tables([]))  # What is wrong with the markers shows before the minutes of work.
    outcomes = [
        run(statement, thorough=words.thorough)
        for statement in tqdm(chosen, desc="statements", unit="", disable=not sys.stderr.isatty(), leave=False)
    ]
    contradictions = [f"{o.statement.name}: {text}" for o in outcomes for text in o.contradictions]
    if words.json:
        print(json.dumps(without_nan([outcome.to_dict() for outcome in outcomes]), indent=2))
    elif documents:
        for document in documents:
            changed = not contradictions and write_tables(document, tables(outcomes))
            print(f"{document}: {'left as it is' if contradictions else 'updated' if changed else 'up to date'}")
    elif words.assumptions:
        print(assumption_list(outcomes))
    elif words.names:
        print("\n\n".join(page(outcome) for outcome in outcomes))
    else:
        # What is longest stands last, where a narrow terminal may wrap it.
        cells = [(row(outcome), measured(outcome)) for outcome in outcomes]
        print(plain([*HEADER[:-1], *MEASURED, HEADER[-1]], [[*r[:-1], *m, r[-1]] for r, m in cells]))
    for text in contradictions:
        print(f"contradiction: {text}", file=sys.stderr)
    return 1 if contradictions else 0


def find(name: str) -> Statement:
    """The statement with this name or label.

    Raises:
        UsageError: there is none; the message lists the names.
    """
    known = statements()
    for statement in known:
        if name.lower() in (statement.name.lower(), statement.label.lower()):
            return statement
    names = [statement.name for statement in known]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    rest = f"did you mean {near[0]!r}? docs/theory.md has all" if near else f"the names: {', '.join(names)}"
    raise UsageError(f"there is no statement {name!r}; {rest}")


def tables(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """What the documents hold, in Markdown, by the names of their markers."""
    return {
        "theory/claims": claims(outcomes) + "\n",
        "theory": markdown(HEADER, [row(outcome) for outcome in outcomes]),
        "theory/assumptions": markdown(ASSUMPTIONS_HEADER, [cells[:-1] for cells in assumption_rows(outcomes)]),
    }


if __name__ == "__main__":
    run_command(main)
