"""RoPE tables against transformers' own frequencies."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from quest_core.config import ModelConfig
from quest_core.model import rope
from quest_core.model.rope import inverse_frequencies, rope_tables

PARAMETERS = {
    "default": {"rope_type": "default", "rope_theta": 100000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn_own_scale": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.3,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
    },
}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_tables_equal_transformers(name, head_dim):
    config = LlamaConfig(head_dim=head_dim, max_position_embeddings=8192, rope_parameters=PARAMETERS[name])
    model = ModelConfig.from_transformers(config)
    cosines, sines = rope_tables(model, torch.device("cpu"))
    positions = torch.tensor([[0, 1, 2, 1000, 8191]])
    expected_cosines, expected_sines = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
    half = head_dim // 2
    # transformers multiplies positions and frequencies in float32: 8191 radians keep about 3 digits of the angle.
    torch.testing.assert_close(cosines[positions[0]], expected_cosines[0, :, :half], rtol=0, atol=2e-3)
    torch.testing.assert_close(sines[positions[0]], expected_sines[0, :, :half], rtol=0, atol=2e-3)
    frequencies, _ = inverse_frequencies(model.rope, head_dim)
    torch.testing.assert_close(frequencies.float(), LlamaRotaryEmbedding(config).inv_freq, rtol=1e-5, atol=0)


def test_tables_in_blocks_are_the_same(monkeypatch):
    config = LlamaConfig(head_dim=64, max_position_embeddings=1000, rope_parameters=PARAMETERS["default"])
    model = ModelConfig.from_transformers(config)
    expected = rope_tables(model, torch.device("cpu"))
    monkeypatch.setattr(rope, "BLOCK_TOKENS", 7)
    for table, same in zip(expected, rope_tables(model, torch.device("cpu")), strict=True):
        torch.testing.assert_close(table, same, rtol=0, atol=0)
