"""Bytes that a step must read, against figures worked out by hand."""

from __future__ import annotations

import torch

from app.measure.benchmarks.byte_bounds import (
    dense_attention_bytes,
    quest_attention_bytes,
    step_kv_bytes,
    step_weight_bytes,
)
from quest_core.config import QuestConfig
from quest_core.paged_kv_cache import PagePool


def test_one_layer():
    # 8 heads of 128 in 2 bytes: 2,048 bytes for a token's keys, as much for its values.
    assert dense_attention_bytes(8, 256, 1000) == 4096 * 1000
    # A budget of 100 holds 6 pages of 16.
    assert quest_attention_bytes(8, 256, 1000, 100, 16, 63 * 512) == 8 * 63 * 512 + 4096 * 96
    # No more can be selected than there is.
    assert quest_attention_bytes(8, 256, 1000, 2048, 16, 63 * 512) == 8 * 63 * 512 + 4096 * 1000


def test_a_step_reads_dense_layers_whole(tiny_shape):
    model = tiny_shape.model_config(512)
    pool = PagePool(model, 33, 16, torch.device("cpu"), torch.float32, "bounds", int8_summaries=False)
    token_bytes = 2 * 2 * 16 * 4  # keys and values, 2 heads of 16 in 4 bytes
    assert step_kv_bytes(model, QuestConfig(attention="dense"), 512, pool) == 3 * 512 * token_bytes
    sparse = 2 * 32 * (2 * 16 * 4) + 64 * token_bytes  # bounds of 32 pages for 2 heads, and 64 tokens
    for dense_layers, expected in ((2, 2 * 512 * token_bytes + sparse), (0, 3 * sparse)):
        quest = QuestConfig(token_budget=64, dense_layers=dense_layers)
        assert step_kv_bytes(model, quest, 512, pool) == expected
    # Within the budget everything is read and nothing scored.
    assert step_kv_bytes(model, QuestConfig(token_budget=512), 512, pool) == 3 * 512 * token_bytes


def test_scales_are_read_with_the_8_bit_keys_and_values(tiny_shape):
    model = tiny_shape.model_config(512)
    pool = PagePool(model, 33, 16, torch.device("cpu"), torch.bfloat16, "mean", int8_summaries=True, kv_bits=8)
    token_bytes = 2 * 2 * (16 + 4)  # keys and values, 2 heads of 16 in a byte with a scale of 4 bytes
    assert step_kv_bytes(model, QuestConfig(attention="dense"), 512, pool) == 3 * 512 * token_bytes
    sparse = 2 * 32 * (16 + 4) + 64 * token_bytes
    assert step_kv_bytes(model, QuestConfig(token_budget=64), 512, pool) == 3 * sparse


def test_an_embedding_is_read_only_as_a_head():
    assert step_weight_bytes(1000, 100, tied_embeddings=True) == 1000
    assert step_weight_bytes(1000, 100, tied_embeddings=False) == 900
