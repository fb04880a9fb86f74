"""Narrow the pages of a long context down to those of the best superpages, and score these.

Superpages are scored as pages are (`kernels.gpu.page_scores`). Then every program that scores pages selects the
superpages by itself, from keys in its registers, and goes on with its share of their pages, the *candidates*: a launch
of its own would cost more. Candidates stand in the order of their numbers, so that selecting among them is selecting
among few pages, of which only the numbers must be looked up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import multiprocessors
from kernels.gpu.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu.page_ranking import SHARE_PAGES, page_grid, plan_selection
from kernels.gpu.page_scores import (
    block_pages_of,
    empty_scores,
    load_functions,
    score_and_sum_up,
    score_block,
    score_rows,
    summary_constants,
)
from kernels.gpu.select_few_pages import select_few
from kernels.reference import SUMMARY_LOGITS, candidate_pages
from kernels.reference import SUPERPAGE_PAGES as SUPERPAGE

SUPERPAGE_PAGES = tl.constexpr(SUPERPAGE)
# Stands for a page that is not there: later than any.
NO_PAGE = tl.constexpr(1 << 30)
# Of selecting and scoring: so many keys fit their registers.
KEYS_PER_WARP, LEAST_WARPS, MOST_WARPS = 512, 4, 16
PROGRAMS_PER_MULTIPROCESSOR = 2


class Candidates(NamedTuple):
    """What `narrow_and_score` leaves for a selection.

    Args:
        superpage_ids: int32 [kv_heads, candidates / SUPERPAGE_PAGES], ascending, then -1.
        scores: float32 [kv_heads, rows, candidates], -inf for pages beyond the context.
        highest, total: float32 [kv_heads, rows, blocks], block sums of logits; the last is that of all pages that are
            no candidates. None for scores that are no logits.
    """

    superpage_ids: torch.Tensor
    scores: torch.Tensor
    highest: torch.Tensor | None
    total: torch.Tensor | None


@triton.jit
def candidate_grid(superpage_id_ptr, head, CANDIDATES: tl.constexpr):
    """The numbers of all candidates of a head, as `page_grid` arranges them; NO_PAGE where there are no more."""
    SUPERPAGES: tl.constexpr = CANDIDATES // SUPERPAGE_PAGES
    places = page_grid(CANDIDATES)
    superpages = tl.load(superpage_id_ptr + head * SUPERPAGES + places // SUPERPAGE_PAGES)
    return tl.where(superpages >= 0, superpages * SUPERPAGE_PAGES + places % SUPERPAGE_PAGES, NO_PAGE)


@triton.jit
def count_ranked_candidates(ranked_pages, total_pages, CANDIDATES: tl.constexpr):
    """How many of the `ranked_pages` of a context are candidates: those left out lie in whole superpages."""
    left_out = tl.cdiv(total_pages, SUPERPAGE_PAGES) - CANDIDATES // SUPERPAGE_PAGES
    return ranked_pages - tl.maximum(left_out, 0) * SUPERPAGE_PAGES


@triton.jit
def _sum_up_others(
    score_ptr, highest_ptr, total_ptr, head, superpages, others, entries, blocks, ROWS: tl.constexpr
):
    """Leave the block sum of the `others` among the superpages, each of whose pages has its superpage's logit."""
    for row in tl.static_range(ROWS):
        row_of_head = head * ROWS + row
        logits = tl.load(score_ptr + row_of_head.to(tl.int64) * entries + superpages, others, float("-inf"))
        highest = tl.max(logits)
        # Where all are candidates there is no logit to be above.
        above = logits - tl.where(highest == float("-inf"), 0.0, highest)
        entry = row_of_head * blocks + blocks - 1
        tl.store(highest_ptr + entry, highest)
        tl.store(total_ptr + entry, tl.sum(tl.exp(above)) * SUPERPAGE_PAGES)


