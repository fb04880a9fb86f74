"""What gives a model's snapshots another name, and what does not."""

from __future__ import annotations

import os
import shutil

import pytest

from quest_core.cache import model_key as module
from quest_core.cache.model_key import HASHES, model_key

SETTINGS = {"dtype": "torch.float32", "pages": {"keys": ("F32", 4, 2, 16, 8)}}


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_every_byte_and_setting_counts(folder, tmp_path):
    cache = tmp_path / "cache"
    key = model_key(folder, SETTINGS, cache)
    assert len(key) == 64 and key == model_key(folder, SETTINGS, cache)
    assert key != model_key(folder, SETTINGS | {"dtype": "torch.float16"}, cache)
    assert key != model_key(folder, SETTINGS | {"pages": {"keys": ("F32", 4, 2, 4, 8)}}, cache)
    # Where it lies, and what else lies there, does not.
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "README.md").write_text("about it")
    assert key == model_key(moved, SETTINGS, cache)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = model_key(folder, SETTINGS, cache)
    assert changed != key
    (folder / "tokenizer.json").write_text("{}")
    assert model_key(folder, SETTINGS, cache) not in (key, changed)


def test_files_are_hashed_once(folder, tmp_path, monkeypatch):
    cache, hashed = tmp_path / "cache", []
    hash_file = module._hash
    monkeypatch.setattr(module, "_hash", lambda path: hashed.append(path.name) or hash_file(path))
    key = model_key(folder, SETTINGS, cache, may_write=False)
    assert not cache.exists() and "model.safetensors" in hashed
    assert model_key(folder, SETTINGS, cache) == key
    hashed.clear()
    assert model_key(folder, SETTINGS, cache) == key and hashed == []
    os.utime(folder / "model.safetensors", (1, 1))
    assert model_key(folder, SETTINGS, cache) == key and hashed == ["model.safetensors"]


@pytest.mark.parametrize("damage", ["", "[]", "[" * 100_000, '{"a": 1}', "\0"])
def test_a_damaged_cache_is_no_more_than_a_delay(folder, tmp_path, damage):
    key = model_key(folder, SETTINGS, tmp_path)
    (tmp_path / HASHES).write_text(damage)
    assert model_key(folder, SETTINGS, tmp_path) == key
    assert model_key(folder, SETTINGS, tmp_path) == key


def test_a_cache_that_cannot_be_written_is_no_error(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert model_key(folder, SETTINGS, tmp_path / "file") == model_key(folder, SETTINGS, tmp_path / "cache")
