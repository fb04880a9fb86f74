"""Score KV pages from their summaries, straight from the query.

One kernel makes the query vectors and their dot products with the summary vectors, the products on the matrix units:
these stream the summaries at the speed of the memory, where products element by element reached half of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.contract import CacheLayout, LayerCache, SequenceView
from kernels.gpu_tools.cache_pointers import Summaries, summary_pointers
from kernels.gpu_tools.checks import (
    multiprocessors,
    require_cache,
    require_contiguous,
    require_query,
    require_sequence,
    shared_memory_bytes,
)
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu_tools.rows import load_rows
from kernels.score.gpu_query_vectors import load_query_vectors
from kernels.select.gpu_ranking import BUCKETS, LOGIT_BLOCK_PAGES, ScoredPages, Scores, sum_up_logits

NUM_WARPS = 4
# A pipeline keeps a block of summaries in shared memory, and up to so much else; if that does not fit there is none.
NUM_STAGES, OTHER_SHARED_BYTES = 3, 1 << 15
# Pages of a block: at most, with 8-bit summaries twice as many, which are as many bytes; and at least, where larger
# blocks would be too few for all multiprocessors.
BLOCK_PAGES, LEAST_BLOCK_PAGES = {"int8": 128, "floating": 64}, 32
# Programs hide each other's waits; each keeps its query vectors for several blocks.
PROGRAMS_PER_MULTIPROCESSOR = {1: 4, 2: 2}  # by the vectors of a summary
# Of the L2 cache.
LINE_BYTES = tl.constexpr(128)


class ScoreShape(NamedTuple):
    """Constants of a kernel that scores, beside those of a `CacheLayout`.

    Args:
        group: query heads of a kv head.
        members: of these, filled up; four times as many are the rows of a product.
        block_pages: that a program scores at once.
        block_dim: channels of a head, filled up.
        stages: of the pipeline that loads summaries.
        sums_up: whether blocks of scores are summed up.
    """

    group: int
    members: int
    block_pages: int
    block_dim: int
    stages: int
    sums_up: bool


class ScoredBlock(NamedTuple):
    """A block of pages that is scored.

    Args:
        index: of the block.
        physical: int32 [block_pages], where their summaries are; all of them must exist.
        visible: [1, block_pages], which of them are in the sequence.
    """

    index: tl.tensor
    physical: tl.tensor
    visible: tl.tensor


@triton.jit
def _products(vectors, step, summaries, rows, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Products with one vector of each page's summary, float32 [rows, pages]."""
    summary = load_rows(summaries.vector_ptr, rows, LAYOUT.head_dim, SHAPE.block_dim)
    if LAYOUT.has_int8_summaries:
        products = tl.dot(vectors, tl.trans(summary), out_dtype=tl.int32).to(tl.float32) * step
        return products * tl.load(summaries.scale_ptr + rows)[None, :]
    else:
        return tl.dot(vectors, tl.trans(summary), input_precision="ieee")


@triton.jit
def _load_physical(pages, page_table_ptr, total_pages, logical_pages):
    """The physical pages of logical ones; for those beyond the sequence any page that exists."""
    # All are loaded, since the length of the sequence takes as long to come as the table.
    physical = tl.load(page_table_ptr + pages, pages < logical_pages, 0)
    return tl.where(pages < total_pages, physical, 0)


@triton.jit
def _first_vectors(physical, head, LAYOUT: tl.constexpr):
    """The index, among all vectors of the cache, of the first one of each page."""
    return (physical * LAYOUT.kv_heads + head) * LAYOUT.summary.vectors


