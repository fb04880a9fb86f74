"""Configuration: what is refused, and what is read from transformers' configs."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from quest_core.config import EngineConfig, ModelConfig, QuestConfig, RopeConfig, SamplingConfig


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: QuestConfig(attention="sparse"), "sparse"),
        (lambda: QuestConfig(token_budget=0), "token_budget must be positive, got 0"),
        (lambda: QuestConfig(sink_pages=-1), "must not be negative"),
        (lambda: SamplingConfig(temperature=-0.1), "-0.1"),
        (lambda: SamplingConfig(top_p=0.0), "top_p"),
        (lambda: SamplingConfig(min_p=1.0), "min_p"),
        (lambda: SamplingConfig(max_new_tokens=0), "max_new_tokens"),
        (lambda: EngineConfig(page_size=12), "page_size must be one of .*, got 12"),
        (lambda: EngineConfig(dtype="int3"), "int3"),
        (lambda: EngineConfig(kv_bits=4), "kv_bits must be one of .*, got 4"),
        (lambda: EngineConfig(device="tpu"), "tpu"),
        (lambda: RopeConfig(kind="dynamic"), "dynamic"),
        (lambda: RopeConfig(kind="yarn", factor=2.0), "original_max_tokens"),
    ],
)
def test_bad_values_are_quoted(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_budget_in_pages_rounds_down():
    assert QuestConfig(token_budget=1024).budget_pages(16) == 64
    assert QuestConfig(token_budget=1030).budget_pages(16) == 64
    assert QuestConfig(token_budget=16, sink_pages=0, recent_pages=0).budget_pages(16) == 1


def test_a_sliding_window_limits_the_context():
    assert ModelConfig.from_transformers(MistralConfig(sliding_window=4096)).context_tokens == 4096
    assert ModelConfig.from_transformers(MistralConfig(sliding_window=None)).context_tokens == 4096 * 32
    unused = Qwen2Config(use_sliding_window=False, sliding_window=4096, max_position_embeddings=32768)
    assert ModelConfig.from_transformers(unused).context_tokens == 32768


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="gelu"):
        ModelConfig.from_transformers(LlamaConfig(hidden_act="gelu"))


def test_a_longer_window_is_stretched_no_further_than_needed():
    model = ModelConfig.from_transformers(LlamaConfig(max_position_embeddings=8192))
    assert model.with_context(4096).rope.kind == "default"
    stretched = model.with_context(16384)
    assert (stretched.context_tokens, stretched.rope.kind, stretched.rope.factor) == (16384, "yarn", 2.0)
    with pytest.raises(ValueError, match="already stretches"):
        stretched.with_context(32768)


def test_shorter_sequences_of_a_stretched_window_are_stretched_less():
    model = ModelConfig.from_transformers(LlamaConfig(max_position_embeddings=8192))
    assert (model.trained_tokens, model.rope_factor, len(model.ropes)) == (8192, 1.0, 1)
    stretched = model.with_context(20000)
    assert [(tokens, rope.factor) for tokens, rope in stretched.ropes] == [
        (8192, 1.0), (16384, 2.0), (20000, 20000 / 8192),
    ]  # fmt: skip
    assert stretched.ropes[0][1] == model.rope
    assert (stretched.trained_tokens, stretched.rope_factor) == (8192, 20000 / 8192)
    # What a sequence of a length sees.
    assert stretched.with_context(8192) == model
    middle = stretched.with_context(8193)
    assert (middle.context_tokens, middle.rope_factor, middle.trained_tokens) == (8193, 2.0, 8192)
    assert model.with_context(4096).trained_tokens == 4096


def test_a_config_survives_json():
    model = ModelConfig.from_transformers(LlamaConfig(max_position_embeddings=8192, eos_token_id=[2, 7]))
    for config in (model, model.with_context(20000)):
        assert ModelConfig.from_json(config.to_json()) == config
    for text in (model.to_json().replace("hidden_size", "hidden"), "{}", "[]"):
        with pytest.raises(ValueError):
            ModelConfig.from_json(text)


def test_a_model_that_stretches_itself_is_taken_as_it_is():
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024}
    model = ModelConfig.from_transformers(Qwen2Config(max_position_embeddings=4096, rope_parameters=rope))
    assert (model.trained_tokens, model.rope_factor) == (4096, 1.0)


MODEL = ModelConfig.from_transformers(LlamaConfig(max_position_embeddings=8192))
NO_NUMBERS = [math.nan, math.inf, -math.inf, "4", None, [4], True, 10**400]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda value: RopeConfig(theta=value), "theta"),
        (lambda value: RopeConfig(kind="linear", factor=value), "factor"),
        (lambda value: RopeConfig(kind="yarn", factor=2.0, original_max_tokens=64, beta_fast=value), "beta_fast"),
        (lambda value: RopeConfig(kind="llama3", original_max_tokens=64, high_freq_factor=value), "high_freq_factor"),
        (lambda value: SamplingConfig(temperature=value), "temperature"),
        (lambda value: SamplingConfig(top_p=value), "top_p"),
        (lambda value: SamplingConfig(min_p=value), "min_p"),
        (lambda value: SamplingConfig(repetition_penalty=value), "repetition_penalty"),
        (lambda value: ModelConfig.from_json(_changed(rms_norm_epsilon=value)), "rms_norm_eps"),
    ],
)
def test_what_is_no_finite_number_is_refused(make, name):
    for value in NO_NUMBERS:
        with pytest.raises(ValueError, match=name):
            make(value)


@pytest.mark.parametrize("name", [each.name for each in fields(ModelConfig) if each.type == "int"])
def test_what_is_no_size_is_refused(name):
    for value in (math.nan, math.inf, 2.0, "4", [4], True, 0, -1, 10**30):
        with pytest.raises(ValueError, match=name):
            ModelConfig.from_json(_changed(**{name: value}))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RopeConfig(theta=0.0), "theta must be above 1, got 0.0"),
        (lambda: RopeConfig(kind="linear", factor=0.0), "factor must be at least 1, got 0.0"),
        (lambda: RopeConfig(kind="llama3", original_max_tokens=64, low_freq_factor=4.0), "must be below"),
        (lambda: RopeConfig(kind="yarn", factor=2.0, original_max_tokens=64, attention_factor=0.0), "attention_factor"),
        (lambda: RopeConfig(kind="yarn", factor=2.0, original_max_tokens=math.nan), "original_max_tokens"),
        (lambda: ModelConfig.from_json(_changed(rms_norm_epsilon=0.0)), "rms_norm_eps must be above 0"),
        (lambda: ModelConfig.from_json(_changed(rms_norm_epsilon=-1e-5)), "rms_norm_eps must be above 0"),
        (lambda: ModelConfig.from_json(_changed(eos_token_ids=["2"])), "eos_token_id must be a whole number"),
        (lambda: QuestConfig(token_budget=math.nan), "token_budget must be a whole number, got nan"),
        (lambda: QuestConfig(dense_layers=1.5), "dense_layers must be a whole number, got 1.5"),
        (lambda: SamplingConfig(top_k=math.nan), "top_k must be a whole number"),
        (lambda: SamplingConfig(seed=1 << 64), "seed must be at most"),
        (lambda: SamplingConfig(max_new_tokens=math.inf), "max_new_tokens must be a whole number"),
        (lambda: EngineConfig(context_tokens=math.nan), "context_tokens must be a whole number"),
        (lambda: EngineConfig(context_tokens=10**12), "context_tokens must be at most"),
        (lambda: EngineConfig(prefill_chunk_tokens=0), "prefill_chunk_tokens must be positive, got 0"),
    ],
)
def test_values_that_comparisons_let_pass_are_quoted(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sliding_window": -4096}, "sliding_window must be positive, got -4096"),
        ({"layer_types": ["linear_attention"] * 32}, "linear_attention.*not supported"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": [4]}}, "factor must be a finite"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}}, "factor must be at least 1"),
    ],
)
def test_what_transformers_lets_pass_is_refused(settings, complaint):
    config = Qwen2Config(use_sliding_window=True, sliding_window=4096)
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=complaint):
        ModelConfig.from_transformers(config)


def _changed(**values) -> str:
    return json.dumps(json.loads(MODEL.to_json()) | values)
