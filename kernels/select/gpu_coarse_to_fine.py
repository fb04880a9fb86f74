"""Coarse-to-fine selection: of a long sequence's pages, only those of the best superpages are scored.

Superpages are scored as pages are (`kernels.score.gpu`). Then every program that scores pages selects the superpages
by itself, from keys in its registers, and goes on with its part of their pages, the *candidates*: a separate launch
for the selection would cost more. Candidates are in ascending order, so that selecting among them is the same as
selecting among few pages, except that their page indices have to be looked up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.contract import LayerCache, PageBudget, SequenceView
from kernels.gpu_tools.cache_pointers import Summaries, summary_pointers
from kernels.gpu_tools.checks import multiprocessors
from kernels.gpu_tools.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.score.gpu import ScoredBlock, choose_block_pages, empty_scores, plan_scoring, score, score_block
from kernels.score.gpu_query_vectors import load_query_vectors
from kernels.select.coarse_to_fine import SUPERPAGE_PAGES as SUPERPAGE
from kernels.select.coarse_to_fine import candidate_pages
from kernels.select.gpu_few import select_few
from kernels.select.gpu_ranking import (
    LOGIT_BLOCK_PAGES,
    RankingShape,
    ScoredPages,
    Scores,
    SelectionPlan,
    fill_up_list,
    page_grid,
    plan_selection,
)

SUPERPAGE_PAGES = tl.constexpr(SUPERPAGE)
# In place of a page that does not exist: later than any page.
NO_PAGE = tl.constexpr(1 << 30)
# Of selecting and scoring: so many keys fit their registers.
KEYS_PER_WARP, LEAST_WARPS, MOST_WARPS = 512, 4, 16
PROGRAMS_PER_MULTIPROCESSOR = 2


class Candidates(NamedTuple):
    """What `score_candidates` returns, for a selection.

    Args:
        superpage_ids: int32 [kv_heads, candidates / SUPERPAGE_PAGES], ascending, then -1.
        scored: the candidates, with -inf for pages beyond the sequence; the last block sum is that of all pages that
            are no candidates.
    """

    superpage_ids: torch.Tensor
    scored: ScoredPages


class CandidateShape(NamedTuple):
    """Constants of the kernel, beside those of its layout, scoring, and ranking of superpages.

    Args:
        candidates: how many there are.
        blocks: of block sums, one more than there are blocks of candidates.
        part_blocks: blocks of candidates that a program scores.
    """

    candidates: int
    blocks: int
    part_blocks: int


@triton.jit
def list_pages(superpage_id_ptr, head, plan, SHAPE: tl.constexpr):
    """The pages of a head that have scores, as `page_grid` arranges them, and the plan for a selection among them.

    Args:
        superpage_id_ptr: of `Candidates`; not read where all pages have scores.
        plan: a `SelectionPlan` among all pages.
        SHAPE: a `RankingShape`.

    Returns:
        pages, NO_PAGE where there are no more candidates; and a `SelectionPlan`.
    """
    indices = page_grid(SHAPE.block_pages)
    if SHAPE.coarse_to_fine:
        SUPERPAGES: tl.constexpr = SHAPE.block_pages // SUPERPAGE_PAGES
        superpages = tl.load(superpage_id_ptr + head * SUPERPAGES + indices // SUPERPAGE_PAGES)
        pages = tl.where(superpages >= 0, superpages * SUPERPAGE_PAGES + indices % SUPERPAGE_PAGES, NO_PAGE)
        # Pages that are no candidates come in whole superpages.
        left_out = tl.cdiv(plan.total_pages, SUPERPAGE_PAGES) - SUPERPAGES
        ranked_pages = plan.ranked_pages - tl.maximum(left_out, 0) * SUPERPAGE_PAGES
        return pages, SelectionPlan(
            plan.total_pages, plan.selected_pages, plan.sink_pages, plan.recent_from, ranked_pages, plan.wanted
        )
    else:
        return indices, plan


@triton.jit
def _sum_up_others(superpage_scores, scores, head, superpages, others, ROWS: tl.constexpr):
    """Store the block sum of the `others` among the superpages: each of their pages has its superpage's logit."""
    for row in tl.static_range(ROWS):
        row_of_head = head * ROWS + row
        addresses = superpage_scores.score_ptr + row_of_head.to(tl.int64) * superpage_scores.row_length + superpages
        logits = tl.load(addresses, others, float("-inf"))
        highest = tl.max(logits)
        # If all pages are candidates there is no highest logit.
        above = logits - tl.where(highest == float("-inf"), 0.0, highest)
        index = row_of_head * scores.blocks + scores.blocks - 1
        tl.store(scores.highest_ptr + index, highest)
        tl.store(scores.total_ptr + index, tl.sum(tl.exp(above)) * SUPERPAGE_PAGES)


