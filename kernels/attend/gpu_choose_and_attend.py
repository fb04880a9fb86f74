"""Score the pages, select the best of them and attend to these: Quest's attention of one token.

Every program that attends selects for itself, from keys in its registers, and goes on with its split of the list, which
saves a launch (`docs/kernels.md`): from the keys of all pages where these are few, and else by runs of pages, which a
launch of its own has ranked. Only for a large budget, or in a very long sequence, selection is a launch of its own.
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
from kernels.select.gpu import FEW_PAGES, empty_selection, select_from
from kernels.select.gpu_few import find_missed_mass, select_few
from kernels.select.gpu_ranking import Scores, fill_up_list, page_grid, plan_ranking, plan_selection
from kernels.select.gpu_runs import (
    RankedPointers,
    find_mass_missed_by_runs,
    plan_runs,
    rank_all_pages,
    select_by_runs,
)

# Keys of pages, of runs or of candidates: up to here every program that attends selects for itself.
MOST_KEYS = 4096


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
    listed = PageList(page_id_ptr + head * budget_pages, budget_pages, plan.selected_pages, length, first_page)
    _list_and_attend(
        head, split, query, page_ids, selection.list_indices, listed, pages, splits, scale, LAYOUT, SHAPE, BLOCK_BUDGET
    )
    # Last, so that the other programs of the head do not wait for this one.
    if split == 0:
        tl.store(page_count_ptr + head, plan.selected_pages)
        if RANKING.logits:
            tl.store(missed_mass_ptr + head, find_missed_mass(selection))


@triton.jit
def _select_runs_and_attend_kernel(
    rank_ptr,
    best_ptr,
    count_ptr,
    always_read_ptr,
    run_id_ptr,
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
    runs,
    parts,
    budget_pages,
    sink_pages,
    recent_pages,
    LAYOUT: tl.constexpr,
    LOGITS: tl.constexpr,
    RUNS: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program: one kv head, and its split of the pages that are read, which are selected by runs."""
    ranked = RankedPointers(rank_ptr, best_ptr, count_ptr, always_read_ptr, run_id_ptr, runs, parts)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    splits = Splits(partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr)
    head, split = tl.program_id(0), tl.program_id(1)
    # The kernel before this one ranks the pages; everything else is there before it ends.
    length = tl.load(length_ptr)
    query = load_query(query_ptr, head, LAYOUT, SHAPE)
    first_page = tl.load(page_table_ptr)
    plan = plan_selection(length_ptr, logical_pages, budget, LAYOUT.page_size)
    wait_for_previous_kernel(DEPENDENT)
    page_ids, chosen, ranks, list_indices = select_by_runs(ranked, head, plan, RUNS)
    list_indices = tl.where(chosen, list_indices, -1)
    listed = PageList(page_id_ptr + head * budget_pages, budget_pages, plan.selected_pages, length, first_page)
    _list_and_attend(
        head, split, query, page_ids, list_indices, listed, pages, splits, scale, LAYOUT, SHAPE, BLOCK_BUDGET
    )
    # Last, so that the other programs of the head do not wait for this one.
    if split == 0:
        tl.store(page_count_ptr + head, plan.selected_pages)
        if LOGITS:
            tl.store(missed_mass_ptr + head, find_mass_missed_by_runs(ranked, head, chosen, ranks, RUNS))


@triton.jit
def _list_and_attend(
    head,
    split,
    query,
    page_ids,
    list_indices,
    listed,
    pages,
    splits,
    scale,
    LAYOUT: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
):
    """Write this program's split of the list, and attend to it.

    Args:
        page_ids: among which pages were selected.
        list_indices: int32, of these in the list; -1 for those that are not read.
        listed: a `PageList`, of which each program reads only what it wrote itself.
    """
    first, end = split_pages(split, listed.room, SHAPE.block_tokens // LAYOUT.page_size, SHAPE.splits)
    tl.store(listed.page_id_ptr + list_indices, page_ids, (list_indices >= first) & (list_indices < end))
    fill_up_list(listed.page_id_ptr, tl.maximum(listed.page_count, first), end, BLOCK_BUDGET)
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    softmax = attend_split(head, split, query, listed, pages, scale, LAYOUT, SHAPE)
    finish_split(head, split, softmax, splits, LAYOUT, SHAPE)


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
    logits, logical_pages = layout.summary.scores_are_logits, sequence.logical_pages
    few = logical_pages <= FEW_PAGES
    runs = None if few else plan_runs(logical_pages, budget.pages, layout.page_size, logits)
    scored = score(query, cache, sequence, scale, sums_up=logits, early=True)
    if not few and runs.most_keys > MOST_KEYS:
        selected = select_from(scored, sequence.length_tokens, layout.page_size, budget)
        return attend(query, cache, sequence, selected, scale), selected
    selected = empty_selection(layout.kv_heads, budget.pages, logits, query.device)
    shape = plan_attention(True, budget.pages, query, layout)
    splits = empty_splits(query, layout.kv_heads, shape.splits)
    missed_mass = selected.missed_mass if logits else scored.scores  # not written without logits
    dependent = launches_dependently(query.device)
    data = (query, *page_pointers(cache), *sequence, *selected[:2], missed_mass, *splits, scale, logical_pages)
    launch = {
        "LAYOUT": layout,
        "SHAPE": shape,
        "BLOCK_BUDGET": triton.next_power_of_2(budget.pages),
        "DEPENDENT": dependent,
        "num_warps": NUM_WARPS,
        "launch_pdl": dependent,
    }
    grid = (layout.kv_heads, shape.splits)
    if few:
        ranking = plan_ranking(scored, layout.page_size)
        _select_and_attend_kernel[grid](*scored.pointers, *data, scored.blocks, *budget, RANKING=ranking, **launch)
    else:
        ranked = rank_all_pages(scored, sequence.length_tokens, budget, runs)
        of_row = (ranked.best.shape[1], ranked.always_read.shape[1])
        _select_runs_and_attend_kernel[grid](*ranked, *data, *of_row, *budget, LOGITS=logits, RUNS=runs, **launch)
    return splits.attended_ptr, selected
