"""Score the pages, select the best of them and attend to these: Quest's attention of one token.

Among few pages, or those that superpages leave of many, every program that attends selects for itself, from keys in its
registers, and goes on with its share of the list, which spares a launch (`kernels/NOTES.md`). Else selection among many
pages is a launch, or several, of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require_pages, require_summaries
from kernels.gpu.choose_pages import choose_pages
from kernels.gpu.decode_attention import attend_share, plan_splits, share_pages, sparse_decode_attention
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.float8 import as_codes
from kernels.gpu.meetings import programs_meet
from kernels.gpu.narrow_pages import candidate_grid, count_ranked_candidates, narrow_and_score
from kernels.gpu.page_ranking import SHARE_PAGES, page_grid, plan_selection
from kernels.gpu.page_scores import score_and_sum_up
from kernels.gpu.select_few_pages import find_missed, select_few
from kernels.gpu.split_softmax import (
    NUM_WARPS,
    QUERY_ROWS,
    finish_share,
    load_query,
    require_query,
    unfinished_softmaxes,
)
from kernels.reference import SUMMARY_LOGITS, KvScales, check_budget, check_levels, narrows

# Up to here every program selects for itself.
FEW_PAGES = 2048


@triton.jit
def _select_and_attend_kernel(
    score_ptr, block_highest_ptr, block_total_ptr, superpage_id_ptr, query_ptr, key_page_ptr, value_page_ptr,
    key_scale_ptr, value_scale_ptr, page_table_ptr, context_ptr, page_id_ptr, page_count_ptr, missed_ptr,
    partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
    scale, logical_pages, entries, blocks, budget_pages, sink_pages, recent_pages,
    NARROWED: tl.constexpr, ROWS: tl.constexpr, SHARES: tl.constexpr, BLOCK_PAGES: tl.constexpr,
    BLOCKS: tl.constexpr, GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, BLOCK_BUDGET: tl.constexpr, SPLITS: tl.constexpr, NUM_STAGES: tl.constexpr,
    DEPENDENT: tl.constexpr, MEETS: tl.constexpr,
):  # fmt: skip
    """One program: one kv head, and its share of the pages that are read."""
    head, split = tl.program_id(0), tl.program_id(1)
    # The kernel before this one makes the scores: all else is there before it ends.
    context = tl.load(context_ptr)
    query = load_query(query_ptr, head, GROUP, HEAD_DIM, QUERY_ROWS, BLOCK_DIM)
    first_page_number = tl.load(page_table_ptr)
    total_pages, count, recent_from, ranked_pages, wanted = plan_selection(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    wait_for_previous_kernel(DEPENDENT)
    if NARROWED:
        pages = candidate_grid(superpage_id_ptr, head, BLOCK_PAGES)
        ranked_pages = count_ranked_candidates(ranked_pages, total_pages, BLOCK_PAGES)
    else:
        pages = page_grid(BLOCK_PAGES)
    places, keys, chosen, read = select_few(
        score_ptr, block_highest_ptr, block_total_ptr, head, pages, total_pages, count, recent_from, ranked_pages,
        wanted, entries, blocks, sink_pages, ROWS, SHARES, BLOCK_PAGES, BLOCKS,
    )  # fmt: skip
    # Only this program's part of the list: no other reads it, nor does this one read another's.
    page_id_ptr += head * budget_pages
    first, end = share_pages(split, budget_pages, BLOCK_TOKENS // PAGE_SIZE, SPLITS)
    tl.store(page_id_ptr + places, pages, (places >= first) & (places < end))
    entries = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + entries, -1, (entries >= tl.maximum(count, first)) & (entries < end))
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    highest, total, attended = attend_share(
        head, split, budget_pages, count, context, query, first_page_number,
        key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, page_id_ptr, scale,
        KV_HEADS, HEAD_DIM, PAGE_SIZE, True, FLOAT8, QUERY_ROWS, BLOCK_TOKENS, BLOCK_DIM, SPLITS, NUM_STAGES,
    )  # fmt: skip
    finish_share(
        head, split, highest, total, attended, partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
        GROUP, HEAD_DIM, FLOAT8, QUERY_ROWS, BLOCK_DIM, SPLITS, MEETS,
    )  # fmt: skip
    # Last, lest the others of the head wait for this one.
    if split == 0:
        tl.store(page_count_ptr + head, count)
        if SHARES:
            tl.store(missed_ptr + head, find_missed(keys, chosen, read))


def choose_and_attend(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    summary: str,
    scale: float,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_choose_and_attend`.

    `page_table` and `context_tokens` are read early: no output of the kernel launched before this one
    (`dependent_launch`).

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype, or for another summary.
    """
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table, kv_scales)
    group = require_query(query, key_pages, kv_scales)
    levels = check_levels(page_summaries, summary)
    shape = (key_pages.shape[0], kv_heads, None, head_dim)
    require_summaries(page_summaries, summary_scales, shape, FLOATING)
    narrowed = narrows(levels, len(page_table), budget_pages)
    if not narrowed and len(page_table) > FEW_PAGES:
        chosen = choose_pages(
            query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales,
            budget_pages, sink_pages, recent_pages,
        )  # fmt: skip
        attended = sparse_decode_attention(
            query, key_pages, value_pages, page_table, *chosen[:2], context_tokens, scale, kv_scales
        )
        return attended, *chosen
    query = query.contiguous()
    shares = SUMMARY_LOGITS[summary]
    check_budget(budget_pages, sink_pages, recent_pages)
    scoring = (query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales)
    superpage_ids = page_table
    if narrowed:
        superpage_ids, scores, block_highest, block_total = narrow_and_score(
            *scoring, budget_pages, sink_pages, recent_pages, early=True
        )
    else:
        scores, block_highest, block_total = score_and_sum_up(*scoring, shares, early=True)
    logical_pages, entries, device = len(page_table), scores.shape[2], query.device
    plan = plan_splits(True, budget_pages, query, key_pages)
    blocks = block_highest.shape[2] if shares else 1
    block_dim = max(16, triton.next_power_of_2(head_dim))
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=device)
    missed_share = torch.empty(kv_heads, dtype=torch.float32, device=device) if shares else None
    attended = torch.empty_like(query)
    dependent = launches_dependently(device)
    grid = (kv_heads, plan.splits)
    _select_and_attend_kernel[grid](
        scores,
        block_highest if shares else scores,
        block_total if shares else scores,
        superpage_ids,
        query,
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (context_tokens, context_tokens)),
        page_table,
        context_tokens,
        page_ids,
        page_counts,
        missed_share if shares else scores,
        *unfinished_softmaxes(kv_heads, plan.splits, group, head_dim, device),
        attended,
        scale,
        logical_pages,
        entries,
        blocks,
        budget_pages,
        sink_pages,
        recent_pages,
        NARROWED=narrowed,
        ROWS=scores.shape[1],
        SHARES=shares,
        BLOCK_PAGES=max(SHARE_PAGES, triton.next_power_of_2(entries)),
        BLOCKS=triton.next_power_of_2(blocks),
        GROUP=group,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        PAGE_SIZE=page_size,
        FLOAT8=kv_scales is not None,
        QUERY_ROWS=QUERY_ROWS,
        BLOCK_TOKENS=plan.block_tokens,
        BLOCK_DIM=block_dim,
        BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
        SPLITS=plan.splits,
        NUM_STAGES=plan.stages,
        DEPENDENT=dependent,
        MEETS=programs_meet(grid, device),
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return attended, page_ids, page_counts, missed_share
