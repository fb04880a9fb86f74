"""What is kept of each document, asked for often."""

from __future__ import annotations

from app.chat.reading import kept_bytes
from app.chat.reading.kept_bytes import KeptBytes


def test_each_file_is_opened_once_and_what_is_gone_counts_no_more(monkeypatch, tmp_path):
    files = {tmp_path / "a": 10, tmp_path / "b": 5}
    opened = []

    def owners_of(path):
        opened.append(path.name)
        return {"a": ("one", "two"), "b": ("two",), "c": ("two",)}[path.name]

    monkeypatch.setattr("quest_core.cache.snapshot_files.sized_files", lambda folder: files.items())
    monkeypatch.setattr("quest_core.cache.snapshot_files.owners_of", owners_of)
    kept = KeptBytes(tmp_path)
    assert (kept.of("one"), kept.of("two"), kept.of("three")) == (10, 15, 0)
    files.pop(tmp_path / "a")
    files[tmp_path / "c"] = 2
    assert kept.of("one") == 10  # as of a moment ago
    monkeypatch.setattr(kept_bytes, "_LOOK_AGAIN_S", 0.0)
    assert (kept.of("one"), kept.of("two")) == (0, 7)
    assert sorted(opened) == ["a", "b", "c"]


def test_where_nothing_is_kept_there_is_nothing():
    assert KeptBytes(None).of("one") == 0
