"""The metadata of GGUF files as configs: RoPE scaling as in llama.cpp, and values that no model has."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from quest_core.config import RopeConfig
from quest_core.model.gguf_config import GgufMetadata, transformers_config
from quest_core.model.gguf_conversion import convert_gguf
from quest_core.model.model_folder import read_model_config
from quest_core.model.model_source import ModelError, find_model
from quest_core.model.rope import inverse_frequencies

pytest.importorskip("gguf")  # only those who read such files need it

SCALING = "{a}.rope.scaling."
YARN = {f"{SCALING}type": "yarn", f"{SCALING}factor": 4.0, f"{SCALING}original_context_length": 64}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({f"{SCALING}type": "linear", f"{SCALING}factor": 4.0}, RopeConfig(kind="linear", factor=4.0)),
        ({f"{SCALING}factor": 4.0}, RopeConfig(kind="linear", factor=4.0)),
        ({"{a}.rope.scale_linear": 2.0}, RopeConfig(kind="linear", factor=2.0)),
        ({"{a}.rope.scale_linear": 2.0, f"{SCALING}factor": 4.0}, RopeConfig(kind="linear", factor=4.0)),
        ({f"{SCALING}type": "none", f"{SCALING}factor": 4.0}, RopeConfig()),
        ({f"{SCALING}type": "linear"}, RopeConfig()),
        ({f"{SCALING}factor": 0.0}, RopeConfig()),
        (YARN, RopeConfig(kind="yarn", factor=4.0, original_max_tokens=64)),
        (YARN | {f"{SCALING}finetuned": True}, RopeConfig(kind="yarn", factor=4.0, original_max_tokens=64)),
        (
            YARN | {f"{SCALING}yarn_beta_fast": 16.0, f"{SCALING}yarn_ext_factor": -1.0},
            RopeConfig(kind="yarn", factor=4.0, original_max_tokens=64, beta_fast=16.0),
        ),
        (
            YARN | {f"{SCALING}attn_factor": 0.5},
            RopeConfig(
                kind="yarn", factor=4.0, original_max_tokens=64, attention_factor=0.5 * (0.1 * math.log(4.0) + 1.0)
            ),
        ),
    ],
)
def test_rope_scaling_is_that_of_llama_cpp(tmp_path, write_gguf, values, expected):
    folder = convert_gguf(write_gguf(tmp_path / "model.gguf", values=values), tmp_path / "cache")
    config = read_model_config(folder)
    assert config.context_tokens == 256
    for each in ("theta", "kind", "factor", "beta_fast", "attention_factor"):
        assert getattr(config.rope, each) == getattr(expected, each)
    assert config.rope.original_max_tokens == (expected.original_max_tokens or 256)
    (folder / "quest_config.json").unlink()
    assert read_model_config(folder) == config


def test_yarn_turns_as_ggml_does(tmp_path, write_gguf):
    config = read_model_config(convert_gguf(write_gguf(tmp_path / "m.gguf", values=YARN), tmp_path / "cache"))
    pairs = config.head_dim // 2
    # rope_yarn and ggml_rope_yarn_corr_dims, from ggml's source.
    plain = 10000.0 ** (-2.0 * np.arange(pairs) / config.head_dim)

    def dimension(rotations):
        return config.head_dim * math.log(64 / (rotations * 2 * math.pi)) / (2 * math.log(10000.0))

    low, high = max(0, math.floor(dimension(32.0))), min(config.head_dim - 1, math.ceil(dimension(1.0)))
    mix = 1.0 - np.clip((np.arange(pairs) - low) / max(0.001, high - low), 0.0, 1.0)
    frequencies, scale = inverse_frequencies(config.rope, config.head_dim)
    np.testing.assert_allclose(frequencies.numpy(), plain / 4.0 * (1.0 - mix) + plain * mix)
    assert scale == pytest.approx(1.0 + 0.1 * math.log(4.0))
    assert set(ROPE_INIT_FUNCTIONS) >= {"yarn", "linear"}


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_sliding_window_limits_the_context(tmp_path, write_gguf, architecture):
    norms = {f"blk.{i}.attn_{each}_norm.weight": np.ones(16, np.float32) for i in range(2) for each in "qk"}
    tensors = norms if architecture == "qwen3" else None

    def window(sliding):
        path = write_gguf(tmp_path / "m.gguf", architecture, {"{a}.attention.sliding_window": sliding}, tensors)
        config = read_model_config(convert_gguf(path, tmp_path / "cache"))
        assert config.family == architecture
        return config.context_tokens

    assert [window(each) for each in (None, 0, 128, 1024)] == [256, 256, 128, 256]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"{a}.block_count": (1 << 31) - 1}, "2147483647"),
        ({"{a}.block_count": 3}, "says it has 3 layers, and tensors of 2 are there"),
        ({"{a}.block_count": 1}, "says it has 1 layers, and tensors of 2 are there"),
        ({"{a}.block_count": None}, "llama.block_count is missing"),
        ({"{a}.block_count": "two"}, "llama.block_count must be a whole number, got 'two'"),
        ({"{a}.block_count": 2.0}, "llama.block_count must be a whole number, got 2.0"),
        ({"{a}.embedding_length": 1 << 40}, "llama.embedding_length must be at most"),
        ({"{a}.embedding_length": 128}, "token_embd|embed_tokens.* 259 x 64, .* 128 .hidden_size"),
        ({"{a}.feed_forward_length": 1 << 20}, "gate_proj.weight is 96 x 64, .*1048576 .intermediate_size"),
        ({"{a}.feed_forward_length": [96, 97]}, "not the same in all layers"),
        ({"{a}.attention.head_count": 0}, "llama.attention.head_count must be positive"),
        ({"{a}.attention.head_count": 1 << 20}, "attention.key_length must be positive, got 0"),
        ({"{a}.attention.head_count": 8}, "k_proj.weight is 32 x 64, .* 16 .num_key_value_heads"),
        ({"{a}.attention.head_count_kv": 3}, "cannot share 3 kv heads"),
        ({"{a}.attention.head_count_kv": 4}, "k_proj.weight is 32 x 64"),
        ({"{a}.attention.key_length": 1 << 30}, "llama.attention.key_length must be at most"),
        ({"{a}.attention.value_length": 8}, "value_length must be the size of a head, 16"),
        ({"{a}.rope.dimension_count": 8}, "rope.dimension_count must be the size of a head, 16"),
        ({"{a}.context_length": 0}, "llama.context_length must be positive"),
        ({"{a}.context_length": 1 << 40}, "llama.context_length must be at most"),
        ({"{a}.attention.layer_norm_rms_epsilon": math.nan}, "layer_norm_rms_epsilon must be a finite number, got nan"),
        ({"{a}.attention.layer_norm_rms_epsilon": 0.0}, "rms_norm_eps must be above 0"),
        ({"{a}.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"{a}.rope.freq_base": math.inf}, "llama.rope.freq_base must be a finite number"),
        ({"{a}.rope.freq_base": 0.0}, "theta must be above 1"),
        ({f"{SCALING}factor": math.nan}, "rope.scaling.factor must be a finite number"),
        ({f"{SCALING}factor": 0.5}, "rope.scaling.factor must be at least 1, got 0.5"),
        ({f"{SCALING}type": "longrope"}, "llama.rope.scaling.type 'longrope' is not supported"),
        ({f"{SCALING}type": 7}, "rope.scaling.type must be a text"),
        ({f"{SCALING}attn_factor": 2.0}, "attn_factor 2.0 is supported with yarn only"),
        (YARN | {f"{SCALING}yarn_ext_factor": 0.5}, "yarn_ext_factor 0.5 is not supported"),
        (YARN | {f"{SCALING}yarn_log_multiplier": 0.1}, "yarn_log_multiplier"),
        (YARN | {f"{SCALING}original_context_length": 0}, "original_context_length must be positive"),
        (YARN | {f"{SCALING}yarn_beta_slow": 0.0}, "beta_slow must be"),
        ({"{a}.attention.sliding_window": 1 << 40}, "sliding_window must be at most"),
        ({"tokenizer.ggml.eos_token_id": 259}, "tokenizer.ggml.eos_token_id must be at most 258, got 259"),
        ({"tokenizer.ggml.bos_token_id": "256"}, "tokenizer.ggml.bos_token_id must be a whole number"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": ["a"] * 300}, "300 tokens, and its embedding 259 rows"),
        ({"tokenizer.ggml.model": "strange"}, "tokenizer cannot be built.*strange"),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_name(tmp_path, write_gguf, values, complaint):
    path = write_gguf(tmp_path / "model.gguf", values=values)
    with pytest.raises(ModelError, match=f"model.gguf cannot be read.*({complaint})"):
        find_model(str(path), tmp_path / "cache")
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"token_embd.weight": np.zeros((0,), np.float32)}, "token_embd"),
        ({"blk.0.attn_q.weight": np.full((64, 64), np.nan, np.float32)}, "blk.0.attn_q.weight .*not finite"),
        ({"blk.0.ffn_up.weight": np.full((96, 64), 1e6, np.float32)}, "ffn_up.weight .*too large for float16"),
        ({"blk.00.attn_q.weight": np.zeros((64, 64), np.float32)}, "blk.00.attn_q.weight has no place"),
        ({"blk.0.attn_q": np.zeros((64, 64), np.float32)}, "blk.0.attn_q has no place"),
        ({"blk.9.attn_norm.weight": np.zeros(64, np.float32)}, "2 layers, and tensors of 3"),
        ({"output.weight": np.zeros((9, 64), np.float32)}, "lm_head.weight is 9 x 64"),
        ({"blk.0.attn_q.weight": np.zeros((64, 64), np.int32)}, "blk.0.attn_q.weight is in the format I32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, write_gguf, tensors, complaint):
    path = write_gguf(tmp_path / "model.gguf", tensors=tensors)
    with pytest.raises(ModelError, match=f"model.gguf cannot be read.*{complaint}"):
        find_model(str(path), tmp_path / "cache")


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="'gemma3' is not supported; llama, mistral, qwen2, qwen3 are"):
        GgufMetadata({"general.architecture": "gemma3"})
    for architecture in (None, 7, ["llama"]):
        with pytest.raises(ValueError, match="not supported"):
            GgufMetadata({"general.architecture": architecture})


def test_a_value_for_each_layer_is_one_where_they_agree():
    values = {"general.architecture": "llama", "llama.attention.head_count_kv": np.array([2, 2])}
    assert GgufMetadata(values).whole("attention.head_count_kv") == 2


def test_scaling_beside_llama3s_factors_is_refused():
    values = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 64,
        "llama.embedding_length": 64, "llama.feed_forward_length": 96, "llama.attention.head_count": 4,
        "tokenizer.ggml.tokens": 9, "llama.attention.layer_norm_rms_epsilon": 1e-6, "llama.rope.scaling.factor": 4.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="'linear' beside rope_freqs is not supported"):
        transformers_config(GgufMetadata(values), {}, torch.ones(8))


@pytest.mark.parametrize("adds", [True, False, None])
def test_the_tokenizers_facts_are_carried_over(tmp_path, write_gguf, adds):
    values = {"tokenizer.ggml.add_bos_token": adds, "tokenizer.ggml.eot_token_id": 258}
    values |= {"tokenizer.chat_template": "{{ 1 }}"}
    folder = convert_gguf(write_gguf(tmp_path / "model.gguf", values=values), tmp_path / "cache")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert (settings.get("add_bos_token"), settings["bos_token"], settings["eos_token"]) == (adds, "<s>", "</s>")
    assert read_model_config(folder).eos_token_ids == (257, 258)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ 1 }}"
    assert (tokenizer.decode(tokenizer("<s>hé", add_special_tokens=False)["input_ids"]), tokenizer.bos_token_id) == (
        "<s>hé", 256,
    )  # fmt: skip
