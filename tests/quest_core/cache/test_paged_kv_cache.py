"""Page accounting: sharing, copy on write, truncation, exhaustion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.contract import SUMMARIES, CacheLayout
from kernels.float8 import FLOAT8, round_to_float8, widen
from kernels.reference import naive_append_keys_values
from quest_core.cache.cache_layout import page_bytes, scored_bytes, vector_bytes
from quest_core.cache.paged_kv_cache import PagePool, PoolExhausted, SequenceCache

LAYOUT = CacheLayout(16, 1, 4, torch.float32, SUMMARIES["mean"], torch.int8)


@pytest.fixture
def pool() -> PagePool:
    return PagePool(LAYOUT, 2, 12, torch.device("cpu"))


def grow(cache: SequenceCache, tokens: int) -> None:
    cache.reserve(tokens)
    cache.advance(tokens)


def test_pages_come_as_tokens_do(pool):
    cache = SequenceCache(pool, 512)
    for tokens, pages in ((1, 1), (15, 1), (1, 2), (40, 4)):
        grow(cache, tokens)
        assert cache.num_pages == pages
    assert pool.free_pages == 8
    assert len(set(cache.page_table.tolist())) == 4


def test_a_fork_shares_until_it_writes(pool):
    cache = SequenceCache(pool, 512)
    grow(cache, 40)
    pool.cache.key_pages[:, cache.page_table.long()] = torch.arange(3.0).view(1, 3, 1, 1, 1)
    fork = cache.fork()
    assert pool.free_pages == 9
    grow(fork, 1)
    assert pool.free_pages == 8
    assert fork.page_table[:2].tolist() == cache.page_table[:2].tolist()
    assert fork.page_table[2] != cache.page_table[2]
    assert (pool.cache.key_pages[:, int(fork.page_table[2])] == 2.0).all()
    grow(cache, 1)  # now the only owner of its last page: no copy
    assert pool.free_pages == 8


def test_a_fork_at_a_page_boundary_copies_nothing(pool):
    cache = SequenceCache(pool, 512)
    grow(cache, 32)
    fork = cache.fork()
    grow(fork, 1)
    assert pool.free_pages == 12 - 3


def test_truncating_keeps_what_the_other_fork_needs(pool):
    cache = SequenceCache(pool, 512)
    grow(cache, 64)
    fork = cache.fork()
    cache.truncate(20)
    assert (cache.num_pages, pool.free_pages) == (2, 8)
    fork.truncate(0)
    assert pool.free_pages == 10
    cache.truncate(0)
    assert pool.free_pages == 12


def test_a_full_pool_changes_nothing_in_the_sequence(pool):
    cache = SequenceCache(pool, 512)
    grow(cache, 160)
    with pytest.raises(PoolExhausted, match="All 12 KV pages"):
        cache.reserve(100)
    assert cache.length_tokens == 160
    cache.truncate(100)
    assert pool.free_pages == 5


def test_reclaim_is_asked_first(pool):
    idle, busy = SequenceCache(pool, 512), SequenceCache(pool, 512)
    grow(idle, 160)

    def reclaim() -> bool:
        idle.truncate(0)
        return pool.free_pages > 0

    pool.reclaim = reclaim
    grow(busy, 100)
    assert (idle.length_tokens, busy.length_tokens) == (0, 100)


def test_the_window_is_a_limit(pool):
    cache = SequenceCache(pool, 20)
    grow(cache, 20)
    with pytest.raises(ValueError, match="21 tokens do not fit the window of 20"):
        cache.reserve(1)


def test_gather_returns_tokens_in_order(pool):
    other, cache = SequenceCache(pool, 512), SequenceCache(pool, 512)
    for _ in range(3):  # interleaved, so that the pages of a sequence do not lie side by side
        grow(other, 16)
        grow(cache, 16)
    for index, page in enumerate(cache.page_table.tolist()):
        pool.cache.key_pages[1, page, 0, :, 0] = torch.arange(16.0) + 16 * index
    keys, _ = cache.gather(1, 40)
    assert keys.shape == (1, 40, 4)
    assert keys[0, :, 0].tolist() == list(range(40))


def test_every_page_is_scored():
    assert scored_bytes(replace(LAYOUT, page_size=4), 40_000) == 40_000 * (LAYOUT.head_dim + 4)


@pytest.mark.parametrize("dtype", [FLOAT8, torch.bfloat16], ids=str)
@pytest.mark.parametrize("summary_dtype", [torch.bfloat16, torch.int8], ids=str)
def test_pages_are_planned_with_the_bytes_they_take(dtype, summary_dtype):
    layout = CacheLayout(16, 1, 4, dtype, SUMMARIES["bounds"], summary_dtype)
    assert PagePool(layout, 2, 12, torch.device("cpu")).bytes == 12 * page_bytes(layout, 2)
    assert vector_bytes(layout) == (8 if dtype == torch.bfloat16 else 4 + 4)


def test_8_bit_pages_are_copied_and_gathered_with_their_scales():
    pool = PagePool(replace(LAYOUT, dtype=FLOAT8), 2, 12, torch.device("cpu"))
    cache = SequenceCache(pool, 512)
    grow(cache, 40)
    values = torch.randn((40, 1, 4), generator=torch.Generator().manual_seed(0))
    naive_append_keys_values(values * 3.0, values, pool.layers[1], cache.view(0))
    fork = cache.fork()
    grow(fork, 1)
    assert fork.page_table[2] != cache.page_table[2]
    for sequence in (cache, fork):
        for gathered, expected in zip(sequence.gather(1, 40), (values * 3.0, values), strict=True):
            assert gathered.dtype == torch.bfloat16
            rounded = widen(*round_to_float8(expected)).transpose(0, 1)
            assert torch.equal(gathered.float(), rounded)
