"""`eval perplexity` on the embedded model: a full budget loses nothing, a small one something."""

from __future__ import annotations

import json

import pytest

from app import cli
from app.errors import UserFacingError


@pytest.mark.slow
def test_the_ratio_is_one_where_everything_is_read(tmp_path, embedded_data_dir):
    result_file = tmp_path / "perplexity.json"
    code = cli.main(
        ["eval", "perplexity", "--context-tokens", "600", "--scored-tokens", "24", "--budgets", "64,640",
         "--data-dir", str(embedded_data_dir), "--dtype", "float32", "--json", str(result_file)]
    )  # fmt: skip
    assert code == 0
    small, full = json.loads(result_file.read_text())["rows"]
    assert full["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert (small["token_budget"], small["context_tokens"]) == (64, 600)
    assert small["ratio"] != pytest.approx(1.0, abs=1e-4)
    assert 1.0 < small["dense_perplexity"] < 200.0


def test_too_short_a_text_is_named(tmp_path, embedded_data_dir):
    text = tmp_path / "note.txt"
    text.write_text("A few words only, no book.")
    with pytest.raises(UserFacingError, match="note.txt has .* tokens, 6144 are needed"):
        cli.main(["eval", "perplexity", "--text", str(text), "--data-dir", str(embedded_data_dir)])
