"""Stop tokens of generation_config.json: several, one, none, and what is no token."""

from __future__ import annotations

import json
import shutil

import pytest

from quest_core.config import EngineConfig
from quest_core.engine import Engine
from quest_core.model.stop_tokens import GENERATION_CONFIG_FILE, read_stop_token_ids


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"eos_token_id": [7, 2, 7]}', (2, 7)),
        ('{"eos_token_id": 5}', (5,)),
        ('{"eos_token_id": [3, 100, -1, true, 2.0, "4", null, [6]]}', (3,)),
        ('{"eos_token_id": null}', ()),
        ('{"eos_token_id": {"a": 1}}', ()),
        ('{"temperature": 0.6}', ()),
        ("[1, 2]", ()),
        ("7", ()),
        ('{"eos_token_id": [7', ()),
        ("[" * 100_000, ()),
        ("", ()),
        ("\u00ff\udcff", ()),
    ],
)
def test_what_is_read(tmp_path, written, expected):
    (tmp_path / GENERATION_CONFIG_FILE).write_bytes(written.encode("utf-8", "surrogateescape"))
    assert read_stop_token_ids(tmp_path, vocab_size=100) == expected


def test_a_folder_without_the_file(tmp_path):
    assert read_stop_token_ids(tmp_path, vocab_size=100) == ()
    (tmp_path / GENERATION_CONFIG_FILE).mkdir()
    assert read_stop_token_ids(tmp_path, vocab_size=100) == ()


def test_a_model_has_those_of_both_files(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 2}))
    (folder / GENERATION_CONFIG_FILE).write_text('{"eos_token_id": [9, 4]}')
    engine = Engine.load(str(folder), EngineConfig(device="cpu", dtype="float32"))
    engine.close()
    assert engine.model_config.eos_token_ids == (2, 4, 9)
