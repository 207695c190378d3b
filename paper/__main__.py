"""The paper: recorded results from finished runs, and the figures, tables, numbers and PDF made of them.

python -m paper refresh --runs runs/     write result files from finished runs, and from nothing else
python -m paper figures [FIG ...]        draw every figure, or some, PDF and PNG; --changed: what is not up to date
python -m paper tables                   print every table (Markdown); write them as LaTeX, and numbers.tex
python -m paper tables --write FILE ...  replace the tables between their markers in files instead of printing
python -m paper check                    fail where a result, a figure, a table or a number in the text is not its run's
python -m paper pdf                      build main.pdf
python -m paper reproduce FIG [--quick]  run what a figure needs, then draw it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from grokcore.commandline import OneLineParser, run_command
from grokcore.documents import Table, write_tables
from grokcore.errors import UsageError
from paper import checks, drawing, every_table, latex, pdf, reproduce, supplement
from paper.catalogue import FIGURES, figure_named
from paper.constants import CONSTANTS, MACRO_PREFIX
from paper.drawing import Drawing
from paper.latex import Number
from paper.numbers import numbers
from paper.paper_tables import paper_tables
from paper.recorded import RESULTS, Settings, refresh, settings


def drawings(results: Path, names: Sequence[str] = ()) -> tuple[list[Drawing], dict[str, list[Path]]]:
    """What can be drawn of the paper's figures and the pages', and of the paper's the results that are missing.

    Args:
        results: the folder of results.
        names: which, by name or number; all if empty.

    Raises:
        UsageError: a name is no figure's.
    """
    others = supplement.drawings(settings(results))
    wanted = set(names) - {each.name for each in others}
    chosen = [figure_named(name) for name in sorted(wanted)] if names else FIGURES
    found, missing = list[Drawing](), dict[str, list[Path]]()
    for figure in chosen:
        lacking = figure.missing(results)
        if lacking:
            missing[f"{figure.number} {figure.name}"] = lacking
        else:
            records = figure.records(results)
            found.append(Drawing(figure.name, records, partial(figure.draw, records)))
    return found + [each for each in others if not names or each.name in names], missing


def figures(results: Path, folder: Path, names: Sequence[str] = (), *, changed: bool = False) -> list[str]:
    """Draw them; returns the names of those drawn.

    Raises:
        UsageError: results of a paper's figure are missing, after the others are drawn.
    """
    if not any(results.rglob("*.json")):
        raise UsageError(f"there are no recorded results below {results}")
    found, missing = drawings(results, names)
    drawn = drawing.draw(found, results, folder, changed=changed, tell=partial(print, flush=True))
    if not drawn and not missing:
        print("every figure is up to date")
    if missing:
        raise UsageError(
            "not drawn, for results that are missing: " + "; ".join(_lacking(*each) for each in missing.items())
        )
    return drawn


def generated(recorded: Settings, full: Mapping[str, Table]) -> tuple[dict[str, str], dict[str, Number]]:
    """The LaTeX files of the tables and numbers.tex, and the numbers."""
    found = numbers(recorded, full)
    return latex.files({**full, **paper_tables(recorded, full)}, found), found


def check(results: Path, folder: Path) -> None:
    """Print what was checked.

    Raises:
        UsageError: the first thing that is wrong.
    """
    count = checks.check_results(results)
    found, missing = drawings(results)
    text = checks.TEXT.read_text(encoding="utf-8")
    recorded = settings(results)
    written, found_numbers = generated(recorded, every_table.tables(recorded))
    complaints: list[tuple[str, list[str]]] = [
        ("figures lack results", [_lacking(*item) for item in missing.items()]),
        ("figures are stale (python -m paper figures)", drawing.stale(found, results, folder)),
        ("files belong to no figure", drawing.strays(found, folder)),
        ("tables are stale (python -m paper tables)", latex.stale(written, latex.GENERATED)),
        ("files belong to no table", latex.strays(written, latex.GENERATED)),
        ("numbers of main.tex are no macro", [f"line {n}: {word}" for n, word in checks.bare_numbers(text, CONSTANTS)]),
        ("listed constants stand nowhere in main.tex", checks.unused(text, CONSTANTS)),
        ("macros are not defined", checks.undefined_macros(text, found_numbers, MACRO_PREFIX)),
    ]
    for words, wrong in complaints:
        if wrong:
            raise UsageError(f"{words}: {'; '.join(wrong)}")
    print(f"{count} result files match their hashes")
    print(f"{len(found)} figures, their tables and {len(found_numbers)} numbers are those of the results")


def _lacking(name: str, paths: Sequence[Path]) -> str:
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"figure {name} ({paths[0]}{rest})"


def _tables(results: Path, folder: Path, documents: Sequence[Path]) -> None:
    recorded = settings(results)
    full = every_table.tables(recorded)
    texts = every_table.texts(recorded, full)
    for document in documents:
        print(f"{document}: {'updated' if write_tables(document, texts) else 'up to date'}")
    for name, text in texts.items() if not documents else ():
        print(f"{name}\n\n{text}\n")
    for path in latex.write(generated(recorded, full)[0], folder):
        print(path)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    words = _parser().parse_args(argv)
    does: dict[str, Callable[[], object]] = {
        "refresh": lambda: print(_files(refresh(words.runs, words.results))),
        "figures": lambda: figures(words.results, words.out, words.names, changed=words.changed),
        "tables": lambda: _tables(words.results, words.out, words.write),
        "check": lambda: check(words.results, words.figures),
        "pdf": lambda: print(pdf.build()),
        "reproduce": lambda: print(
            reproduce.reproduce(
                figure_named(words.figure), quick=words.quick, runs=words.runs, results=words.results,
                folder=words.out, dry=words.dry_run,
            )
        ),
    }  # fmt: skip
    does[words.command]()
    return 0


def _files(count: int) -> str:
    return f"{count} result file{'' if count == 1 else 's'} written"


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m paper")
    commands = parser.add_subparsers(dest="command", required=True)
    to_refresh = commands.add_parser("refresh", help="write result files from finished runs")
    to_figures = commands.add_parser("figures", help="draw the recorded results, PDF and PNG")
    to_figures.add_argument("names", nargs="*", metavar="FIG", help="numbers or names (default: all)")
    to_figures.add_argument("--changed", action="store_true", help="leave out figures that are up to date")
    to_tables = commands.add_parser("tables", help="print the tables of the results; write LaTeX and numbers.tex")
    to_tables.add_argument(
        "--write",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="put them into Markdown files, between lines <!-- table NAME --> and <!-- end -->",
    )
    to_tables.add_argument("--out", type=Path, default=latex.GENERATED, help="folder of the LaTeX files")
    to_check = commands.add_parser("check", help="fail where anything in the paper is not its results'")
    to_check.add_argument("--figures", type=Path, default=drawing.FIGURES, help="folder of figures")
    commands.add_parser("pdf", help="build main.pdf with latexmk")
    known = ", ".join(f"{figure.number} {figure.name}" for figure in FIGURES)
    to_reproduce = commands.add_parser("reproduce", help="run what a figure needs and draw it", epilog=known)
    to_reproduce.add_argument("figure", metavar="FIG", help="its number or name, of those below")
    to_reproduce.add_argument("--quick", action="store_true", help="minutes, one seed, apart in runs/quick")
    to_reproduce.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    for command in (to_refresh, to_reproduce):
        command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    for command in (to_figures, to_reproduce):
        command.add_argument("--out", type=Path, default=drawing.FIGURES, help="folder of figures")
    for command in (to_refresh, to_tables, to_figures, to_check, to_reproduce):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    return parser


if __name__ == "__main__":
    run_command(main)
