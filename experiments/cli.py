"""Command lines of the experiments: frozen dataclasses in, one-line errors out."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Annotated, TypeVar

import tyro

from grokcore.commandline import OneLineParser
from grokcore.errors import UsageError

T = TypeVar("T")


def parse(default: T, argv: Sequence[str], prog: str, says: Mapping[str, str] | None = None) -> T:
    """Override the fields of the dataclass `default` by flags; `says` has help texts in place of its class's own.

    Raises:
        UsageError: with tyro's message on one line, and the nearest flag where one was misspelt.
    """
    said, kind = io.StringIO(), type(default)
    texts = [
        (name, Annotated[str, tyro.conf.arg(help=text)], getattr(default, name)) for name, text in (says or {}).items()
    ]
    shape = make_dataclass(kind.__name__, texts, bases=(kind,), frozen=True) if texts else kind
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(shape, args=list(argv), default=shape(**vars(default)), prog=prog, description="")
        return kind(**vars(found))
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue(), default)) from None


def peek(argv: Sequence[str], **defaults: str) -> dict[str, str]:
    """The values of a few flags that other defaults depend on, read before the full parse."""
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value)
    known, _ = parser.parse_known_args(list(argv))
    return dict(vars(known))


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
        preset = getattr(default, "preset", None)
        see = f" (see --preset {preset} --help)" if preset else " (see --help)"
        hint = f"; did you mean {near[0]}?" if near else see
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