@triton.jit
def _score_candidates_kernel(
    superpage_score_ptr,
    superpage_highest_ptr,
    superpage_total_ptr,
    query_ptr,
    summary_ptr,
    summary_scale_ptr,
    page_table_ptr,
    length_ptr,
    superpage_id_ptr,
    score_ptr,
    highest_ptr,
    total_ptr,
    scale,
    logical_pages,
    sink_superpages,
    recent_superpages,
    LAYOUT: tl.constexpr,
    SHAPE: tl.constexpr,
    RANKING: tl.constexpr,
    CANDIDATES: tl.constexpr,
    LOGIT_BLOCK_PAGES: tl.constexpr,
    DEPENDENT: tl.constexpr,
    LETS_NEXT_START: tl.constexpr,
):
    """One program selects the superpages of one kv head, and scores `part_blocks` blocks of their pages."""
    SUPERPAGES: tl.constexpr = CANDIDATES.candidates // SUPERPAGE_PAGES
    BLOCK_PAGES: tl.constexpr = SHAPE.block_pages
    PART_BLOCKS: tl.constexpr = CANDIDATES.part_blocks
    ROWS: tl.constexpr = RANKING.rows
    head, part = tl.program_id(0), tl.program_id(1)
    # The kernel before this one computes the superpages' scores; everything else is there before it ends.
    total_pages = tl.minimum(tl.cdiv(tl.load(length_ptr), LAYOUT.page_size), logical_pages)
    row_length = tl.cdiv(logical_pages, SUPERPAGE_PAGES)
    budget = PageBudget(SUPERPAGES, sink_superpages, recent_superpages)
    plan = plan_selection(length_ptr, row_length, budget, RANKING.page_size)
    query_vectors = load_query_vectors(head, query_ptr, scale, summary_ptr.dtype.element_ty, LAYOUT, SHAPE)
    wait_for_previous_kernel(DEPENDENT)
    let_next_kernel_start(DEPENDENT and LETS_NEXT_START)
    superpage_scores = Scores(
        superpage_score_ptr,
        superpage_highest_ptr,
        superpage_total_ptr,
        row_length,
        tl.cdiv(row_length, LOGIT_BLOCK_PAGES),
    )
    summaries = Summaries(summary_ptr, summary_scale_ptr, page_table_ptr)
    scores = Scores(score_ptr, highest_ptr, total_ptr, CANDIDATES.candidates, CANDIDATES.blocks)
    superpages = page_grid(RANKING.block_pages)
    selection = select_few(superpage_scores, head, superpages, plan, RANKING)
    if RANKING.logits:
        if part == 0:
            others = (selection.list_indices < 0) & (superpages < plan.total_pages)
            _sum_up_others(superpage_scores, scores, head, superpages, others, ROWS)
    # Only this program's part of the list: in this launch each program reads only what it wrote itself.
    superpage_id_ptr += head * SUPERPAGES
    first = part * (PART_BLOCKS * BLOCK_PAGES // SUPERPAGE_PAGES)
    end = first + PART_BLOCKS * BLOCK_PAGES // SUPERPAGE_PAGES
    list_indices = selection.list_indices
    tl.store(superpage_id_ptr + list_indices, superpages, (list_indices >= first) & (list_indices < end))
    fill_up_list(superpage_id_ptr, tl.maximum(plan.selected_pages, first), end, SUPERPAGES)
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    for index in tl.range(part * PART_BLOCKS, (part + 1) * PART_BLOCKS, num_stages=SHAPE.stages):
        candidates = index * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        superpage = tl.load(superpage_id_ptr + candidates // SUPERPAGE_PAGES, cache_modifier=".cg")
        pages = superpage * SUPERPAGE_PAGES + candidates % SUPERPAGE_PAGES
        visible = (superpage >= 0) & (pages < total_pages)
        physical = tl.load(page_table_ptr + pages, visible, 0)
        block = ScoredBlock(index, physical, visible[None, :])
        score_block(head, block, query_vectors, summaries, scores, LAYOUT, SHAPE)


def score_candidates(
    query: torch.Tensor,
    cache: LayerCache,
    sequence: SequenceView,
    budget: PageBudget,
    scale: float,
    early: bool,
) -> Candidates:
    """Score the superpages and the pages of the best; arguments as for `kernels.score.gpu.score`.

    The pages that are always read are among the candidates.
    """
    layout, device = cache.layout, query.device
    kv_heads, logits = layout.kv_heads, layout.summary.scores_are_logits
    superpages = score(query, cache, sequence, scale, sums_up=logits, early=early, of_superpages=True)
    _, rows, superpage_count = superpages.scores.shape
    candidates = candidate_pages(budget.pages)
    block_pages = choose_block_pages(layout, logits, candidates, device)
    blocks = candidates // block_pages
    programs = max(1, multiprocessors(device) * PROGRAMS_PER_MULTIPROCESSOR // kv_heads)
    parts = min(blocks, triton.next_power_of_2(programs + 1) // 2)
    # A last block for all other pages.
    scored = empty_scores(query, layout, candidates, blocks + 1, logits)
    superpage_ids = torch.empty((kv_heads, candidates // SUPERPAGE), dtype=torch.int32, device=device)
    padded = max(LOGIT_BLOCK_PAGES, triton.next_power_of_2(superpage_count))
    superpage_blocks = triton.next_power_of_2(triton.cdiv(superpage_count, LOGIT_BLOCK_PAGES))
    dependent = launches_dependently(device)
    _score_candidates_kernel[(kv_heads, parts)](
        *superpages.pointers,
        query,
        *summary_pointers(cache),
        *sequence,
        superpage_ids,
        *scored.pointers,
        scale,
        sequence.logical_pages,
        triton.cdiv(budget.sink_pages, SUPERPAGE),
        triton.cdiv(budget.recent_pages, SUPERPAGE),
        LAYOUT=layout,
        SHAPE=plan_scoring(query, layout, block_pages, blocks // parts, logits),
        RANKING=RankingShape(rows, logits, layout.page_size * SUPERPAGE, padded, superpage_blocks),
        CANDIDATES=CandidateShape(candidates, blocks + 1, blocks // parts),
        LOGIT_BLOCK_PAGES=LOGIT_BLOCK_PAGES,
        DEPENDENT=dependent,
        # Only if each program has a multiprocessor: else programs that wait would take room from those that work.
        LETS_NEXT_START=kv_heads * parts <= multiprocessors(device),
        num_warps=min(max(padded // KEYS_PER_WARP, LEAST_WARPS), MOST_WARPS),
        launch_pdl=dependent,
    )
    return Candidates(superpage_ids, scored)