@triton.jit
def score_block(head, block, query_vectors, summaries, scores, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Score a `ScoredBlock` for one kv head.

    Args:
        query_vectors: of the head, as `load_query_vectors` returns them.
        summaries: as `Summaries`.
        scores: as `Scores`, written.
    """
    BLOCK_PAGES: tl.constexpr = SHAPE.block_pages
    MEMBERS: tl.constexpr = SHAPE.members
    rows = _first_vectors(block.physical, head, LAYOUT)
    indices = block.index * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    values = _products(query_vectors.first, query_vectors.step, summaries, rows, LAYOUT, SHAPE)
    if LAYOUT.summary.vectors == 2:
        values += _products(query_vectors.last, query_vectors.step, summaries, rows + 1, LAYOUT, SHAPE)
    there = (indices < scores.row_length)[None, :]
    if LAYOUT.summary.is_bounds:
        values = tl.sum(values, 0)[None, :]
        target = head.to(tl.int64) * scores.row_length + indices[None, :]
        tl.store(scores.score_ptr + target, tl.where(block.visible, values, float("-inf")), there)
    else:
        values = tl.sum(tl.reshape(values, [4, MEMBERS, BLOCK_PAGES]), 0)
        row = tl.arange(0, MEMBERS)
        in_group = row < SHAPE.group
        target = (head * SHAPE.group + row[:, None]).to(tl.int64) * scores.row_length + indices[None, :]
        shown = tl.where(block.visible, values, float("-inf"))
        tl.store(scores.score_ptr + target, shown, in_group[:, None] & there)
        if SHAPE.sums_up:
            highest, total = sum_up_logits(values, block.visible)
            block_index = (head * SHAPE.group + row) * scores.blocks + block.index
            tl.store(scores.highest_ptr + block_index, highest, in_group)
            tl.store(scores.total_ptr + block_index, total, in_group)


@triton.jit
def _prefetch(addresses):
    """Prefetch the lines at these addresses into the L2 cache."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [addresses.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _prefetch_block(head, physical, summaries, LAYOUT: tl.constexpr):
    """Prefetch the summaries of a block, so that the memory is busy while the query vectors are made."""
    ELEMENTS: tl.constexpr = LAYOUT.summary.vectors * LAYOUT.head_dim
    LINE_ELEMENTS: tl.constexpr = LINE_BYTES * 8 // summaries.vector_ptr.dtype.element_ty.primitive_bitwidth
    LINES: tl.constexpr = triton.next_power_of_2(triton.cdiv(ELEMENTS, LINE_ELEMENTS))
    # Lines beyond a summary are replaced by that of its last element.
    lines = tl.minimum(tl.arange(0, LINES) * LINE_ELEMENTS, ELEMENTS - 1)
    rows = _first_vectors(physical, head, LAYOUT)
    _prefetch((summaries.vector_ptr + lines)[None, :] + rows.to(tl.int64)[:, None] * LAYOUT.head_dim)
    if LAYOUT.has_int8_summaries:
        # The scales of a summary's vectors lie side by side.
        _prefetch(summaries.scale_ptr + rows)


@triton.jit
def _page_scores_kernel(
    query_ptr,
    summary_ptr,
    summary_scale_ptr,
    page_table_ptr,
    length_ptr,
    score_ptr,
    highest_ptr,
    total_ptr,
    count_ptr,
    scale,
    logical_pages,
    LAYOUT: tl.constexpr,
    SHAPE: tl.constexpr,
    COUNTS: tl.constexpr,
    PREFETCH: tl.constexpr,
    EARLY: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program scores its part of the blocks for one kv head; scores beyond the sequence are -inf."""
    BLOCK_PAGES: tl.constexpr = SHAPE.block_pages
    wait_for_previous_kernel(DEPENDENT and not EARLY)
    head = tl.program_id(0)
    total_pages = tl.minimum(tl.cdiv(tl.load(length_ptr), LAYOUT.page_size), logical_pages)
    blocks = tl.cdiv(logical_pages, BLOCK_PAGES)
    summaries = Summaries(summary_ptr, summary_scale_ptr, page_table_ptr)
    scores = Scores(score_ptr, highest_ptr, total_ptr, logical_pages, blocks)
    if PREFETCH:
        pages = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        physical = _load_physical(pages, page_table_ptr, total_pages, logical_pages)
        _prefetch_block(head, physical, summaries, LAYOUT)
    wait_for_previous_kernel(DEPENDENT and EARLY)
    if COUNTS:
        if tl.program_id(1) == 0:
            tl.store(count_ptr + head * COUNTS + tl.arange(0, COUNTS), 0)
    query_vectors = load_query_vectors(head, query_ptr, scale, summary_ptr.dtype.element_ty, LAYOUT, SHAPE)
    for index in tl.range(tl.program_id(1), blocks, tl.num_programs(1), num_stages=SHAPE.stages):
        pages = index * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        physical = _load_physical(pages, page_table_ptr, total_pages, logical_pages)
        block = ScoredBlock(index, physical, (pages < total_pages)[None, :])
        score_block(head, block, query_vectors, summaries, scores, LAYOUT, SHAPE)


def page_scores(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require_scoring(query, cache, sequence)
    return score(query, cache, sequence, scale, sums_up=False).scores


def require_scoring(query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> None:
    """Raise ValueError unless query, cache and sequence are what scoring takes."""
    require_cache(cache)
    require_sequence(sequence)
    require_query(query, cache.layout)
    require_contiguous(query, "query")


def score(
    query: torch.Tensor,
    cache: LayerCache,
    sequence: SequenceView,
    scale: float,
    sums_up: bool,
    early: bool = False,
) -> ScoredPages:
    """The scores and, if it `sums_up`, the sums of each block of logits; arguments have been checked.

    Args:
        early: the kernel launched before this one has written none of `sequence`, which may be read while it runs
            (`dependent_launch`).
    """
    layout, device = cache.layout, query.device
    block_pages = choose_block_pages(layout, sums_up, sequence.logical_pages, device)
    blocks = triton.cdiv(sequence.logical_pages, block_pages)
    programs = multiprocessors(device) * PROGRAMS_PER_MULTIPROCESSOR[layout.summary.vectors]
    parts = min(blocks, max(1, programs // layout.kv_heads))
    shape = plan_scoring(query, layout, block_pages, triton.cdiv(blocks, parts), sums_up)
    scored = empty_scores(query, layout, sequence.logical_pages, blocks, sums_up)
    dependent = launches_dependently(device)
    _page_scores_kernel[(layout.kv_heads, parts)](
        query,
        *summary_pointers(cache),
        *sequence,
        *scored.pointers,
        scored.counts if sums_up else scored.scores,  # not written without sums
        scale,
        sequence.logical_pages,
        LAYOUT=layout,
        SHAPE=shape,
        COUNTS=BUCKETS if sums_up else 0,
        PREFETCH=not triton.knobs.runtime.interpret,
        EARLY=early,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return scored


def choose_block_pages(layout: CacheLayout, sums_up: bool, row_length: int, device: torch.device) -> int:
    """Pages of a block, for a row of so many scores."""
    if sums_up:
        return LOGIT_BLOCK_PAGES
    pages = triton.next_power_of_2(triton.cdiv(row_length * layout.kv_heads, multiprocessors(device)))
    return min(max(pages, LEAST_BLOCK_PAGES), BLOCK_PAGES["int8" if layout.has_int8_summaries else "floating"])


def empty_scores(
    query: torch.Tensor, layout: CacheLayout, row_length: int, blocks: int, sums_up: bool
) -> ScoredPages:
    """Uninitialised tensors for what `score_block` stores."""
    rows = query.shape[0] // layout.kv_heads if layout.summary.scores_are_logits else 1
    shape, options = (layout.kv_heads, rows), {"dtype": torch.float32, "device": query.device}
    scores = torch.empty((*shape, row_length), **options)
    if not sums_up:
        return ScoredPages(scores, None, None)
    counts = torch.empty((layout.kv_heads, BUCKETS), dtype=torch.int32, device=query.device)
    return ScoredPages(scores, *torch.empty((2, *shape, blocks), **options), counts)


def plan_scoring(
    query: torch.Tensor,
    layout: CacheLayout,
    block_pages: int,
    program_blocks: int,
    sums_up: bool,
) -> ScoreShape:
    """The constants of kernels whose programs score `program_blocks` blocks of pages each."""
    group = query.shape[0] // layout.kv_heads
    # An int8 product sums over at least 32 channels.
    block_dim = max(32, triton.next_power_of_2(layout.head_dim))
    block_bytes = layout.summary.vectors * block_pages * block_dim * layout.summary_dtype.itemsize
    return ScoreShape(
        group=group,
        # Four times as many make the 16 rows that tl.dot wants at least; with bounds one vector stands for all.
        members=4 if layout.summary.is_bounds else max(4, triton.next_power_of_2(group)),
        block_pages=block_pages,
        block_dim=block_dim,
        # A program that has no second block need not prepare for a third.
        stages=min(choose_stages(block_bytes, shared_memory_bytes(query.device)), program_blocks + 1),
        sums_up=sums_up,
    )


def choose_stages(block_bytes: int, shared_bytes: int) -> int:
    """Stages of the pipeline that loads blocks of `block_bytes`, with so much shared memory for a program."""
    return NUM_STAGES if block_bytes + OTHER_SHARED_BYTES <= shared_bytes else 1
