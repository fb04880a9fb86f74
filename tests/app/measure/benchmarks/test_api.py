"""`bench api`: both ways decode the same number of tokens. No time is asserted."""

from __future__ import annotations

import pytest

from app.errors import UserFacingError
from app.measure.benchmarks import api
from app.settings import AppSettings

pytest.importorskip("openai")


def test_both_ways_are_measured(tiny_model_folder, tmp_path):
    settings = AppSettings(
        data_dir=tmp_path, model=str(tiny_model_folder), device="cpu", dtype="float32", token_budget=64
    )
    result = api.measure_api(settings, contexts=[96], steps=6, rounds=2)
    session, through_api = result["rows"]
    assert (session["way"], through_api["way"]) == api.WAYS
    assert session["tokens"] == through_api["tokens"] == 6
    assert session["first_token_ratio"] == session["speed_ratio"] == 1.0
    assert through_api["time_to_first_token_s"] > 0 and through_api["decode_tokens_per_s"] > 0


def test_without_the_client_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    with pytest.raises(UserFacingError, match="requirements-dev"):
        api.measure_api(AppSettings(data_dir=tmp_path), contexts=[96], steps=6, rounds=1)
