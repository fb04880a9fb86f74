"""`bench decode` on the embedded model: its rows, its check, and its file. No time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from app import cli
from app.measure.benchmarks.decode import measure_decode
from app.measure.benchmarks.rivals import logits_check
from app.measure.benchmarks.rivals.logits_check import STRETCH_TOKENS


@pytest.mark.slow
def test_rows_and_machine_are_written(tmp_path, embedded_data_dir, capsys, monkeypatch):
    # What rounding costs is measured over all of them elsewhere; here it takes the time of a minute's answers.
    monkeypatch.setattr(logits_check, "STRETCHES", 4)
    text = tmp_path / "book.txt"
    text.write_text("The lamp was lit at dusk, and the boats came home by its light. " * 40)
    result_file = tmp_path / "results" / "decode.json"
    arguments = ["--contexts", "100,300", "--budgets", "64", "--steps", "2", "--rounds", "1", "--text", str(text)]
    data_dir = ["--data-dir", str(embedded_data_dir)]
    assert cli.main(["bench", "decode", *arguments, *data_dir, "--json", str(result_file), "--dtype", "float32"]) == 0
    result = json.loads(result_file.read_text())
    assert [(row["engine"], row["attention"], row["context_tokens"]) for row in result["rows"]] == [
        ("transformers", "sdpa", 100), ("quest-chat", "dense", 100), ("quest-chat", "quest", 100),
        ("quest-chat", "auto", 100),
        ("transformers", "sdpa", 300), ("quest-chat", "dense", 300), ("quest-chat", "quest", 300),
        ("quest-chat", "auto", 300),
    ]  # fmt: skip
    dense, quest, auto = result["rows"][5:]
    assert quest["kv_bytes_per_token"] < dense["kv_bytes_per_token"]
    # Within its budget, the default's, it is dense.
    assert auto["kv_bytes_per_token"] == dense["kv_bytes_per_token"]
    assert all(row["ms_per_token"] > 0 for row in result["rows"])
    assert all(check["logits_relative_error"] < 1e-3 for check in result["checks"][1:])
    assert result["machine"]["versions"]["torch"] == torch.__version__
    assert "kv_bytes_per_token" in capsys.readouterr().out


def test_contexts_beyond_the_models_window_are_compared_under_their_own_stretch(cpu_settings, tiny_model_folder):
    settings = replace(cpu_settings, model=str(tiny_model_folder))
    result = measure_decode(settings, contexts=[100, 1500], budgets=[64], steps=1, rounds=1, text=None)
    assert [check["context_tokens"] for check in result["checks"]] == [STRETCH_TOKENS, 100, 1500]
    assert all(check["logits_relative_error"] < 1e-3 for check in result["checks"][1:])
