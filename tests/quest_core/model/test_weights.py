"""Reading checkpoints: sharded ones, and broken ones with a clear sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from quest_core.config import EngineConfig
from quest_core.engine import Engine, read_model_config
from quest_core.model.model_source import ModelError
from quest_core.model.weights import load_weights

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def load(folder):
    return load_weights(folder, read_model_config(folder), CPU, torch.float32)


def test_fused_rows_are_the_checkpoints(folder):
    tensors, weights = load_file(folder / "model.safetensors"), load(folder)
    prefix = "model.layers.1.self_attn."
    expected = torch.cat([tensors[f"{prefix}{name}_proj.weight"] for name in "qkv"])
    torch.testing.assert_close(weights.layers[1].qkv.data, expected, rtol=0, atol=0)
    assert weights.lm_head is None


def test_shards_are_read(folder):
    tensors = load_file(folder / "model.safetensors")
    whole = load(folder)
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for shard, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / f"part{shard}.safetensors")
        weight_map |= dict.fromkeys(part, f"part{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for left, right in zip(whole.parameters(), load(folder).parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize("change", ["lost", "misshapen", "unknown"])
def test_a_wrong_tensor_is_named(folder, change):
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.2.mlp.down_proj.weight"
    if change == "lost":
        del tensors[name]
    elif change == "misshapen":
        tensors[name] = tensors[name][:, :-1].contiguous()
    else:
        name = "model.layers.0.block_sparse_moe.gate.weight"
        tensors[name] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors are read"):
        load(folder)


def test_a_broken_config_is_one_sentence(folder):
    (folder / "config.json").write_text("{not json")
    with pytest.raises(ModelError, match="cannot be read"):
        Engine.load(str(folder), EngineConfig(device="cpu"))
