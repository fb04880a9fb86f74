"""Segments of prompts, and the index of those in the page pool."""

from __future__ import annotations

import pytest
import torch

from kernels.contract import SUMMARIES, CacheLayout
from kernels.float8 import FLOAT8
from kernels.reference import naive_append_keys_values
from quest_core.cache.paged_kv_cache import PagePool, SequenceCache
from quest_core.cache.prefixes import Prefix, PrefixIndex, plan_segments


def ends(segments) -> list[int]:
    return [segment.end for segment in segments]


def test_segments_end_on_a_grid_and_where_prefixes_do():
    tokens = list(range(3000))
    segments = plan_segments("root", tokens, [Prefix(2500, ("a", "b")), Prefix(1500, ("a",))], 1024)
    assert ends(segments) == [1024, 1500, 2048, 2500]
    assert [segment.start for segment in segments] == [0, 1024, 1500, 2048]
    assert [segment.owners for segment in segments] == [("a",), ("a",), ("a", "b"), ("a", "b")]
    assert segments[0].parent == "root"
    assert [segment.parent for segment in segments[1:]] == [segment.key for segment in segments[:-1]]
    assert plan_segments("root", tokens, [], 1024) == []


def test_keys_tell_all_tokens_before_and_where_they_are_cut():
    tokens = list(range(3000))
    prefixes = [Prefix(2500, ("a",))]
    keys = [segment.key for segment in plan_segments("root", tokens, prefixes, 1024)]
    assert keys == [segment.key for segment in plan_segments("root", tokens[:2500], prefixes, 1024)]
    # An owner is no part of what is computed.
    assert keys == [segment.key for segment in plan_segments("root", tokens, [Prefix(2500, ("z",))], 1024)]
    changed = [segment.key for segment in plan_segments("root", [7, *tokens[1:]], prefixes, 1024)]
    assert not set(keys) & set(changed)
    late = [segment.key for segment in plan_segments("root", tokens[:2499] + [7], prefixes, 1024)]
    assert (late[:2], late[2] == keys[2]) == (keys[:2], False)
    assert not set(keys) & {segment.key for segment in plan_segments("other", tokens, prefixes, 1024)}
    cut = plan_segments("root", tokens, [Prefix(1100, ("a",)), *prefixes], 1024)
    assert {segment.key for segment in cut} & set(keys) == {keys[0]}


@pytest.mark.parametrize("end", [0, -1, 11, 2.5, True])
def test_a_prefix_lies_within_the_prompt(end):
    with pytest.raises(ValueError, match="end_token"):
        plan_segments("root", list(range(10)), [Prefix(end, ("a",))], 1024)


@pytest.fixture
def pool() -> PagePool:
    return PagePool(CacheLayout(16, 1, 4, torch.float32, SUMMARIES["mean"], torch.int8), 2, 40, torch.device("cpu"))


def fill(index: PrefixIndex, cache: SequenceCache, segments, now: int = 0) -> None:
    for segment in segments:
        cache.reserve(segment.end - segment.start)
        cache.advance(segment.end - segment.start)
        index.add(segment, cache.last_pages(segment.start), now)


def test_pages_stay_while_anybody_uses_them(pool):
    index, cache = PrefixIndex(pool), SequenceCache(pool, 512)
    segments = plan_segments("root", list(range(150)), [Prefix(150, ("a",))], 64)
    fill(index, cache, segments)
    assert pool.free_pages == 30
    other = SequenceCache(pool, 512)
    for segment in segments:
        other.append_shared(index.find(segment.key).pages, segment.end)
    assert other.page_table.tolist() == cache.page_table.tolist()
    cache.truncate(0)
    assert index.oldest() is None  # nothing would become free
    other.truncate(0)
    assert pool.free_pages == 30
    for left in (2, 1, 0):
        index.evict(index.oldest())
        assert [index.find(segment.key) is not None for segment in segments] == [True] * left + [False] * (3 - left)
    assert pool.free_pages == 40