@triton.jit
def _narrow_and_score_kernel(
    superpage_score_ptr, superpage_highest_ptr, superpage_total_ptr, query_ptr, summary_ptr, summary_scale_ptr,
    page_table_ptr, context_ptr, superpage_id_ptr, score_ptr, highest_ptr, total_ptr,
    scale, logical_pages, sink_superpages, recent_superpages,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, LEVELS: tl.constexpr, INT8: tl.constexpr, SHARES: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, MEMBERS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr, SUPERPAGES: tl.constexpr, SUPERPAGE_BLOCKS: tl.constexpr, SHARE_PAGES: tl.constexpr,
    CANDIDATES: tl.constexpr, PART_BLOCKS: tl.constexpr, BLOCKS: tl.constexpr, BLOCK_PAGES: tl.constexpr,
    BLOCK_DIM: tl.constexpr, NUM_STAGES: tl.constexpr, DEPENDENT: tl.constexpr, LETS_NEXT_START: tl.constexpr,
):  # fmt: skip
    """One program selects the superpages of one kv head, and scores PART_BLOCKS blocks of their pages."""
    CANDIDATE_SUPERPAGES: tl.constexpr = CANDIDATES // SUPERPAGE_PAGES
    head, part = tl.program_id(0), tl.program_id(1)
    # The kernel before this one makes the superpages' scores: all else is there before it ends.
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    total, count, recent_from, ranked, wanted = plan_selection(
        context_ptr, tl.cdiv(logical_pages, SUPERPAGE_PAGES), CANDIDATE_SUPERPAGES, sink_superpages,
        recent_superpages, PAGE_SIZE * SUPERPAGE_PAGES,
    )  # fmt: skip
    parts, last_parts, worth = load_functions(
        head, query_ptr, scale, SUMMARY, VECTORS, GROUP, MEMBERS, HEAD_DIM, BLOCK_DIM, summary_ptr.dtype.element_ty
    )
    wait_for_previous_kernel(DEPENDENT)
    let_next_kernel_start(DEPENDENT and LETS_NEXT_START)
    entries = tl.cdiv(logical_pages, SUPERPAGE_PAGES)
    superpages = page_grid(SUPERPAGES)
    places, _, _, _ = select_few(
        superpage_score_ptr, superpage_highest_ptr, superpage_total_ptr, head, superpages, total, count, recent_from,
        ranked, wanted, entries, tl.cdiv(entries, SHARE_PAGES), sink_superpages,
        ROWS, SHARES, SUPERPAGES, SUPERPAGE_BLOCKS,
    )  # fmt: skip
    if SHARES:
        if part == 0:
            _sum_up_others(
                superpage_score_ptr, highest_ptr, total_ptr, head, superpages, (places < 0) & (superpages < total),
                entries, BLOCKS, ROWS,
            )  # fmt: skip
    # Only this program's part of the list: no other reads it in this launch, nor does this one read another's.
    superpage_id_ptr += head * CANDIDATE_SUPERPAGES
    first = part * (PART_BLOCKS * BLOCK_PAGES // SUPERPAGE_PAGES)
    end = first + PART_BLOCKS * BLOCK_PAGES // SUPERPAGE_PAGES
    tl.store(superpage_id_ptr + places, superpages, (places >= first) & (places < end))
    listed = tl.arange(0, CANDIDATE_SUPERPAGES)
    tl.store(superpage_id_ptr + listed, -1, (listed >= tl.maximum(count, first)) & (listed < end))
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    for block in tl.range(part * PART_BLOCKS, (part + 1) * PART_BLOCKS, num_stages=NUM_STAGES):
        candidates = block * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        superpage = tl.load(superpage_id_ptr + candidates // SUPERPAGE_PAGES, cache_modifier=".cg")
        pages = superpage * SUPERPAGE_PAGES + candidates % SUPERPAGE_PAGES
        visible = (superpage >= 0) & (pages < total_pages)
        physical = tl.load(page_table_ptr + pages, visible, 0)
        score_block(
            head, block, physical, visible[None, :], parts, last_parts, worth, summary_ptr,
            summary_scale_ptr, score_ptr, highest_ptr, total_ptr, CANDIDATES, BLOCKS,
            SUMMARY, VECTORS, INT8, SHARES, GROUP, MEMBERS, KV_HEADS, HEAD_DIM, LEVELS, 0, BLOCK_PAGES, BLOCK_DIM,
        )  # fmt: skip


def narrow_and_score(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    early: bool,
) -> Candidates:
    """Score the superpages and the pages of the best; arguments as for `kernels.gpu.page_scores.score_and_sum_up`.

    The pages that are always read are among the candidates.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for another summary.
    """
    shares = SUMMARY_LOGITS[summary]
    superpage_scores, superpage_highest, superpage_total = score_and_sum_up(
        query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales, shares,
        early, of_superpages=True,
    )  # fmt: skip
    kv_heads, rows, superpages = superpage_scores.shape
    device, dependent = query.device, launches_dependently(query.device)
    candidates = candidate_pages(budget_pages)
    block_pages = block_pages_of(summary_scales is not None, shares, candidates, kv_heads, device)
    blocks = candidates // block_pages
    programs = max(1, multiprocessors(device) * PROGRAMS_PER_MULTIPROCESSOR // kv_heads)
    parts = min(blocks, triton.next_power_of_2(programs + 1) // 2)
    # A last block for all other pages.
    scores, highest, total = empty_scores(
        kv_heads, score_rows(summary, query.shape[0] // kv_heads), candidates, blocks + 1, shares, device
    )
    superpage_ids = torch.empty((kv_heads, candidates // SUPERPAGE), dtype=torch.int32, device=device)
    padded = max(SHARE_PAGES, triton.next_power_of_2(superpages))
    _narrow_and_score_kernel[(kv_heads, parts)](
        superpage_scores,
        superpage_highest if shares else superpage_scores,
        superpage_total if shares else superpage_scores,
        query,
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        context_tokens,
        superpage_ids,
        scores,
        highest if shares else scores,
        total if shares else scores,
        scale,
        len(page_table),
        triton.cdiv(sink_pages, SUPERPAGE),
        triton.cdiv(recent_pages, SUPERPAGE),
        SHARES=shares,
        ROWS=rows,
        PAGE_SIZE=page_size,
        SUPERPAGES=padded,
        SUPERPAGE_BLOCKS=triton.next_power_of_2(triton.cdiv(superpages, SHARE_PAGES)),
        SHARE_PAGES=SHARE_PAGES,
        CANDIDATES=candidates,
        PART_BLOCKS=blocks // parts,
        BLOCKS=blocks + 1,
        BLOCK_PAGES=block_pages,
        DEPENDENT=dependent,
        # Places are free where each program has a multiprocessor; elsewhere those that only wait would take some.
        LETS_NEXT_START=kv_heads * parts <= multiprocessors(device),
        num_warps=min(max(padded // KEYS_PER_WARP, LEAST_WARPS), MOST_WARPS),
        launch_pdl=dependent,
        **summary_constants(query, page_summaries, summary, block_pages, blocks // parts),
    )
    return Candidates(superpage_ids, scores, highest, total)
