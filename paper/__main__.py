"""The paper's data: recorded results from finished runs, and the tables made of them.

python -m paper refresh --runs runs/     write result files from finished runs, and from nothing else
python -m paper tables                   print the table of every recorded experiment (Markdown)
python -m paper tables --write README.md replace the tables between their markers in a file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from grokcore.commandline import OneLineParser, run_command
from grokcore.documents import markdown, write_tables
from grokcore.errors import UsageError
from grokcore.training import clocks, epochs, table
from grokcore.training.figures import arms_figure, run_figure, save
from grokcore.training.record import MAX_ROWS, Record, by_arm, read_record, read_records, record_of
from grokcore.training.table import by_setting
from paper import differences, dynamics, limits, outcomes, timing_report
from paper.collapse_curve import collapse_curve_figure
from paper.timing import published_runs

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parent / "figures"
SHOWN_RUN = ("grokking", "quick", "ncc_prevent", 0)
"""The run whose own figure the README shows: experiment, preset, arm, seed."""


def refresh(runs: Path, results: Path) -> int:
    """Write a result file for each finished run below `runs`; returns how many.

    Of several runs of one config (made with --fresh) the newest finished one counts. A path that two
    different runs claim is refused: nothing is written.
    """
    if not runs.is_dir():
        raise UsageError(f"there is no folder {runs}")
    chosen: dict[Path, tuple[Path, str]] = {}
    # Sorted by length first, so that seed0-x-10 comes after seed0-x-9.
    for summary in sorted(runs.glob("*/*/*/summary.json"), key=lambda p: (len(str(p)), str(p))):
        record = record_of(summary.parent)
        if len(record.rows) > MAX_ROWS:
            raise UsageError(f"{summary.parent} has {len(record.rows)} rows, a result holds at most {MAX_ROWS}")
        claimed = chosen.get(record.path)
        if claimed is not None and claimed[1] != record.run_id:
            raise UsageError(f"{claimed[0]} and {summary.parent} both claim {record.path}")
        chosen[record.path] = (summary.parent, record.run_id)
    for target, (folder, _) in sorted(chosen.items()):
        record_of(folder).write(results)
        print(f"{results / target}  <-  {folder}")
    return len(chosen)


def tables(results: Path) -> dict[str, str]:
    """A Markdown table for each ``<experiment>/<preset>`` that has results, and for each other setting of it
    (another head, another length) as ``<experiment>/<preset>+<variant>``; then the published measurement
    beside ours, as ``grokking/timing`` and, in words, ``grokking/timing-verdict``, and paper A's outcomes on CIFAR-10
    beside ours, as ``cifar10/<preset>-outcomes``, with the arms' differences as ``cifar10/<preset>-differences``; and
    those of :mod:`paper.dynamics` and :mod:`paper.limits`."""
    found, recorded = {}, settings(results)
    for (experiment, preset, setting), records in recorded.items():
        if experiment.startswith("limits-"):  # a table a study
            continue
        name = f"{experiment}/{preset}" + (f"+{setting}" if setting else "")
        rows = {"cifar10": epochs, "dynamics": clocks}.get(experiment, table)
        found[name] = markdown(rows.HEADER, rows.comparison(records, ["baseline"]))
    for preset, records in of_images(recorded).items():
        found[f"cifar10/{preset}-outcomes"] = markdown(outcomes.HEADER, outcomes.table(records, ["baseline"]))
        found[f"cifar10/{preset}-differences"] = markdown(differences.HEADER, outcomes.differences_table(records))
    found |= dynamics.tables(recorded) | limits.tables(recorded)
    published = published_runs([record for records in recorded.values() for record in records])
    if published:
        found["grokking/timing"] = markdown(timing_report.HEADER, timing_report.table(published))
        found["grokking/timing-verdict"] = timing_report.verdict(published)
    return found


def settings(results: Path) -> dict[tuple[str, str, str], list[Record]]:
    """All recorded results by experiment, preset and setting (:func:`grokcore.training.table.by_setting`)."""
    found = {}
    for folder in sorted(p for p in results.glob("*/*") if p.is_dir()):
        experiment, preset = folder.parts[-2:]
        for setting, records in by_setting(read_records(results, experiment, preset)).items():
            found[experiment, preset, setting] = records
    return found


def of_images(recorded: Mapping[tuple[str, str, str], list[Record]]) -> dict[str, list[Record]]:
    """The CIFAR-10 runs of all settings by their preset."""
    found: dict[str, list[Record]] = {}
    for (experiment, preset, _), records in recorded.items():
        if experiment == "cifar10":
            found.setdefault(preset, []).extend(records)
    return found


def figures(results: Path, folder: Path) -> list[Path]:
    """Draw all arms of each ``<experiment>/<preset>``, those of its other settings that have several arms apart, the
    shown run, CIFAR-10's runs over the collapse curve, the published measurement beside ours, and what
    :mod:`paper.dynamics` and :mod:`paper.limits` draw; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, recorded = [], settings(results)
    for (experiment, preset, setting), records in recorded.items():
        if experiment not in ("grokking", "cifar10") or (setting and len(by_arm(records)) == 1):
            continue
        apart = [] if setting else [s for e, p, s in recorded if (e, p) == (experiment, preset) and s]
        drawn.append(folder / f"{experiment}-{preset}{'+' * bool(setting)}{setting}-arms.png")
        save(arms_figure(records, apart=apart), drawn[-1])
        for record in records:
            if (experiment, preset, record.arm, record.config["seed"]) == SHOWN_RUN:
                baselines = [r for r in records if r.arm == "baseline"]
                drawn.append(folder / f"{experiment}-{preset}-{record.arm}-seed{record.config['seed']}.png")
                save(run_figure(record, baselines), drawn[-1])
    if not recorded:
        raise UsageError(f"there are no recorded results below {results}")
    for preset, records in of_images(recorded).items():
        for split in ("train", "test"):
            drawn.append(folder / f"cifar10-{preset}-collapse-curve-{split}.png")
            save(collapse_curve_figure(records, split=split), drawn[-1])
    drawn += [*dynamics.figures(recorded, folder), *limits.figures(recorded, folder)]
    published = published_runs([record for records in recorded.values() for record in records])
    for name, records in published.items():
        drawn.append(folder / f"grokking-{name.replace(', ', '+')}-timing.png")
        save(timing_report.timing_figure(name, records), drawn[-1])
    if not published:
        print("no timing figure: no run with the published head is recorded (baseline+headvocabulary)")
    return drawn


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = OneLineParser(prog="python -m paper")
    commands = parser.add_subparsers(dest="command", required=True)
    to_refresh = commands.add_parser("refresh", help="write result files from finished runs")
    to_refresh.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    to_tables = commands.add_parser("tables", help="print the tables of the recorded results")
    to_tables.add_argument("--write", type=Path, metavar="FILE", help="put them between their markers in FILE")
    to_figures = commands.add_parser("figures", help="draw the recorded results")
    to_figures.add_argument("--out", type=Path, default=FIGURES, help="folder of figures")
    to_check = commands.add_parser("check", help="fail where a result file does not match its hash")
    for command in (to_refresh, to_tables, to_figures, to_check):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    words = parser.parse_args(argv)
    if words.command == "refresh":
        count = refresh(words.runs, words.results)
        print(f"{count} result file{'' if count == 1 else 's'} written")
        return 0
    if words.command == "figures":
        for path in figures(words.results, words.out):
            print(path)
        return 0
    if words.command == "check":
        paths = sorted(words.results.rglob("*.json"))
        for path in paths:
            if read_record(path).path != path.relative_to(words.results):
                raise UsageError(f"{path} holds the result of {read_record(path).path}")
        if not paths:
            raise UsageError(f"there are no recorded results below {words.results}")
        print(f"{len(paths)} result files match their hashes")
        return 0
    if words.write is not None:
        changed = write_tables(words.write, tables(words.results))
        print(f"{words.write}: {'updated' if changed else 'up to date'}")
        return 0
    for name, text in tables(words.results).items():
        print(f"{name}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
