"""Configuration: what is refused, and what is read from transformers' configs."""

from __future__ import annotations

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
        (lambda: EngineConfig(summary_levels=3), "summary_levels must be 1 or 2, got 3"),
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
    assert (model.trained_tokens, model.stretch_factor, len(model.ropes)) == (8192, 1.0, 1)
    stretched = model.with_context(20000)
    assert [(tokens, rope.factor) for tokens, rope in stretched.ropes] == [
        (8192, 1.0), (16384, 2.0), (20000, 20000 / 8192),
    ]  # fmt: skip
    assert stretched.ropes[0][1] == model.rope
    assert (stretched.trained_tokens, stretched.stretch_factor) == (8192, 20000 / 8192)
    # What a sequence of a length sees.
    assert stretched.with_context(8192) == model
    middle = stretched.with_context(8193)
    assert (middle.context_tokens, middle.stretch_factor, middle.trained_tokens) == (8193, 2.0, 8192)
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
    assert (model.trained_tokens, model.stretch_factor) == (4096, 1.0)
