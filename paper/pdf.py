"""The PDF, by latexmk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from grokcore.errors import UsageError
from paper.checks import TEXT

PACKAGES = "latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended"
"""Debian's names."""
BUILD = "build"


def build(text: Path = TEXT) -> Path:
    """Build main.pdf beside main.tex; what LaTeX leaves goes into build/.

    Raises:
        UsageError: LaTeX is not installed, or it failed.
    """
    if shutil.which("latexmk") is None:
        raise UsageError(f"there is no latexmk here; on Debian and Ubuntu: apt install {PACKAGES}")
    command = ("latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", f"-outdir={BUILD}", text.name)
    done = subprocess.run(command, cwd=text.parent, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        complaints = [line for line in done.stdout.splitlines() if line.startswith("!")]
        log = text.parent / BUILD / text.with_suffix(".log").name
        raise UsageError(f"latexmk failed: {complaints[0] if complaints else 'see'} ({log})")
    built = text.with_suffix(".pdf")
    shutil.copyfile(text.parent / BUILD / built.name, built)
    return built
