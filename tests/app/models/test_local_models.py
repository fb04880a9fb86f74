"""Models on this machine: what is listed, what is refused and why, and that nothing in a folder stops the listing."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.models import model_places
from app.models.local_models import LocalModel, LocalModels
from app.models.model_choice import FILE_NAME, ModelChoice, ModelChoices
from app.models.model_places import Place
from tests.app.conftest import write_model
from tests.quest_core.conftest import write_small_gguf

COMMIT = "c" * 40


def listed(folder: Path, *folders: Path, is_hub_cache: bool = False) -> dict[str, LocalModel]:
    local = LocalModels(folder, map(str, folders), lambda: None, [Place(folder, "Here", is_hub_cache)])
    local.look()
    assert local.wait(60) and not local.is_looking
    listed.notes = local.notes()
    return {one.candidate.name: one for one in local.models() if one.reference != "embedded"}


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory) -> Path:
    """A folder with models of both kinds, and with what somebody might have put there to do harm."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "whole")
    write_small_gguf(folder / "small.Q4.gguf")
    for number in (0, 1):
        (folder / "owner" / "repository").mkdir(parents=True, exist_ok=True)
        write_small_gguf(folder / f"owner/repository/split-0000{number + 1}-of-00002.gguf", part=(number, 2))
    (folder / "mmproj-model.gguf").write_bytes(b"GGUF")
    # From here on, nothing is whole.
    whole = (folder / "small.Q4.gguf").read_bytes()
    (folder / "cut-off.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "cut-in-header.gguf").write_bytes(whole[:600])
    counts = struct.pack("<IQQ", 3, 1 << 60, 1 << 60)
    (folder / "huge-counts.gguf").write_bytes(b"GGUF" + counts + bytes(100))
    with (folder / "endless-texts.gguf").open("wb") as file:
        # A list of four million empty texts, and zeros without end, of which the disk holds nothing.
        key = b"general.architecture"
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 5) + struct.pack("<Q", len(key)) + key)
        file.write(struct.pack("<IIQ", 9, 8, 1 << 22))
        file.truncate(8 << 30)
    write_small_gguf(folder / "other-family.gguf", architecture="gemma3")
    for name in ("no-weights", "huge-header", "incomplete", "nested", "other", "pickled", "linked", "huge-config"):
        (folder / name).mkdir()
        for one in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name / one).write_bytes((folder / "whole" / one).read_bytes())
    weights = (folder / "whole" / "model.safetensors").read_bytes()
    (folder / "huge-header" / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    (folder / "incomplete" / "model.safetensors").write_bytes(weights[:-100])
    nested = b'{"a":' + b"[" * 100_000
    (folder / "nested" / "model.safetensors").write_bytes(struct.pack("<Q", len(nested)) + nested)
    (folder / "other" / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1}))
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "linked" / "model.safetensors").symlink_to(folder / "whole" / "model.safetensors")
    (folder / "huge-config" / "config.json").write_text(" " * (2 << 20))
    (folder / "circle").symlink_to(folder)
    (folder / "itself.gguf").symlink_to(folder / "itself.gguf")
    os.mkfifo(folder / "pipe.gguf")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad-\xff.gguf")).write_bytes(whole)
    return folder


def test_what_is_there_and_why_not(models_folder):
    models = listed(models_folder)
    whole = {name: one for name, one in models.items() if not one.reason}
    assert set(whole) == {"whole", "small.Q4", "split"}
    outline = whole["whole"].outline
    assert (outline.config.family, outline.config.context_tokens, outline.format) == ("llama", 1024, "F32")
    assert whole["small.Q4"].outline.config.context_tokens == 256
    assert whole["split"].reference.endswith("split-00001-of-00002.gguf")
    reasons = {name: one.reason for name, one in models.items() if one.reason}
    assert set(reasons) == {
        *("cut-off", "cut-in-header", "huge-counts", "endless-texts", "other-family", "no-weights", "huge-header"),
        *("incomplete", "nested", "other", "pickled", "linked", "huge-config"),
    }
    for name, words in {
        "cut-off": "ends too early",
        "huge-counts": "no model has",
        "endless-texts": "32 MiB",
        "other-family": "'gemma3' is not supported",
        "no-weights": "lacks model.safetensors",
        "huge-header": "damaged or incomplete",
        "incomplete": "is incomplete",
        "nested": "header cannot be read",
        "other": "Model family 'gpt2' is not supported",
        "pickled": "not pickled .bin",
        "linked": "outside the model's folder",
        "huge-config": "more than any model's",
    }.items():
        assert words in reasons[name], (name, reasons[name])


def test_a_folder_of_very_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(model_places, "MAX_ENTRIES", 50)
    for number in range(80):
        (tmp_path / f"{number}.gguf").write_bytes(b"x")
    assert len(listed(tmp_path)) <= 50
    assert "holds very many files" in listed.notes[0]


def test_the_hub_cache_and_named_folders(models_folder, tmp_path):
    repository = tmp_path / "hub" / "models--Owner--Good-Model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, path in enumerate((models_folder / "whole").iterdir()):
        (repository / "blobs" / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    (tmp_path / "hub" / "models--Owner--half" / "refs").mkdir(parents=True)
    (tmp_path / "hub" / "models--Owner--half" / "refs" / "main").write_text("../../../etc")
    models = listed(tmp_path / "hub", models_folder / "small.Q4.gguf", tmp_path / "gone", is_hub_cache=True)
    assert {name: one.reference for name, one in models.items()} == {
        "Good-Model": "Owner/Good-Model",
        "small.Q4": str(models_folder / "small.Q4.gguf"),
    }
    assert models["Good-Model"].outline is not None


def test_changed_files_are_looked_at_again_and_folders_are_kept(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    local = LocalModels(tmp_path, [], lambda: None, [])
    for nothing in ("", str(tmp_path / "nowhere"), "a\0b", "x" * 5000):
        with pytest.raises(UserFacingError):
            local.add_folder(nothing)
    local.add_folder(f" {folder} ")
    local.wait(60)
    write_small_gguf(folder / "small.gguf")
    local.look(now=True)
    local.wait(60)
    assert local.find(str(folder / "small.gguf")).outline.config.num_layers == 2
    (folder / "small.gguf").write_bytes(b"GGUF")
    local.look(now=True)
    local.wait(60)
    with pytest.raises(UserFacingError, match="ends too early"):
        local.find(str(folder / "small.gguf"))
    local.remove_folder(str(folder))
    local.wait(60)
    assert local.folders == () and str(folder / "small.gguf") not in {one.reference for one in local.models()}


def test_what_is_kept_of_a_choice(tmp_path):
    choices = ModelChoices(ModelChoice("Owner/Model", 4096, 8), ("/models",))
    choices.write(tmp_path)
    assert ModelChoices.read(tmp_path) == choices
    damaged = ["", "[]", "[" * 5000, '{"chosen": {"model": ""}}', '{"chosen": {"model": "a", "weight_bits": true}}']
    for text in (*damaged, '{"chosen": {"model": "a", "context_tokens": -1, "weight_bits": 16}, "folders": 3}'):
        (tmp_path / FILE_NAME).write_text(text)
        assert ModelChoices.read(tmp_path) == ModelChoices()
