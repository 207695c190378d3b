"""Where data sets are looked for: a path that was given, $GROKCORE_DATA, shared/data, the user's cache folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import platformdirs

from grokcore.errors import UsageError
from grokcore.files import ROOT

Found = TypeVar("Found")


def cache_folder(cache: Path | None = None) -> Path:
    """The user's cache folder: `cache`, else $GROKCORE_CACHE, else where the system keeps caches."""
    if cache is not None:
        return cache.expanduser()
    named = os.environ.get("GROKCORE_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("grokcore", appauthor=False)


def places(cache: Path | None = None) -> list[tuple[str, Path]]:
    """The folders that are searched where no path is given, first to last, each with its name in messages."""
    named = os.environ.get("GROKCORE_DATA")
    found = [("$GROKCORE_DATA", Path(named).expanduser())] if named else []
    return [*found, ("shared/data", ROOT.parent / "shared" / "data"), ("the cache", cache_folder(cache))]


def find(subfolder: str, recognise: Callable[[Path], Found | None], cache: Path | None = None) -> Found | None:
    """The first thing that `recognise` sees in a place or in its `subfolder`; None where no place has it.

    Raises:
        UsageError: a place that cannot be read, or whatever `recognise` refuses.
    """
    for _, place in places(cache):
        for path in (place, place / subfolder):
            found = recognised(path, recognise)
            if found is not None:
                return found
    return None


def recognised(path: Path, recognise: Callable[[Path], Found | None]) -> Found | None:
    """`recognise` of a path that exists.

    Raises:
        UsageError: the path cannot be read.
    """
    try:
        return recognise(path) if path.exists() else None
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or path}: {error.strerror or error}") from None


def not_found(data: str, cache: Path | None = None, *, advice: str) -> UsageError:
    """What to say where no place has the data."""
    looked = ", ".join(f"{name} ({place})" for name, place in places(cache))
    return UsageError(f"no {data} found in {looked}; say where it is with {advice}")
