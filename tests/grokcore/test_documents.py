"""Tables in documents: what stands between the markers, and nothing else, is replaced."""

from __future__ import annotations

from pathlib import Path

from grokcore.documents import escaped, markdown, plain, with_tables, write_tables

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
