"""What `make matrix` makes of what its tests found."""

import json
from datetime import UTC, datetime

from nanoclaw_dev import matrix
from nanoclaw_dev.matrix import Cell

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_table_has_a_column_an_installation_and_a_footnote_for_what_is_no_pass():
    here, there = Cell("pass", 2.4, ""), Cell("n/a", 0, "there is one host")
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
    columns = {"a": {"stop": Cell("fail", 9, "AssertionError:\n two | answers")}, "b": {}}
    assert "| stop | ✗ (1) | not run |" in matrix.table(columns)
    assert "1. AssertionError: two | answers" in matrix.table(columns)


def test_columns_are_in_the_order_in_which_they_were_found(tmp_path):
    for number, column in enumerate(("z", "a")):
        cells = {"result": {"verdict": "pass", "seconds": 1.0, "note": ""}}
        file = tmp_path / f"{1 - number}.json"
        file.write_text(json.dumps({"table": "matrix", "column": column, "number": number, "cells": cells}))
    found = matrix.read(tmp_path)
    assert list(found["matrix"]) == ["z", "a"]
    assert "2026-03-01" in matrix.page(found, at=AT)
    assert "switching" not in matrix.page(found, at=AT).casefold()
