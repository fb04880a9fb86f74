"""Quest's attention of one token in one launch: score, select, attend, combine, each kv head as soon as it can.

Three kernels in a row leave the memory idle while pages are selected and softmaxes combined, and at every launch. Here
the programs, no more than fit the multiprocessors at once, take two roles. *Streamers* read: first the summaries of all
kv heads, one block of pages after the other, then keys and values. *Selectors*, one a kv head where that leaves enough
streamers, wait until the blocks of their head are scored, select its pages, wait until these are attended, and combine.
So the pages of one head are selected while the summaries of another are read. Counters on the device tell who has to
wait no longer; the selector, which touches its head last, sets them back to zero.

Waiting is safe because all programs run at the same time, and none waits for a later part of another program's work
than it has done itself. A program that has both roles (there is only one where kernels are interpreted) does the parts
in order, and never waits.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, multiprocessors, require, require_contiguous, require_pages, require_summaries
from kernels.gpu.decode_attention import (
    COMBINED_NUMBERS,
    QUERY_ROWS,
    attend_share,
    combine_splits,
    sparse_decode_attention,
)
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.page_scores import BLOCK_PAGES, choose_pages, score_block
from kernels.gpu.select_pages import select_for_head
from kernels.reference import SUMMARY_LOGITS, check_selection, check_summary

# What is sure to fit a multiprocessor together: 128 threads with up to 255 registers each take half of them.
PROGRAMS_PER_MULTIPROCESSOR = 2
NUM_WARPS = 4
# At least this many times as many streamers as selectors.
STREAMERS_PER_SELECTOR = 3
# Scores of one kv head that a selector's registers hold; with more pages the parts are launched one by one.
MAX_PAGES = 16384
BLOCK_TOKENS = 64
SCORE_STAGES, ATTEND_STAGES = 3, 3
# Counters of a kv head: blocks scored, selections made, shares attended.
COUNTERS = tl.constexpr(3)


@triton.jit
def _wait_until(counter_ptr, wanted):
    """Return once the counter has reached `wanted`, and all that was written before it was counted can be read."""
    while tl.load(counter_ptr, volatile=True) < wanted:
        pass
    tl.atomic_add(counter_ptr, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()


@triton.jit
def _count(counter_ptr):
    """Tell who waits that what this program's threads have written is there."""
    tl.debug_barrier()
    tl.atomic_add(counter_ptr, 1, sem="release", scope="gpu")


