"""The code blocks of the pages under docs/ run, in order, in one namespace a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = sorted(Path(__file__).parents[1].joinpath("docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


NEEDS = {"adapters.md": ("lightning", "transformers", "tensorboard")}
"""Optional packages of a page."""


@pytest.mark.filterwarnings("ignore:::lightning", "ignore:::torch.utils.data", "ignore::FutureWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDS.get(page.name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    for found in BLOCK.finditer(text):
        # Line numbers of the page show in a traceback.
        source = "\n" * text.count("\n", 0, found.start(1)) + found[1]
        exec(compile(source, str(page), "exec"), namespace)


def test_there_is_a_page_with_code() -> None:
    assert "measure.md" in [page.name for page in WITH_CODE]
