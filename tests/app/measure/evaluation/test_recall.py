"""`eval recall` on the embedded model."""

from __future__ import annotations

import json

import pytest

from app import cli
from app.errors import UserFacingError


def _measure(tmp_path, embedded_data_dir, *flags):
    result_file = tmp_path / "recall.json"
    arguments = ["eval", "recall", "--context-tokens", "600", "--scored-tokens", "6", "--dtype", "float32",
                 "--data-dir", str(embedded_data_dir), "--json", str(result_file), *flags]  # fmt: skip
    assert cli.main(arguments) == 0
    return json.loads(result_file.read_text())["rows"]


@pytest.mark.slow
def test_a_full_budget_holds_everything_and_a_small_one_less_than_the_oracle(tmp_path, embedded_data_dir):
    small, full = _measure(tmp_path, embedded_data_dir, "--budgets", "64,640")
    assert full["mass"] == pytest.approx(1.0, abs=1e-4)
    assert (full["page_recall"], full["missed"]) == (1.0, pytest.approx(0.0, abs=1e-4))
    assert 0.1 < small["mass"] < small["oracle_mass"] < 1.0
    assert 0.0 < small["estimated_missed"] < 1.0
    assert 0.5 < small["calibration_slope"] < 2.0
    assert small["correlation"] > 0.3


@pytest.mark.slow
def test_the_oracle_is_its_own_measure_and_knows_what_it_misses(tmp_path, embedded_data_dir):
    (row,) = _measure(tmp_path, embedded_data_dir, "--budgets", "64", "--selection", "oracle")
    assert row["mass"] == pytest.approx(row["oracle_mass"], abs=1e-6)
    assert row["page_recall"] == 1.0
    assert row["estimated_missed"] == pytest.approx(row["missed"], abs=1e-4)


def test_policies_that_keep_tokens_are_refused_by_name(embedded_data_dir):
    with pytest.raises(UserFacingError, match="mean, quest, oracle, streaming; not h2o"):
        cli.main(["eval", "recall", "--selection", "h2o", "--data-dir", str(embedded_data_dir)])
