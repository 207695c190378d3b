"""The report of a saved model from the shell.

python -m grokcore measure model.pt --model mymodels:resnet --head fc --data test.npz
python -m grokcore measure model.pt --model mymodels:resnet --head fc --data mydata:test --reference mydata:train
python -m grokcore measure model.pt --model mymodels:resnet --head fc --data test.npz --layers all --json
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grokcore.checkpoints import KEYS, load_weights, read_samples
from grokcore.commandline import OneLineParser, run_command
from grokcore.errors import UsageError
from grokcore.report import Report, measure


def main(argv: Sequence[str]) -> int:
    """The command line."""
    words = _parser().parse_args(argv)
    sys.path.insert(0, os.getcwd())
    model = named(words.model)()
    if not isinstance(model, nn.Module):
        raise UsageError(f"{words.model} gave a {type(model).__name__}, not a torch.nn.Module")
    note = load_weights(model, words.checkpoint, words.key)
    if note:
        print(f"{words.checkpoint}: {note}", file=sys.stderr)
    try:
        model.to(words.device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where PyTorch has no CUDA
        raise UsageError(f"--device {words.device}: {_first_line(error)}") from None
    layers = words.layers[0] if words.layers == ["all"] else tuple(words.layers)

    def report_of(spec: str, reference: Report | None = None) -> Report:
        loader = samples(spec, words.batch_size, floating_dtype(model))
        try:
            return measure(model, loader, words.head, layers=layers, reference=reference, pool=words.pool)
        except RuntimeError as error:
            raise UsageError(f"the model fails on {spec}: {_first_line(error)}") from None

    report = report_of(words.data, None if words.reference is None else report_of(words.reference))
    print(report.to_json() if words.json else report)
    return 0


def floating_dtype(model: nn.Module) -> torch.dtype:
    """That of its first floating parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def samples(spec: str, batch_size: int, dtype: torch.dtype) -> Iterable[Any]:
    """A loader: ``module:function``'s, or a file's samples, floating inputs as `dtype`.

    Raises:
        UsageError: there is neither.
    """
    if ":" in spec and not Path(spec).exists():
        found: Iterable[Any] = named(spec)()
        return found
    return read_samples(Path(spec), batch_size, dtype)


def named(spec: str) -> Callable[[], Any]:
    """What ``module:function`` names.

    Raises:
        UsageError: it names nothing that can be called.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise UsageError(f"{spec!r} is no module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UsageError(f"{module} cannot be imported: {error}") from None
    except AttributeError:
        raise UsageError(f"{module} has no {name}") from None
    if not callable(found):
        raise UsageError(f"{spec} is no function")
    called: Callable[[], Any] = found
    return called


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m grokcore")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("measure", help="measure a saved classifier")
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a state dict, or a dict that holds one")
    command.add_argument("--model", required=True, metavar="MODULE:FUNCTION", help="builds the model, no arguments")
    command.add_argument("--head", required=True, metavar="NAME", help="its linear head, as in named_modules()")
    command.add_argument("--data", required=True, metavar="MODULE:FUNCTION|FILE",
                         help="gives a loader, or a file (.npz or torch.save) with inputs and labels")  # fmt: skip
    command.add_argument(
        "--reference", metavar="MODULE:FUNCTION|FILE", help="train data, whose class means NC4 and V take"
    )
    command.add_argument("--layers", nargs="*", default=(), metavar="NAME", help="other layers; 'all' is every one")
    command.add_argument("--pool", default="mean", choices=("mean", "flatten", "first", "last"), help="over positions")
    command.add_argument("--key", help=f"where the checkpoint holds its state dict (default: {', '.join(KEYS)})")
    command.add_argument("--batch-size", type=_positive, default=500, help="samples of a file a pass (default: 500)")
    command.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s"
    )
    command.add_argument("--json", action="store_true", help="JSON instead of the table")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    run_command(main)
