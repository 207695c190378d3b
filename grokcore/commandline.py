"""What every command line here shares: one-line errors and exit codes.

Exit codes: 0 done, 1 the work itself failed (divergence, a number that is not finite), 2 bad input, 130 stopped by a
signal, 141 whoever read the output has left (``| head``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from grokcore.errors import DivergedError, InterruptedRunError, NonFiniteError, UsageError

STOPPED = 130
"""Exit code of what a signal stopped."""


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UsageErrors, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def run_command(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Run `main`, turn known errors into one line on stderr, and exit."""
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # Here, where a pipe that broke can still be caught.
    except UsageError as error:
        code = _fail(f"error: {error}", 2)
    except NonFiniteError as error:
        code = _fail(f"error: {error}", 1)
    except DivergedError as error:
        code = _fail(f"error: training diverged: {error}", 1)
    except InterruptedRunError as error:
        code = _fail(f"{error}; the same command (without --fresh) goes on from the last checkpoint", STOPPED)
    except KeyboardInterrupt as error:
        code = _fail(str(error) or "interrupted", STOPPED)
    except BrokenPipeError:
        # Nobody reads: what is still buffered goes nowhere, or it would complain on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        code = _fail(f"error: {error.filename or 'the file system'}: {error.strerror or error}", 2)
    except UnicodeError as error:
        code = _fail(f"error: a file is not text: {error}", 2)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code
