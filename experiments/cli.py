"""Command lines of the experiments: frozen dataclasses in, one-line errors out.

Exit codes: 0 done, 1 the run itself failed (divergence), 2 bad input, 130 stopped by a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from grokcore.errors import DivergedError, InterruptedRunError, UsageError

T = TypeVar("T")


def parse(default: T, argv: Sequence[str], prog: str) -> T:
    """Override the fields of the dataclass `default` by flags.

    Raises:
        UsageError: with tyro's message on one line, and the nearest flag where one was misspelt.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(type(default), args=list(argv), default=default, prog=prog, description="")
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue(), default)) from None


def peek(argv: Sequence[str], **defaults: str) -> dict[str, str]:
    """The values of a few flags that other defaults depend on, read before the full parse."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value)
    try:
        known, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise UsageError(f"{error.argument_name}: {error.message}") from None
    return dict(vars(known))


def run_command(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> None:
    """Run `main`, turn known errors into one line on stderr, and exit."""
    try:
        code = main(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        code = _fail(str(error), 2)
    except DivergedError as error:
        code = _fail(f"training diverged: {error}", 1)
    except (InterruptedRunError, KeyboardInterrupt) as error:
        code = _fail(f"{error or 'interrupted'}; the same command goes on from the last checkpoint", 130)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}" if code != 130 else message, file=sys.stderr)
    return code


def _one_line(box: str, default: object) -> str:
    """The message inside tyro's frame, which is drawn in ASCII where the terminal has no box characters."""
    inside: list[str] = []
    for line in box.splitlines():
        text = line.strip().strip("\u2502|").strip()
        if text.startswith(("For full helptext", "Argument helptext")):
            break
        if text and not text.startswith(("\u256d", "\u2570")) and set(text) - set("\u2500-"):
            inside.append(text)
    titled_inside = "\u256d" not in box
    message = " ".join(inside[1:] if titled_inside else inside) or "the command line cannot be read"
    # Our own checks name the flag themselves; tyro's name of the group adds nothing.
    message = re.sub(r"^Error parsing (data|model|training|intervention|command): ", "", message)
    unknown = re.search(r"Unrecognized options: (--[\w-]+)", message)
    if unknown:
        near = difflib.get_close_matches(unknown.group(1), _flags(default), n=1)
        hint = f"; did you mean {near[0]}?" if near else " (see --help)"
        return f"unknown option {unknown.group(1)}{hint}"
    return message


def _flags(default: object) -> list[str]:
    found: list[str] = []
    for name in getattr(default, "__dataclass_fields__", {}):
        value = getattr(default, name)
        if hasattr(value, "__dataclass_fields__"):
            found += _flags(value)
        else:
            found.append("--" + name.replace("_", "-"))
    return found