@triton.jit
def _quest_attention_kernel(
    query_ptr, key_page_ptr, value_page_ptr, summary_ptr, summary_scale_ptr, page_table_ptr, context_ptr,
    score_ptr, block_highest_ptr, block_total_ptr, page_id_ptr, page_count_ptr, missed_ptr,
    partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
    scale, logical_pages, budget_pages, sink_pages, recent_pages, kv_heads, head_dim, selectors, splits,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, SHARES: tl.constexpr, SCORE_ROWS: tl.constexpr,
    GROUP: tl.constexpr, MEMBERS: tl.constexpr, GROUP_ROWS: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SCORED_PAGES: tl.constexpr, SELECTED_PAGES: tl.constexpr, BLOCKS: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, COMBINED_SPLITS: tl.constexpr,
    SCORE_STAGES: tl.constexpr, ATTEND_STAGES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """The first `selectors` programs select and combine, the others stream; a program alone does both."""
    wait_for_previous_kernel(DEPENDENT)
    program, programs = tl.program_id(0), tl.num_programs(0)
    streamer = tl.maximum(program - selectors, 0)
    streamers = tl.maximum(programs - selectors, 1)
    selects = program < selectors
    streams = (program >= selectors) | (programs == 1)
    context = tl.load(context_ptr)
    total_pages = tl.minimum(tl.cdiv(context, PAGE_SIZE), logical_pages)
    # Blocks as the buffers lie, and those that hold pages.
    blocks = tl.cdiv(logical_pages, SCORED_PAGES)
    scored_blocks = tl.cdiv(total_pages, SCORED_PAGES)

    if streams:
        for task in tl.range(streamer, kv_heads * scored_blocks, streamers, num_stages=SCORE_STAGES):
            head = task // scored_blocks
            score_block(
                head, task % scored_blocks, query_ptr, summary_ptr, summary_scale_ptr, page_table_ptr, score_ptr,
                block_highest_ptr, block_total_ptr, scale, total_pages, logical_pages, blocks, kv_heads, head_dim,
                SUMMARY, VECTORS, INT8, SHARES, GROUP, MEMBERS, SCORED_PAGES, BLOCK_DIM,
            )  # fmt: skip
            _count(counter_ptr + head * COUNTERS)
    if selects:
        for head in range(program, kv_heads, selectors):
            _wait_until(counter_ptr + head * COUNTERS, scored_blocks)
            select_for_head(
                head, score_ptr, block_highest_ptr, block_total_ptr, page_id_ptr, page_count_ptr, missed_ptr, score_ptr,
                total_pages, logical_pages, blocks, budget_pages, sink_pages, recent_pages,
                SCORE_ROWS, SHARES, True, SELECTED_PAGES, BLOCKS, SCORED_PAGES, BLOCK_BUDGET,
            )  # fmt: skip
            _count(counter_ptr + head * COUNTERS + 1)
    if streams:
        for task in range(streamer, kv_heads * splits, streamers):
            head = task // splits
            _wait_until(counter_ptr + head * COUNTERS + 1, 1)
            attend_share(
                head, task % splits, splits, tl.minimum(budget_pages, total_pages), context, query_ptr, key_page_ptr,
                value_page_ptr, page_table_ptr, page_id_ptr + head * budget_pages, partial_ptr, highest_ptr, total_ptr,
                scale, kv_heads, head_dim,
                GROUP, PAGE_SIZE, True, QUERY_ROWS, BLOCK_TOKENS, BLOCK_DIM, ATTEND_STAGES,
            )  # fmt: skip
            _count(counter_ptr + head * COUNTERS + 2)
    if selects:
        for head in range(program, kv_heads, selectors):
            _wait_until(counter_ptr + head * COUNTERS + 2, splits)
            combine_splits(
                head, splits, partial_ptr, highest_ptr, total_ptr, attended_ptr, head_dim,
                GROUP, GROUP_ROWS, COMBINED_SPLITS, BLOCK_DIM,
            )  # fmt: skip
            for counter in tl.static_range(COUNTERS):
                tl.store(counter_ptr + head * COUNTERS + counter, 0)


def quest_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_quest_attention`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype, or for another summary.
    """
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table)
    logical_pages = len(page_table)
    if logical_pages > MAX_PAGES:
        chosen = choose_pages(
            query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales,
            budget_pages, sink_pages, recent_pages,
        )  # fmt: skip
        attended = sparse_decode_attention(
            query, key_pages, value_pages, page_table, *chosen[:2], context_tokens, scale
        )
        return attended, *chosen
    vectors, shares = check_summary(summary), SUMMARY_LOGITS[summary]
    require_summaries(page_summaries, summary_scales, (len(key_pages), kv_heads, vectors, head_dim), FLOATING)
    require(query, "query", (None, head_dim), (key_pages.dtype,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(query, "query")
    group, rest = divmod(query.shape[0], kv_heads)
    if rest or group > QUERY_ROWS:
        raise ValueError(
            f"{query.shape[0]} query heads do not share {kv_heads} kv heads in groups of up to {QUERY_ROWS}"
        )
    device, floats = query.device, {"dtype": torch.float32, "device": query.device}
    score_rows = group if shares else 1
    scored_pages = BLOCK_PAGES[summary]
    blocks = triton.cdiv(logical_pages, scored_pages)
    programs = 1 if triton.knobs.runtime.interpret else multiprocessors(device) * PROGRAMS_PER_MULTIPROCESSOR
    selectors = max(1, min(kv_heads, programs // (1 + STREAMERS_PER_SELECTOR)))
    splits = max(1, (programs - selectors) // kv_heads)
    splits = min(splits, triton.cdiv(budget_pages * page_size, BLOCK_TOKENS))
    scores = torch.empty((kv_heads, score_rows, logical_pages), **floats)
    check_selection(scores, budget_pages, sink_pages, recent_pages, shares)
    block_highest, block_total = torch.empty((2, kv_heads, score_rows, blocks), **floats)
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=device)
    missed_share = torch.empty(kv_heads, **floats) if shares else None
    partial = torch.empty((kv_heads, splits, group, head_dim), **floats)
    highest, total = torch.empty((2, kv_heads, splits, group), **floats)
    attended = torch.empty_like(query)
    group_rows = triton.next_power_of_2(group)
    # An int8 product sums over at least 32 channels.
    block_dim = max(32, triton.next_power_of_2(head_dim))
    dependent = launches_dependently(device)
    _quest_attention_kernel[(programs,)](
        query,
        key_pages,
        value_pages,
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        context_tokens,
        scores,
        block_highest,
        block_total,
        page_ids,
        page_counts,
        missed_share if shares else scores,
        partial,
        highest,
        total,
        _counters(kv_heads, device),
        attended,
        scale,
        logical_pages,
        budget_pages,
        sink_pages,
        recent_pages,
        kv_heads,
        head_dim,
        selectors,
        splits,
        SUMMARY=summary,
        VECTORS=vectors,
        INT8=summary_scales is not None,
        SHARES=shares,
        SCORE_ROWS=score_rows,
        GROUP=group,
        # Four times as many make the 16 rows that tl.dot wants at least.
        MEMBERS=max(4, group_rows),
        GROUP_ROWS=group_rows,
        PAGE_SIZE=page_size,
        BLOCK_DIM=block_dim,
        SCORED_PAGES=scored_pages,
        SELECTED_PAGES=max(scored_pages, triton.next_power_of_2(logical_pages)),
        BLOCKS=triton.next_power_of_2(blocks),
        BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
        QUERY_ROWS=QUERY_ROWS,
        BLOCK_TOKENS=max(BLOCK_TOKENS, page_size),
        COMBINED_SPLITS=min(COMBINED_NUMBERS // (group_rows * block_dim), triton.next_power_of_2(splits)),
        SCORE_STAGES=SCORE_STAGES,
        ATTEND_STAGES=ATTEND_STAGES,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return attended, page_ids, page_counts, missed_share


@lru_cache
def _counters(kv_heads: int, device: torch.device) -> torch.Tensor:
    """Zeros that the programs of a launch count up and put back; launches of one stream share them."""
    return torch.zeros((kv_heads, int(COUNTERS)), dtype=torch.int32, device=device)