def test_the_last_segment_of_the_oldest_chain_goes_first(pool):
    index = PrefixIndex(pool)
    chains = [plan_segments("root", [start] * 128, [Prefix(128, ("a",))], 64) for start in (1, 2)]
    for now, chain in ((5, chains[0]), (3, chains[1])):
        cache = SequenceCache(pool, 512)
        fill(index, cache, chain, now)
        cache.truncate(0)
    gone = []
    while (kept := index.oldest()) is not None:
        gone.append(kept.segment)
        index.evict(kept)
    assert gone == [chains[1][1], chains[1][0], chains[0][1], chains[0][0]]


def test_forgetting_an_owner_takes_what_follows(pool):
    index, cache = PrefixIndex(pool), SequenceCache(pool, 512)
    segments = plan_segments("root", list(range(192)), [Prefix(64, ("a",)), Prefix(128, ("b",)), Prefix(192, ())], 64)
    fill(index, cache, segments)
    cache.truncate(0)
    index.forget("nobody")
    assert index.find(segments[2].key) is not None
    index.forget("b")
    assert [index.find(segment.key) is not None for segment in segments] == [True, False, False]
    assert pool.free_pages == 36
    # What is computed meanwhile has nothing to follow, and is not kept.
    assert index.add(segments[2], [0, 1, 2, 3], 0) is None
    index.forget("a")
    index.settle()
    assert pool.free_pages == 40


def test_pages_that_do_not_fit_are_refused(pool):
    index, cache, other = PrefixIndex(pool), SequenceCache(pool, 512), SequenceCache(pool, 100)
    segments = plan_segments("root", list(range(128)), [Prefix(128, ("a",))], 128)
    fill(index, cache, segments)
    pages = index.find(segments[0].key).pages
    for wrong, end in ((pages, 128), (pages[:3], 100), (pages, 90)):
        with pytest.raises(ValueError, match="pages do not bring"):
            other.append_shared(wrong, end)
    assert pool.free_pages == 32


@pytest.mark.parametrize(
    ("cut", "summary", "kv_bits"),
    [
        (1, "mean", 8),
        (15, "bounds", 16),
        (16, "mean", 16),
        (17, "bounds", 16),
        (27, "mean", 8),
        (250, "bounds", 16),
        (250, "mean", 8),
        (260, "mean", 16),
    ],
)
def test_sharing_changes_no_sequence_nor_its_summaries(cut, summary, kv_bits):
    """Two sequences part at the end of a page and in the middle: both are as if they had been written alone."""
    page_size = 16
    dtype = FLOAT8 if kv_bits == 8 else torch.float32
    layout = CacheLayout(page_size, 1, 4, dtype, SUMMARIES[summary], torch.int8)
    pool = PagePool(layout, 2, 200, torch.device("cpu"))
    common, *tails = (
        torch.randn((tokens, 1, 4), generator=torch.Generator().manual_seed(tokens)) for tokens in (cut, 301, 411)
    )

    def append(cache: SequenceCache, keys: torch.Tensor) -> None:
        cache.reserve(len(keys))
        for layer in pool.layers:
            naive_append_keys_values(keys, keys * 2, layer, cache.view(len(keys)))
        cache.advance(len(keys))

    def content(cache: SequenceCache) -> list[torch.Tensor]:
        table = cache.page_table.long()
        stored = [pool.cache.summaries[:, table].float(), pool.cache.summary_scales[:, table]]
        return stored + [part for layer in range(2) for part in cache.gather(layer, cache.length_tokens)]

    index = PrefixIndex(pool)
    (segment,) = plan_segments("root", list(range(cut)), [Prefix(cut, ("a",))], 4096)
    first, second, third = (SequenceCache(pool, 4096) for _ in range(3))
    append(first, common)
    index.add(segment, first.last_pages(0), 0)
    append(first, tails[0])
    second.append_shared(index.find(segment.key).pages, cut)
    append(second, tails[1])
    second.truncate(cut + 5)
    append(second, tails[1][5:])
    third.append_shared(index.find(segment.key).pages, cut)
    for cache, parts in ((first, [common, tails[0]]), (second, [common, tails[1]]), (third, [common])):
        alone = SequenceCache(pool, 4096)
        for part in parts:
            append(alone, part)
        for shared, expected in zip(content(cache), content(alone), strict=True):
            assert torch.equal(shared, expected)
        alone.truncate(0)
