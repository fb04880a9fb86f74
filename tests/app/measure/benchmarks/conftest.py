"""Tiny shapes, so that every benchmark runs on the CPU. No time is ever asserted."""

from __future__ import annotations

import pytest

from app.measure.benchmarks.subjects.shapes import ModelShape
from app.settings import AppSettings


@pytest.fixture
def tiny_shape() -> ModelShape:
    """Three layers, normed queries and keys, tied embeddings."""
    sizes = {
        "vocab_size": 211,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "tie_word_embeddings": True,
    }
    return ModelShape("tiny", "qwen3", sizes, 1e4)


@pytest.fixture
def cpu_settings(tmp_path) -> AppSettings:
    """Pages of 16 with bounds in the cache's own float32, on the CPU."""
    return AppSettings(
        data_dir=tmp_path, device="cpu", dtype="float32", page_size=16, selection="quest", summary_bits=16
    )
