"""AWQ and GPTQ checkpoints, packed here by a packer of its own, against the dense weights that they stand for."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine, read_model_config
from quest_core.model.model_source import ModelError
from quest_core.model.quantization import QuantizedMatrix
from quest_core.model.quantized_checkpoints import GroupedWeights
from quest_core.model.weights import QUANTIZED, load_weights

CPU = torch.device("cpu")
SETTINGS = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "eos_token_id": None,
}


def pack_word(values: list[int], bits: int) -> int:
    """Values from the lowest bits of an int32."""
    word = sum(value << place * bits for place, value in enumerate(values))
    return word - (1 << 32) if word >= 1 << 31 else word


def pack_rows(matrix: torch.Tensor, bits: int, order: list[int] | None = None) -> torch.Tensor:
    """int32 [rows, columns * bits / 32]; the word's fields take the columns that `order` names."""
    fields = 32 // bits
    order = order or list(range(fields))
    words = [
        [pack_word([row[first + place] for place in order], bits) for first in range(0, len(row), fields)]
        for row in matrix.tolist()
    ]
    return torch.tensor(words, dtype=torch.int32)


def write_checkpoint(folder, method: str, bits: int = 4, group: int = 32, **packing) -> dict[str, torch.Tensor]:
    """A random model whose projections are packed; returns the dense tensors that it stands for."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(bits)
    config = LlamaConfig(**SETTINGS)
    dense = {name: tensor.clone() for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    del dense["lm_head.weight"]
    stored = {}
    for name, tensor in dense.items():
        if not name.endswith("_proj.weight"):
            stored[name] = tensor
            continue
        rows, columns = tensor.shape
        values = torch.randint(0, 2**bits, (columns, rows))
        zeros = torch.randint(0, 2**bits, (columns // group, rows))
        scales = (torch.rand(columns // group, rows) * 0.5 / 2**bits).half()
        expanded = (scales.float().repeat_interleave(group, 0), zeros.repeat_interleave(group, 0))
        dense[name] = (expanded[0] * (values - expanded[1])).T.contiguous()
        prefix = name.removesuffix("weight")
        stored[prefix + "scales"] = scales
        if method == "awq":
            order = [0, 2, 4, 6, 1, 3, 5, 7]
            stored[prefix + "qweight"] = pack_rows(values, bits, order)
            stored[prefix + "qzeros"] = pack_rows(zeros, bits, order)
        else:
            less = 0 if packing.get("checkpoint_format") == "gptq_v2" else 1
            stored[prefix + "qweight"] = pack_rows(values.T, bits).T.contiguous()
            stored[prefix + "qzeros"] = pack_rows((zeros - less) % 2**bits, bits)
            stored[prefix + "g_idx"] = torch.arange(columns, dtype=torch.int32) // group
            if "mlp" in name:
                stored[prefix + "bias"] = torch.zeros(rows, dtype=torch.float16)
    save_file(stored, folder / "model.safetensors")
    config.save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    described["quantization_config"] = {"quant_method": method, "bits": bits, "group_size": group, **packing}
    (folder / "config.json").write_text(json.dumps(described))
    return dense


def load(folder, weight_bits):
    return load_weights(folder, read_model_config(folder), CPU, torch.float32, weight_bits)


def restore(matrix):
    if not isinstance(matrix, QuantizedMatrix):
        return matrix.data
    return matrix.dequantize()


def assert_projections(weights, dense, rtol, atol):
    for index, layer in enumerate(weights.layers):
        prefix = f"model.layers.{index}."
        expected = {
            "qkv": torch.cat([dense[f"{prefix}self_attn.{part}_proj.weight"] for part in "qkv"]),
            "output": dense[f"{prefix}self_attn.o_proj.weight"],
            "gate_up": torch.cat([dense[f"{prefix}mlp.{part}_proj.weight"] for part in ("gate", "up")]),
            "down": dense[f"{prefix}mlp.down_proj.weight"],
        }
        for name in QUANTIZED:
            torch.testing.assert_close(restore(getattr(layer, name)), expected[name], rtol=rtol, atol=atol)


FORMATS = {
    "awq": {"method": "awq", "version": "gemm", "zero_point": True},
    "gptq": {"method": "gptq", "desc_act": False},
    "gptq_v2": {"method": "gptq", "desc_act": False, "checkpoint_format": "gptq_v2"},
    "gptq_8_bits": {"method": "gptq", "bits": 8},
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_checkpoints_own_values_are_kept(tmp_path, name):
    dense = write_checkpoint(tmp_path, **FORMATS[name])
    bits = FORMATS[name].get("bits", 4)
    weights = load(tmp_path, bits)
    assert all(isinstance(getattr(weights.layers[0], part), QuantizedMatrix) for part in QUANTIZED)
    assert weights.layers[0].down.bits == bits
    assert_projections(weights, dense, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", FORMATS)
def test_in_16_bits_the_matrices_are_unpacked(tmp_path, name):
    dense = write_checkpoint(tmp_path, **FORMATS[name])
    weights = load(tmp_path, 16)
    assert not any(isinstance(module, QuantizedMatrix) for module in weights.modules())
    assert_projections(weights, dense, rtol=0, atol=1e-7)


def test_other_bits_are_rounded_anew(tmp_path):
    dense = write_checkpoint(tmp_path, **FORMATS["awq"])
    assert_projections(load(tmp_path, 8), dense, rtol=0, atol=2e-3)


@pytest.mark.parametrize("group", [64, 96])
def test_groups_of_other_widths_are_cut_into_ours(group):
    grouped = GroupedWeights(
        torch.randint(0, 16, (5, 192), dtype=torch.uint8), torch.rand(5, 192 // group), torch.rand(5, 192 // group)
    )
    matrix = grouped.to_matrix(4)
    assert matrix.group_size == (64 if group == 64 else 32)
    torch.testing.assert_close(restore(matrix), grouped.dequantize(), rtol=0, atol=0)


def test_groups_that_cannot_be_cut_are_refused():
    grouped = GroupedWeights(torch.zeros((5, 96), dtype=torch.uint8), torch.rand(5, 2), torch.rand(5, 2))
    with pytest.raises(ModelError, match="Groups of 48"):
        grouped.to_matrix(4)


def test_an_engine_decodes_from_it(tmp_path, generate):
    write_checkpoint(tmp_path, **FORMATS["awq"])
    texts = []
    for bits in (16, 4):
        engine = Engine.load(str(tmp_path), EngineConfig(device="cpu", dtype="float32", weight_bits=bits))
        sampling = SamplingConfig(max_new_tokens=8)
        texts.append(generate(engine.new_session(), [5, 6, 7], QuestConfig(attention="dense"), sampling))
        engine.close()
    assert texts[0] == texts[1]


def test_what_cannot_be_read_is_refused(tmp_path):
    write_checkpoint(tmp_path, **FORMATS["gptq"])
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.g_idx"] = torch.arange(96, dtype=torch.int32).flip(0) // 32
    save_file(tensors, path)
    with pytest.raises(ModelError, match="desc_act"):
        load(tmp_path, 4)
    for packing in ({"quant_method": "fp8"}, {"quant_method": "awq", "bits": 4, "version": "gemv"},
                    {"quant_method": "gptq", "bits": 3}):
        described = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**described, "quantization_config": packing}))
        with pytest.raises(ModelError, match="AWQ .gemm. in 4 bits and GPTQ"):
            load(tmp_path, 4)
