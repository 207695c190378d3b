"""Tables in documents: what stands between the markers, and nothing else, is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from grokcore.documents import escaped, markdown, plain, with_tables, write_tables
from grokcore.errors import UsageError

PAGE = "a\n<!-- table one -->\n<!-- end -->\nb\n<!-- table two -->\nold\n<!-- end -->\nc\n"


def test_each_table_goes_between_its_own_markers_even_into_empty_ones() -> None:
    made = with_tables(PAGE, {"one": "1", "two": "2"})
    assert made == "a\n<!-- table one -->\n1\n<!-- end -->\nb\n<!-- table two -->\n2\n<!-- end -->\nc\n"
    assert with_tables(made, {"one": "1", "two": "2"}) == made


def test_backslashes_are_the_tables_own() -> None:
    table = r"$\frac12 \\ \g<1> \n$"
    assert f"\n{table}\n" in with_tables(PAGE, {"one": table})


def test_a_table_without_its_marker_changes_nothing() -> None:
    assert with_tables(PAGE, {"three": "3"}) == PAGE


def test_a_file_is_written_only_where_it_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert write_tables(page, {"two": "new"})
    assert not write_tables(page, {"two": "new"})
    assert "new" in page.read_text(encoding="utf-8")


def test_cells_are_plain_text() -> None:
    row = markdown(["h"], [["|x| < y* ~ \\z"]]).splitlines()[-1]
    assert row == r"| \|x\| &lt; y\* \~ \\z |"
    assert escaped("p_i") == "p_i"


def test_columns_line_up_on_a_terminal() -> None:
    assert plain(["a", "b"], [["1", "2"], ["333", "4"]]) == "a    b\n1    2\n333  4"


def test_a_marker_without_an_end_takes_nothing_of_the_next() -> None:
    text = "<!-- table one -->\nmine\n<!-- table two -->\nold\n<!-- end -->\n"
    assert "mine" in with_tables(text, {"two": "new"})
    with pytest.raises(UsageError, match="<!-- table one --> has no"):
        with_tables(text, {"one": "1"})


def test_a_line_break_does_not_end_a_row() -> None:
    assert markdown(["h"], [["a\nb"]]).splitlines()[-1] == "| a b |"
    assert plain(["h"], [["a\nb"]]) == "h\na b"


def test_permissions_and_links_stay_and_a_read_only_file_too(tmp_path: Path) -> None:
    page, link = tmp_path / "page.md", tmp_path / "link.md"
    page.write_text(PAGE, encoding="utf-8")
    page.chmod(0o640)
    link.symlink_to(page)
    assert write_tables(link, {"two": "new"})
    assert link.is_symlink()
    assert page.stat().st_mode & 0o777 == 0o640
    page.chmod(0o444)
    with pytest.raises(UsageError, match="is read-only"):
        write_tables(page, {"two": "newer"})
    assert "newer" not in page.read_text(encoding="utf-8")
