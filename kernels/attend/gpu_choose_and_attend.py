"""Score the pages, select the best of them and attend to these: Quest's attention of one token.

Among few pages every program that attends selects for itself, from keys in its registers, and goes on with its split of
the list, which saves a launch (`docs/kernels.md`). Selection among many is done by one or several launches of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.attend.gpu import PageList, attend, attend_split, plan_attention, require_attention, split_pages
from kernels.attend.gpu_split_softmax import NUM_WARPS, Splits, empty_splits, finish_split, load_query
from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, page_pointers
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.score.gpu import score
from kernels.select.gpu import empty_selection
from kernels.select.gpu_choose_pages import score_and_select
from kernels.select.gpu_few import find_missed_mass, select_few
from kernels.select.gpu_ranking import (
    LOGIT_BLOCK_PAGES,
    RankingShape,
    Scores,
    fill_up_list,
    page_grid,
    plan_selection,
)

# Up to here every program selects for itself.
FEW_PAGES = 2048


@triton.jit
def _select_and_attend_kernel(
    score_ptr,
    block_highest_ptr,
    block_total_ptr,
    query_ptr,
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    length_ptr,
    page_id_ptr,
    page_count_ptr,
    missed_mass_ptr,
    partial_ptr,
    highest_ptr,
    total_ptr,
    counter_ptr,
    attended_ptr,
    scale,
    logical_pages,
    blocks,
    budget_pages,
    sink_pages,
    recent_pages,
    LAYOUT: tl.constexpr,
    RANKING: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program: one kv head, and its split of the pages that are read."""
    scores = Scores(score_ptr, block_highest_ptr, block_total_ptr, logical_pages, blocks)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    splits = Splits(partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr)
    head, split = tl.program_id(0), tl.program_id(1)
    # The kernel before this one computes the scores; everything else is there before it ends.
    length = tl.load(length_ptr)
    query = load_query(query_ptr, head, LAYOUT, SHAPE)
    first_page = tl.load(page_table_ptr)
    plan = plan_selection(length_ptr, logical_pages, budget, LAYOUT.page_size)
    wait_for_previous_kernel(DEPENDENT)
    page_ids = page_grid(RANKING.block_pages)
    selection = select_few(scores, head, page_ids, plan, RANKING)
    # Only this program's split of the list: each program reads only what it wrote itself.
    page_id_ptr += head * budget_pages
    first, end = split_pages(split, budget_pages, SHAPE.block_tokens // LAYOUT.page_size, SHAPE.splits)
    list_indices = selection.list_indices
    tl.store(page_id_ptr + list_indices, page_ids, (list_indices >= first) & (list_indices < end))
    fill_up_list(page_id_ptr, tl.maximum(plan.selected_pages, first), end, BLOCK_BUDGET)
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    listed = PageList(page_id_ptr, budget_pages, plan.selected_pages, length, first_page)
    softmax = attend_split(head, split, query, listed, pages, scale, LAYOUT, SHAPE)
    finish_split(head, split, softmax, splits, LAYOUT, SHAPE)
    # Last, so that the other programs of the head do not wait for this one.
    if split == 0:
        tl.store(page_count_ptr + head, plan.selected_pages)
        if RANKING.logits:
            tl.store(missed_mass_ptr + head, find_missed_mass(selection))


def choose_and_attend(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> tuple[torch.Tensor, SelectedPages]:
    """As `kernels.reference.naive_choose_and_attend`.

    `sequence` is read early: no output of the kernel launched before this one (`dependent_launch`).

    Raises:
        ValueError: if the budget is smaller than what is always read, or a tensor is not on a GPU or of a matching
            shape and dtype.
    """
    budget.check()
    require_attention(query, cache, sequence)
    layout, query = cache.layout, query.contiguous()
    logits = layout.summary.scores_are_logits
    if sequence.logical_pages > FEW_PAGES:
        selected = score_and_select(query, cache, sequence, budget, scale)
        return attend(query, cache, sequence, selected, scale), selected
    scored = score(query, cache, sequence, scale, sums_up=logits, early=True)
    _, rows, logical_pages = scored.scores.shape
    selected = empty_selection(layout.kv_heads, budget.pages, logits, query.device)
    shape = plan_attention(True, budget.pages, query, layout)
    splits = empty_splits(query, layout.kv_heads, shape.splits)
    block_pages = max(LOGIT_BLOCK_PAGES, triton.next_power_of_2(logical_pages))
    block_sums = triton.next_power_of_2(scored.blocks)
    dependent = launches_dependently(query.device)
    _select_and_attend_kernel[(layout.kv_heads, shape.splits)](
        *scored.pointers,
        query,
        *page_pointers(cache),
        *sequence,
        *selected[:2],
        selected.missed_mass if logits else scored.scores,
        *splits,
        scale,
        logical_pages,
        scored.blocks,
        *budget,
        LAYOUT=layout,
        RANKING=RankingShape(rows, logits, layout.page_size, block_pages, block_sums),
        SHAPE=shape,
        BLOCK_BUDGET=triton.next_power_of_2(budget.pages),
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return splits.attended_ptr, selected
