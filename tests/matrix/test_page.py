"""What `make matrix` makes of what its tests found."""

from datetime import UTC, datetime

from nanoclaw_dev import matrix
from nanoclaw_dev.matrix import Cell, Verdict

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_table_has_a_column_an_installation_and_a_footnote_for_what_is_no_pass():
    here, there = Cell(Verdict.PASS, 2.4), Cell(Verdict.NOT_HERE, 0, "there is one host")
    columns = {"job/volume": {"result": here, "node crashes": here}, "docker": {"result": here, "node crashes": there}}
    assert matrix.table(columns).splitlines() == [
        "|  | job/volume | docker |",
        "|---|---|---|",
        "| result | ✓ 2 s | ✓ 2 s |",
        "| node crashes | ✓ 2 s | n/a (1) |",
        "",
        "1. there is one host",
    ]


def test_a_row_that_failed_or_was_not_run_is_not_hidden():
    columns = {"a": {"stop": Cell(Verdict.FAIL, 9, "AssertionError:\n two | answers")}, "b": {}}
    assert "| stop | ✗ (1) | not run |" in matrix.table(columns)
    assert "1. AssertionError: two | answers" in matrix.table(columns)


def test_columns_are_in_the_order_in_which_they_were_found(tmp_path):
    for number, column in ((10, "a"), (9, "z")):
        matrix.keep(tmp_path, number, "matrix", column, {"result": Cell(Verdict.PASS, 1.0)})
    found = matrix.read(tmp_path)
    assert list(found["matrix"]) == ["z", "a"]
    assert "2026-03-01" in matrix.page(found, at=AT)
    assert "switching" not in matrix.page(found, at=AT).casefold()
