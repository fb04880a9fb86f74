"""Tables and result files."""

from __future__ import annotations

import json

import pytest

from app.errors import UserFacingError
from app.measure.result_tables import format_table, write_json


def test_tables_align_and_mark_what_is_missing():
    table = format_table([{"name": "a", "ms": 1.23456}, {"name": "longer", "ms": None}])
    assert table.splitlines() == ["  name     ms", "     a  1.235", "longer      -"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    write_json(tmp_path / "new" / "r.json", {"rows": []})
    assert json.loads((tmp_path / "new" / "r.json").read_text()) == {"rows": []}
    with pytest.raises(UserFacingError, match="cannot be written"):
        write_json(tmp_path / "new" / "r.json" / "below", {})


def test_nested_columns_and_columns_of_some_rows_are_shown():
    table = format_table([{"us": {"ours": 1}}, {"us": {"ours": 2, "rival": 3}}])
    assert table.splitlines() == ["us.ours  us.rival", "      1         -", "      2         3"]
