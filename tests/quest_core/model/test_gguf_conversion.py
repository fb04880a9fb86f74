"""GGUF files become folders: the embedded model against transformers' own reading, and tiny files of each family."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from quest_core.config import EngineConfig, ModelConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine, read_model_config
from quest_core.model import gguf_conversion
from quest_core.model.gguf_conversion import GLOBAL_TENSORS, LAYER_TENSORS, MODEL_CONFIG_FILE, convert_gguf
from quest_core.model.model_source import ModelError, embedded_model_path, find_model

gguf = pytest.importorskip("gguf")  # only those who read such files need it

HEADS, KV_HEADS, HEAD_DIM, HIDDEN, LAYERS, VOCABULARY = 4, 2, 16, 64, 2, 49152


@pytest.mark.slow
def test_the_embedded_model_is_what_transformers_reads(embedded_engine):
    from transformers import AutoModelForCausalLM, GgufConfig

    path = embedded_model_path()
    expected = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).state_dict()
    converted = load_file(embedded_engine.model_folder / "model.safetensors")
    assert converted.keys() == expected.keys() - {"lm_head.weight"}
    for name, tensor in converted.items():
        torch.testing.assert_close(tensor.float(), expected[name], rtol=1e-3, atol=1e-6)


def test_a_second_start_reuses_the_conversion(embedded_engine, embedded_model_cache):
    folder = convert_gguf(embedded_model_path(), embedded_model_cache, on_progress=pytest.fail)
    assert folder == embedded_engine.model_folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    assert tokenizer.decode(tokenizer("naïve café 1911 🙂")["input_ids"]) == "naïve café 1911 🙂"


def test_the_model_config_of_a_conversion_is_what_transformers_reads(embedded_engine, tmp_path):
    folder = embedded_engine.model_folder
    expected = ModelConfig.from_transformers(AutoConfig.from_pretrained(folder))
    assert (folder / MODEL_CONFIG_FILE).is_file()
    assert read_model_config(folder) == expected
    # Another version's is passed over.
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / MODEL_CONFIG_FILE).write_text('{"family": "llama"}')
    assert read_model_config(tmp_path) == expected


def test_the_gguf_packages_reader_is_not_used(tmp_path, monkeypatch, write_gguf):
    # It takes seconds for a large vocabulary, and makes whatever a damaged file says.
    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf, "GGUFReader", pytest.fail)
    convert_gguf(path, tmp_path / "cache")


def write_tiny_gguf(
    path: Path, architecture: str, extra_tensors: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Write a random float32 model with the embedded model's tokenizer; returns its tensors by checkpoint name."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, field in gguf.GGUFReader(embedded_model_path()).fields.items():
        if name.startswith("tokenizer."):
            writer.add_key_value(name, field.contents(), field.types[0], *field.types[1:2])
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    rows = {"attn_q": HEADS * HEAD_DIM, "attn_k": KV_HEADS * HEAD_DIM, "attn_v": KV_HEADS * HEAD_DIM}
    shapes = {part: (count, HIDDEN) for part, count in rows.items()}
    shapes |= {"attn_output": (HIDDEN, HEADS * HEAD_DIM), "ffn_gate": (96, HIDDEN), "ffn_up": (96, HIDDEN)}
    shapes |= {"ffn_down": (HIDDEN, 96), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,)}
    if architecture == "qwen3":
        shapes |= {"attn_q_norm": (HEAD_DIM,), "attn_k_norm": (HEAD_DIM,)}
    generator = torch.Generator().manual_seed(0)
    written = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        written |= {f"blk.{layer}.{part}.weight": shape for part, shape in shapes.items()}
        if architecture == "qwen2":
            written |= {f"blk.{layer}.{part}.bias": (count,) for part, count in rows.items()}
    expected = {}
    for name, shape in written.items():
        tensor = torch.randn(shape, generator=generator) * 0.2
        if name in GLOBAL_TENSORS:
            expected[GLOBAL_TENSORS[name]] = tensor
        else:
            _, layer, part, kind = name.split(".")
            expected[f"model.layers.{layer}.{LAYER_TENSORS[part]}.{kind}"] = tensor
            if architecture == "llama" and part in ("attn_q", "attn_k"):
                # ggml wants the two halves of a head's rows interleaved.
                heads = shape[0] // HEAD_DIM
                tensor = tensor.view(heads, 2, HEAD_DIM // 2, HIDDEN).transpose(1, 2).reshape(shape)
        writer.add_tensor(name, tensor.contiguous().numpy())
    for name, tensor in (extra_tensors or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_family_is_read_and_decodes(tmp_path, never, architecture):
    expected = write_tiny_gguf(tmp_path / "tiny.gguf", architecture)
    folder = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "cache")
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name].float(), tensor, rtol=1e-3, atol=1e-4)
    config = read_model_config(folder)
    assert (config.family, config.num_kv_heads, config.head_dim, config.context_tokens) == (
        architecture, KV_HEADS, HEAD_DIM, 256,
    )  # fmt: skip
    assert config.tied_embeddings
    engine = Engine.load(
        str(tmp_path / "tiny.gguf"), EngineConfig(device="cpu", dtype="float32", cache_dir=tmp_path / "cache")
    )
    session = engine.new_session()
    list(session.prefill([5, 6, 7], never))
    assert len(list(session.decode(QuestConfig(), SamplingConfig(max_new_tokens=3), never))) == 3
    engine.close()


@pytest.mark.slow
def test_llama3s_frequency_factors_become_its_scaling(tmp_path):
    factors = torch.cat([torch.ones(4), torch.full((4,), 8.0)])
    write_tiny_gguf(tmp_path / "tiny.gguf", "llama", {"rope_freqs.weight": factors})
    folder = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "cache")
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_type"] == "llama3"
    rope = read_model_config(folder).rope
    assert (rope.kind, rope.factor, rope.original_max_tokens, rope.theta) == ("llama3", 8.0, 8192, 10000.0)


def test_an_unknown_tensor_leaves_no_folder_behind(tmp_path, write_gguf):
    write_gguf(tmp_path / "tiny.gguf", tensors={"blk.0.ffn_gate_exps.weight": torch.zeros(2, 2).numpy()})
    with pytest.raises(ModelError, match="tiny.gguf cannot be read.*ffn_gate_exps"):
        Engine.load(str(tmp_path / "tiny.gguf"), EngineConfig(device="cpu", cache_dir=tmp_path / "cache"))
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


def test_a_full_disk_is_one_sentence(tmp_path, write_gguf, monkeypatch):
    def fail(path, tensors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(gguf_conversion, "write_safetensors", fail)
    with pytest.raises(ModelError, match="tiny.gguf cannot be converted: No space left on device .*--data-dir"):
        find_model(str(write_gguf(tmp_path / "tiny.gguf")), tmp_path / "cache")
    monkeypatch.undo()
    monkeypatch.setattr(gguf_conversion.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(ModelError, match="takes 0.0 GiB on the disk of .*cache, and 0.0 GiB are free"):
        find_model(str(tmp_path / "tiny.gguf"), tmp_path / "cache")
