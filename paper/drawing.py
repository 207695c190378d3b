"""Figures as files, PDF and PNG, with a manifest of what each was drawn from: the same results give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from grokcore.errors import UsageError
from grokcore.files import ROOT, write_bytes_atomically, write_text_atomically
from grokcore.training.record import Record
from paper.charts.look import VENUE
from paper.recorded import digest_of

FIGURES = Path(__file__).parent / "figures"
MANIFEST = "manifest.json"
METADATA = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
"""Nothing of the day or the library in a file."""
WIDEST = 1540
"""Pixels of a PNG."""
LIBRARIES = ("matplotlib", "numpy", "torch")
SOURCES = ("paper", "grokcore", "theory")


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn: its files' name, what it is drawn from, and how."""

    name: str
    records: Sequence[Record]
    draw: Callable[[], Figure]


def write_figure(figure: Figure, folder: Path, name: str) -> dict[str, str]:
    """Write PDF and PNG, each in one move; returns their hashes by file name."""
    found = {}
    for kind, metadata in METADATA.items():
        buffer = io.BytesIO()
        with rc_context(VENUE), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # curves without a positive value on a log axis
            figure.savefig(buffer, format=kind, metadata=metadata, dpi=min(220, WIDEST / figure.get_figwidth()))
        path = folder / f"{name}.{kind}"
        write_bytes_atomically(path, buffer.getvalue())
        found[path.name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    return found


def draw(
    drawings: Sequence[Drawing],
    results: Path,
    folder: Path,
    *,
    changed: bool = False,
    tell: Callable[[Path], None] = lambda png: None,
) -> list[str]:
    """Draw figures into a folder and note them in its manifest.

    Args:
        drawings: what to draw.
        results: the folder of the records.
        folder: where the files go.
        changed: leave out those whose files, results, sources and libraries are those of the manifest.
        tell: called with each PNG once it is written.

    Returns:
        The names of those drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes, sources, drawn = manifest(folder), _sources(), list[str]()
    for each in drawings:
        digest = digest_of(each.records, results)
        note = notes.get(each.name, {})
        if changed and note.get("sources") == sources and up_to_date(note, digest, folder):
            continue
        notes[each.name] = {
            "results": digest,
            "sources": sources,
            "files": write_figure(each.draw(), folder, each.name),
        }
        drawn.append(each.name)
        # After each, so that nothing drawn is lost.
        write_text_atomically(folder / MANIFEST, json.dumps(notes, indent=1, sort_keys=True) + "\n")
        tell(folder / f"{each.name}.png")
    return drawn


def stale(drawings: Sequence[Drawing], results: Path, folder: Path) -> list[str]:
    """The names of the figures whose results or files are not those of the manifest."""
    notes = manifest(folder)
    return [
        each.name
        for each in drawings
        if not up_to_date(notes.get(each.name, {}), digest_of(each.records, results), folder)
    ]


def strays(drawings: Sequence[Drawing], folder: Path) -> list[str]:
    """Files of the folder that belong to no figure."""
    known = {f"{each.name}.{kind}" for each in drawings for kind in METADATA} | {MANIFEST}
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


def up_to_date(note: dict[str, object], digest: str, folder: Path) -> bool:
    """Whether a manifest's entry is about these results and the files that lie there."""
    files = note.get("files")
    if note.get("results") != digest or not isinstance(files, dict):
        return False
    return all((folder / name).is_file() and _hash(folder / name) == known for name, known in files.items())


def manifest(folder: Path) -> dict[str, dict[str, object]]:
    """What the folder's figures were drawn from; empty where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        found: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise UsageError(f"{path} cannot be read; python -m paper figures makes it again once it is gone") from None
    return found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sources() -> str:
    """A hash of the code and the libraries that draw."""
    total = hashlib.sha256("".join(f"{name}={version(name)};" for name in LIBRARIES).encode())
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            total.update(path.read_bytes())
    return total.hexdigest()
