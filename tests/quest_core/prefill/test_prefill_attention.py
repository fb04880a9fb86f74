"""Attention by blocks against attention in one call, and the way that is chosen for a device."""

from __future__ import annotations

import math

import pytest
import torch

from kernels import cpu as kernels
from kernels.contract import SUMMARIES, CacheLayout, PartialAttention
from kernels.float8 import FLOAT8, round_to_float8, widen
from kernels.reference import naive_append_keys_values
from quest_core.cache.paged_kv_cache import PagePool, SequenceCache
from quest_core.prefill.prefill import chunk_end
from quest_core.prefill.prefill_attention import (
    CUDNN_TOKENS,
    BlockwiseAttention,
    GatheredAttention,
    attend_with_cudnn,
    attend_with_flash,
    prefill_attention_for,
)

HEADS = [(4, 4, 64), (9, 3, 64), (8, 2, 128), (8, 1, 96), (4, 2, 256)]


def attend_plainly(queries, keys, values, causal, scale):
    """`Attend` in plain torch, in float32."""
    group = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (heads.float().repeat_interleave(group, dim=1) for heads in (keys, values))
    logits = torch.einsum("qhd,khd->hqk", queries.float(), wide_keys) * scale
    if causal:
        assert len(queries) == len(keys)
        logits += torch.full(logits.shape[1:], float("-inf"), device=logits.device).triu_(1)
    attended = torch.einsum("hqk,khd->qhd", logits.softmax(2), wide_values).to(queries.dtype)
    return PartialAttention(attended, logits.logsumexp(2))


@pytest.fixture
def blockwise_engine(tiny_engine, monkeypatch):
    """The tiny engine, attending by blocks of three pages."""
    scale = tiny_engine.model_config.softmax_scale
    attention = BlockwiseAttention(scale, kernels, attend_plainly, block_tokens=48)
    monkeypatch.setattr(tiny_engine.decoder, "_prefill_attention", attention)
    return tiny_engine


# One by one, so few that two blocks are whole and one is not.
@pytest.mark.parametrize(("chunk", "length"), [(1, 110), (7, 300), (16, 300), (64, 300), (100, 300), (300, 300)])
def test_blocks_equal_one_call(blockwise_engine, new_session, prompt, never, monkeypatch, chunk, length):
    session = new_session()
    session.prefill_chunk_tokens = chunk
    list(session.prefill(prompt(length), never))
    scale = blockwise_engine.model_config.softmax_scale
    monkeypatch.setattr(blockwise_engine.decoder, "_prefill_attention", GatheredAttention(scale))
    other = new_session()
    list(other.prefill(prompt(length), never))
    assert torch.allclose(session.logits, other.logits, rtol=1e-3, atol=1e-3)


def test_a_fork_reads_shared_pages_by_blocks(blockwise_engine, new_session, prompt, never):
    session = new_session()
    list(session.prefill(prompt(150), never))
    fork = session.fork()
    longer = prompt(150) + prompt(70, seed=2)
    list(fork.prefill(longer, never))
    fresh = new_session()
    list(fresh.prefill(longer, never))
    assert torch.allclose(fork.logits, fresh.logits, rtol=1e-3, atol=1e-3)


def test_a_chunk_reads_8_bit_pages_before_it_and_its_own_keys_as_they_are(tiny_engine):
    config = tiny_engine.model_config
    layout = CacheLayout(16, config.num_kv_heads, config.head_dim, FLOAT8, SUMMARIES["mean"], torch.int8)
    pool = PagePool(layout, config.num_layers, 16, torch.device("cpu"))
    cache = SequenceCache(pool, 256)
    queries = torch.randn((130, config.num_query_heads, config.head_dim), generator=torch.Generator().manual_seed(0))
    stored = torch.randn((2, 130, config.num_kv_heads, config.head_dim), generator=torch.Generator().manual_seed(1))
    for first, last in ((0, 100), (100, 130)):
        cache.advance(first)
        cache.reserve(last - first)
        naive_append_keys_values(*stored[:, first:last], pool.layers[0], cache.view(last - first))
    attention = BlockwiseAttention(config.softmax_scale, kernels, attend_plainly, block_tokens=48)
    attended = attention(0, queries[100:], *stored[:, 100:], cache)
    stored[:, :100] = widen(*round_to_float8(stored[:, :100]))
    expected, _ = attend_plainly(queries, *stored, True, config.softmax_scale)
    assert torch.allclose(attended, expected[100:].flatten(1), rtol=1e-4, atol=1e-5)


def test_chunks_lie_on_a_grid():
    assert [chunk_end(start, 1000, 256) for start in (0, 256, 700, 744, 768)] == [256, 512, 768, 1000, 1000]
    assert chunk_end(100, 300, 256) == 300  # what fits one chunk is not cut


def test_the_cpu_gathers_for_one_call(tiny_engine):
    way = prefill_attention_for(tiny_engine.model_config, torch.device("cpu"), torch.float32, kernels)
    assert isinstance(way, GatheredAttention)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("query_heads", "kv_heads", "head_dim"), HEADS)
@pytest.mark.parametrize(
    ("tokens", "context", "causal"),
    [(1, 1, True), (300, 300, True), (CUDNN_TOKENS, CUDNN_TOKENS, True), (1, 777, False), (300, 1541, False),
     (CUDNN_TOKENS, 2 * CUDNN_TOKENS, False)],
)  # fmt: skip
def test_fast_attention_and_its_log_sums(query_heads, kv_heads, head_dim, tokens, context, causal, dtype):
    if torch.cuda.get_device_capability()[0] < 9 or (head_dim > 128 and tokens == CUDNN_TOKENS):
        ways = [attend_with_flash]
    else:
        ways = [attend_with_flash, attend_with_cudnn]
    torch.manual_seed(0)
    # Views of one projection where the context is the chunk's own, as a prefill passes them.
    width = query_heads + 2 * kv_heads
    queries = torch.randn((tokens, width, head_dim), device="cuda", dtype=dtype)[:, :query_heads]
    own = torch.randn((context, width, head_dim), device="cuda", dtype=dtype)
    keys, values = own[:, query_heads : query_heads + kv_heads], own[:, query_heads + kv_heads :]
    if not causal:
        keys, values = keys.contiguous(), values.contiguous()
    expected, expected_sums = attend_plainly(queries.float(), keys, values, causal, 1 / math.sqrt(head_dim))
    for attend in ways:
        attended, sums = attend(queries, keys, values, causal, 1 / math.sqrt(head_dim))
        assert (attended.float() - expected).norm() <= 8e-3 * expected.norm()
        assert (sums - expected_sums).abs().max() <= 1e-3 * expected_sums.abs().max()
        assert sums.is_contiguous() and attended.stride(-1) == 1
