"""Folders that others made: damaged files are named, impossible sizes refused, and no path leaves the folder."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from quest_core.config import EngineConfig, ModelConfig
from quest_core.engine import Engine
from quest_core.model.model_folder import read_model_config
from quest_core.model.model_source import ModelError, find_model
from quest_core.model.weights import load_weights

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


def complaint(folder: Path) -> str:
    """What a user is told who starts with `folder`."""
    with pytest.raises(ModelError) as caught:
        Engine.load(str(folder), EngineConfig(device="cpu", dtype="float32", page_size=16))
    return str(caught.value)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def split_in_two(folder: Path) -> list[str]:
    tensors = load_file(folder / WEIGHTS)
    names, weight_map = sorted(tensors), {}
    (folder / WEIGHTS).unlink()
    files = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return files


@pytest.mark.parametrize("length", [0, 7, 100, -1000])
def test_a_truncated_checkpoint_is_named(folder, length):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} is damaged or incomplete" in complaint(folder)


def test_a_missing_or_truncated_shard_is_named(folder):
    first, second = split_in_two(folder)
    (folder / first).write_bytes((folder / first).read_bytes()[:-8])
    assert f"{folder / first} is damaged or incomplete" in complaint(folder)
    (folder / second).unlink()
    shutil.copy(folder / "config.json", folder / first)  # no safetensors at all
    assert first in complaint(folder)
    (folder / first).unlink()
    assert f"lacks {first}" in complaint(folder)


@pytest.mark.parametrize(
    "content", ["", "{not json", "[1, 2]", '"text"', "\xff", "[" * 100_000, '{"weight_map": [1]}', '{"metadata": {}}']
)
def test_a_damaged_index_is_named(folder, content):
    split_in_two(folder)
    (folder / INDEX).write_text(content, encoding="latin-1")
    assert str(folder / INDEX) in complaint(folder)


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\outside.safetensors", "C:x.safetensors",
     "pytorch_model.bin", "..", "", 7, None, ["model.safetensors"], "nul\0.safetensors"],
)  # fmt: skip
def test_an_index_names_files_of_the_folder_only(folder, name):
    shutil.copy(folder / WEIGHTS, folder.parent / "outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    said = complaint(folder)
    assert str(folder / INDEX) in said and "no .safetensors beside it" in said


def test_links_stay_in_the_folder_or_in_the_hubs_cache(folder, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(folder.iterdir()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    name, found = find_model(str(snapshot), tmp_path)
    assert (name, found) == ("0123", snapshot)
    load_weights(snapshot, read_model_config(snapshot), torch.device("cpu"), torch.float32)

    for name in (WEIGHTS, "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(blobs / "0")
        assert f"{folder / name} is a link to {blobs / '0'}, outside" in complaint(folder)
        (folder / name).unlink()
    (folder / WEIGHTS).symlink_to(folder / WEIGHTS)
    assert str(folder / WEIGHTS) in complaint(folder)
    # A model's folder that is a link itself stays inside of itself.
    (tmp_path / "link").symlink_to(snapshot)
    find_model(str(tmp_path / "link"), tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", '{"version": "1.0", "truncat', "[]", "null", "[" * 100_000, "\xff\xfe{}"])
def test_a_damaged_json_is_named(folder, name, content):
    (folder / name).write_text(content, encoding="latin-1")
    assert f"{folder / name} cannot be read" in complaint(folder)


SIZES = [
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings",
]  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_not_the_tensors_is_refused(folder, name):
    # Which window it has is for the config alone to say.
    sizes = [] if name == "max_position_embeddings" else [7, 10**6, 10**7]
    for value in (*sizes, -1, 0, 10**12, 10**40, 1.5, math.nan, "9", [9], {}, True):
        change_config(folder, **{name: value})
        said = complaint(folder)
        assert str(folder) in said or "window of" in said


def test_the_tensors_are_held_against_the_config(folder):
    change_config(folder, num_hidden_layers=10**7)
    assert "its config says it has 10000000 layers, and tensors of 4 are there" in complaint(folder)
    change_config(folder, num_hidden_layers=4, intermediate_size=10**6)
    assert "mlp.down_proj.weight is 72 x 80, and its config makes it 72 (hidden_size) x 1000000" in complaint(folder)
    change_config(folder, intermediate_size=80, vocab_size=10**6)
    assert "embed_tokens.weight is 211 x 72, and its config makes it 1000000 (vocab_size) x 72" in complaint(folder)


def test_a_window_that_fits_no_memory_is_said_before_it_is_taken(folder):
    change_config(folder, max_position_embeddings=(1 << 31) - 1)
    assert "A window of 2147483647 tokens needs" in complaint(folder)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rms_norm_eps": math.nan}, "rms_norm_eps"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": math.nan}}, "theta"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "theta"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": math.nan}}, "factor"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": "four"}}, "factor"),
        ({"rope_parameters": [1]}, "model"),
        ({"rope_parameters": {"rope_type": ["yarn"], "rope_theta": 1e4}}, "model"),
        ({"eos_token_id": ["2"]}, "eos_token_id"),
        ({"eos_token_id": 1.5}, "eos_token_id"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"model_type": "../llama"}, "llama"),
        ({"hidden_act": 7}, "hidden_act|Activation"),
        ({"quantization_config": [4]}, "quantization_config"),
        ({"quantization_config": {"quant_method": ["awq"], "bits": [4]}}, "quantised by"),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_name(folder, values, said):
    change_config(folder, **values)
    message = complaint(folder)
    assert re.search(said, message) and str(folder) in message


def test_other_keys_of_a_config_are_not_looked_at(folder):
    # Transformers makes a list as long as num_labels says.
    change_config(folder, num_labels=10**9, transformers_version="99", auto_map={"AutoConfig": "evil.Config"})
    assert read_model_config(folder).num_layers == 4


def test_a_config_is_read_as_transformers_reads_it(any_family):
    folder = any_family[1].model_folder
    assert read_model_config(folder) == ModelConfig.from_transformers(AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize("settings", [
    {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 5e5, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 160}},
    {"rope_theta": 5e5, "rope_scaling": None},
    {},
])  # fmt: skip
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_older_configs_are_read_as_transformers_reads_them(tmp_path, model_type, settings):
    values = {
        "model_type": model_type, "vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 640, "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values | settings))
    expected = ModelConfig.from_transformers(AutoConfig.from_pretrained(tmp_path))
    assert read_model_config(tmp_path) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("bits", [16, 8])
def test_numbers_that_are_not_finite_are_named(folder, value, bits):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.2.mlp.down_proj.weight"][3, 5] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ModelError, match="layers.2.mlp.down_proj.weight that are not finite"):
        load_weights(folder, read_model_config(folder), torch.device("cpu"), torch.float32, bits)


@pytest.mark.parametrize(("dtype", "name"), [(torch.int64, "I64"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_what_is_no_plain_number_is_no_weight(folder, dtype, name):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = torch.ones(72).to(dtype)
    save_file(tensors, folder / WEIGHTS)
    assert f"model.norm.weight as {name}; F64" in complaint(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may read every file")
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / "config.json").chmod(0)
    assert f"{folder / 'config.json'} cannot be read: Permission denied" in complaint(folder)


@pytest.mark.parametrize(
    "model", ["~nobody-here/model/x", "x" * 5000, "x" * 5000 + ".gguf", "x\0y", "x\0y.gguf", "owner/" + "x" * 300]
)
def test_a_strange_name_is_no_model(tmp_path, model):
    with pytest.raises(ModelError, match="There is no model"):
        find_model(model, tmp_path, offline=True)
