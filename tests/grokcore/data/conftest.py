"""Fixtures of the data sets' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from grokcore.data import lookup


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in `tmp_path`/checkout, and no data or cache that this machine has; returns its shared/data."""
    monkeypatch.setattr(lookup, "ROOT", tmp_path / "checkout")
    monkeypatch.delenv("GROKCORE_DATA", raising=False)
    monkeypatch.setenv("GROKCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "shared" / "data"
