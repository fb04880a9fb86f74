"""Bytes that a step must read, against figures worked out by hand."""

from __future__ import annotations

import torch

from app.measure.benchmarks.instruments.byte_bounds import (
    dense_attention_bytes,
    quest_attention_bytes,
    step_kv_bytes,
    step_weight_bytes,
)
from kernels.contract import SUMMARIES, CacheLayout
from kernels.float8 import FLOAT8
from quest_core.config import QuestConfig


def test_one_layer():
    # 8 heads of 128 in 2 bytes: 2,048 bytes for a token's keys, as much for its values.
    assert dense_attention_bytes(8, 256, 1000) == 4096 * 1000
    layout = CacheLayout(16, 8, 128, torch.bfloat16, SUMMARIES["bounds"], torch.bfloat16)
    # A budget of 100 holds 6 pages of 16.
    assert quest_attention_bytes(layout, 1000, 100) == 8 * 63 * 512 + 4096 * 96
    # No more can be selected than there is.
    assert quest_attention_bytes(layout, 1000, 2048) == 8 * 63 * 512 + 4096 * 1000


def test_a_step_reads_dense_layers_whole(tiny_shape):
    model = tiny_shape.model_config(512)
    layout = CacheLayout(16, 2, 16, torch.float32, SUMMARIES["bounds"], torch.float32)
    token_bytes = 2 * 2 * 16 * 4  # keys and values, 2 heads of 16 in 4 bytes
    assert step_kv_bytes(model, QuestConfig(attention="dense"), 512, layout) == 3 * 512 * token_bytes
    sparse = 2 * 32 * (2 * 16 * 4) + 64 * token_bytes  # bounds of 32 pages for 2 heads, and 64 tokens
    for dense_layers, expected in ((2, 2 * 512 * token_bytes + sparse), (0, 3 * sparse)):
        quest = QuestConfig(token_budget=64, dense_layers=dense_layers)
        assert step_kv_bytes(model, quest, 512, layout) == expected
    # Within the budget everything is read and nothing scored.
    assert step_kv_bytes(model, QuestConfig(token_budget=512), 512, layout) == 3 * 512 * token_bytes


def test_scales_are_read_with_the_8_bit_keys_and_values(tiny_shape):
    model = tiny_shape.model_config(512)
    layout = CacheLayout(16, 2, 16, FLOAT8, SUMMARIES["mean"], torch.int8)
    token_bytes = 2 * 2 * (16 + 4)  # keys and values, 2 heads of 16 in a byte with a scale of 4 bytes
    assert step_kv_bytes(model, QuestConfig(attention="dense"), 512, layout) == 3 * 512 * token_bytes
    sparse = 2 * 32 * (16 + 4) + 64 * token_bytes
    assert step_kv_bytes(model, QuestConfig(token_budget=64), 512, layout) == 3 * sparse


def test_an_embedding_is_read_only_as_a_head():
    assert step_weight_bytes(1000, 100, tied_embeddings=True) == 1000
    assert step_weight_bytes(1000, 100, tied_embeddings=False) == 900
