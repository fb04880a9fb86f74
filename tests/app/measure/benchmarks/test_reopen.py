"""`bench reopen`: each path is what its name says. No time is asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app import cli
from app.errors import UserFacingError
from app.measure.benchmarks.reopen import PATHS, measure_reopen
from app.measure.benchmarks.reopen_shapes import measure_reopen_shapes
from app.settings import AppSettings
from tests.app.conftest import CORPUS, write_model


@pytest.fixture(scope="module")
def tiny_settings(tmp_path_factory) -> AppSettings:
    """Of a random model whose window has 1,024 tokens."""
    folder = tmp_path_factory.mktemp("reopen")
    return AppSettings(data_dir=folder / "data", model=str(write_model(folder / "model")), device="cpu", offline=True)


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "harbour.txt"
    path.write_text("\n\n".join(CORPUS * 4), encoding="utf-8")
    return path


def test_what_each_path_has_to_read(tiny_settings, book):
    result = measure_reopen(tiny_settings, rounds=2, documents=[book])
    rows = {row["path"]: row for row in result["rows"]}
    assert tuple(rows) == PATHS
    document_tokens = rows["fresh"]["document_tokens"]
    assert document_tokens > 100
    assert all(row["document_tokens"] == document_tokens for row in rows.values())
    assert rows["fresh"]["restored_bytes"] == rows["same_conversation"]["restored_bytes"] == 0
    # Keys, values and their summaries: nothing of the document is computed.
    assert rows["after_restart"]["restored_bytes"] > document_tokens
    assert rows["after_restart"]["prefilled_tokens"] < document_tokens
    assert rows["other_conversation"]["prefilled_tokens"] < document_tokens
    assert all(row["fastest_s"] <= row["time_to_first_token_s"] <= row["slowest_s"] for row in rows.values())


def test_the_users_data_folder_stays_as_it_is(tiny_settings, book):
    measure_reopen(tiny_settings, rounds=1, documents=[book])
    assert not (tiny_settings.data_dir / "quest-chat.sqlite3").exists()
    assert not (tiny_settings.data_dir / "snapshots").exists()


def test_a_document_longer_than_the_window_is_refused(tiny_settings, book):
    book.write_text("\n\n".join(CORPUS * 40), encoding="utf-8")
    with pytest.raises(UserFacingError, match="longer than the window"):
        measure_reopen(tiny_settings, rounds=1, documents=[book])


def test_shapes_restore_what_they_have_computed(tiny_shape, cpu_settings):
    settings = replace(cpu_settings, selection="mean", page_size=4)
    result = measure_reopen_shapes(settings, shapes=[tiny_shape], contexts=[300], weight_bits=16, rounds=1)
    rows = {row["path"]: row for row in result["rows"]}
    assert list(rows) == ["fresh", "other_conversation", "after_restart", "after_restart_cached"]
    assert rows["fresh"]["prefilled_tokens"] == 300
    assert rows["other_conversation"]["prefilled_tokens"] == rows["after_restart"]["prefilled_tokens"] == 32
    assert rows["fresh"]["restored_bytes"] == rows["other_conversation"]["restored_bytes"] == 0
    # In float32: keys and values of three layers and two kv heads of 16 channels.
    assert rows["after_restart"]["restored_bytes"] > 268 * 2 * 3 * 2 * 16 * 4
    assert list(cpu_settings.data_dir.iterdir()) == []


def test_contexts_are_for_shapes(tmp_path):
    with pytest.raises(UserFacingError, match="leave --contexts out"):
        cli.main(["bench", "reopen", "--contexts", "512", "--data-dir", str(tmp_path)])
