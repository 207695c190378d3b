"""The forms in which CIFAR-10 lies on a disk: which one a path holds, what tells it from others, how it is decoded."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grokcore.data import cifar10_jpeg, cifar10_official
from grokcore.data.archives import DamagedArchiveError, first_file
from grokcore.data.cifar10_official import ARCHIVE, FOLDER, Distribution
from grokcore.data.image_cache import Decoded
from grokcore.data.lookup import find, recognised
from grokcore.errors import UsageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""By label; alphabetical, as in the official distribution."""
SUBFOLDER = "cifar10"
"""Where a folder of several data sets has this one."""
_TAR = re.compile(r".*\.(tar|tar\.\w+|tgz|txz|tbz2?)")
_NAMED = re.compile(r"cifar[-_]?10(?!\d)", re.IGNORECASE)

Form = Literal["official archive", "official folder", "JPEG archive", "JPEG folder"]


@dataclass(frozen=True)
class Source:
    """CIFAR-10 on a disk, in one of its forms."""

    form: Form
    path: Path

    def identity(self) -> str:
        """What changes with the content: an archive's SHA-256; a folder's place and its files' names, sizes and times.

        Raises:
            OSError: a file cannot be read.
        """
        if self.path.is_file():
            with open(self.path, "rb") as file:
                return f"{self.form} {hashlib.file_digest(file, 'sha256').hexdigest()}"
        folder = self.path.resolve()
        if self.form == "JPEG folder":
            return f"{self.form} {folder} {_listing(cifar10_jpeg.image_files(folder))}"
        with os.scandir(folder) as files:
            return f"{self.form} {folder} {_listing(files)}"

    def decode(self, official: Distribution) -> Decoded:
        """All images.

        Raises:
            UsageError: it is damaged, or holds something else.
            OSError: a file cannot be read.
        """
        match self.form:
            case "official archive":
                return cifar10_official.read_archive(self.path, official)
            case "official folder":
                return cifar10_official.read_folder(self.path, official)
            case "JPEG archive":
                return cifar10_jpeg.read_tar(self.path, CLASSES)
            case "JPEG folder":
                return cifar10_jpeg.read_folder(self.path, CLASSES)


def find_source(path: Path | None, cache: Path | None) -> Source | None:
    """What `path` holds, where it is given; else what the first place that has the data holds, None where none has.

    Raises:
        UsageError: `path` is missing or holds no CIFAR-10, or a place cannot be read.
    """
    if path is None:
        return find(SUBFOLDER, source_in, cache)
    path = path.expanduser()
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    source = recognised(path, source_in) or recognised(path / SUBFOLDER, source_in)
    if source is not None:
        return source
    # Decoding says what is wrong with it.
    if path.is_file():
        return Source("JPEG archive", path)
    if any((path / chosen).is_dir() for chosen in cifar10_jpeg.SETS):
        return Source("JPEG folder", path)
    raise UsageError(
        f"{path} holds no CIFAR-10: neither {ARCHIVE}, {FOLDER}, nor train|test/CLASS/NNNN.jpg in a tar or in folders"
    )


def source_in(path: Path) -> Source | None:
    """What a file or folder holds, by its names; the official distribution goes first."""
    if path.is_file():
        return _archive(path)
    if not path.is_dir():
        return None
    for folder in (path, path / FOLDER):
        if folder.is_dir() and (folder.name == FOLDER or (folder / "data_batch_1").is_file()):
            return Source("official folder", folder)
    tars = sorted(file for file in path.iterdir() if _TAR.fullmatch(file.name.lower()) and file.is_file())
    archives = [archive for archive in map(_archive, tars) if archive is not None]
    if archives:
        return next((archive for archive in archives if archive.form == "official archive"), archives[0])
    if any((path / chosen / label).is_dir() for chosen in cifar10_jpeg.SETS for label in CLASSES):
        return Source("JPEG folder", path)
    return None


def _archive(path: Path) -> Source | None:
    """By its name or its first file; a damaged one counts where it is called CIFAR-10, so as not to pass it over."""
    if path.name == ARCHIVE:
        return Source("official archive", path)
    try:
        first = first_file(path)
    except DamagedArchiveError:
        return Source("JPEG archive", path) if _NAMED.search(f"{path.parent.name}/{path.name}") else None
    if first.startswith(f"{FOLDER}/"):
        return Source("official archive", path)
    image = cifar10_jpeg.IMAGE.fullmatch(first)
    return Source("JPEG archive", path) if image and image[2] in CLASSES else None


def _listing(files: Iterable[os.DirEntry[str]]) -> str:
    """Digest of names, sizes and times; the time of the last change of any kind too, which no copy sets back."""
    total = hashlib.sha256()
    for file, about in sorted((file.path, file.stat()) for file in files):
        total.update(
            f"{file}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ctime_ns}\n".encode(errors="surrogateescape")
        )
    return total.hexdigest()
