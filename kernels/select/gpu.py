"""Choose the pages to read from their scores, without a sort.

Scores become unsigned integers in the same order, the keys; the threshold is the lowest key that still gets in. Few
pages stay in the registers of one program for each kv head, which finds it by cutting the range of the keys in three
(`kernels.select.gpu_few`); of many a launch of its own finds out which have to (`kernels.select.gpu_runs`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import PageBudget, SelectedPages
from kernels.gpu_tools.checks import require, require_contiguous
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.reference import check_selection
from kernels.select.gpu_few import find_missed_mass, select_few
from kernels.select.gpu_ranking import (
    BUCKETS,
    LOGIT_BLOCK_PAGES,
    ScoredPages,
    Scores,
    fill_up_list,
    page_grid,
    plan_ranking,
    plan_selection,
    sum_up_logits,
)
from kernels.select.gpu_runs import (
    RankedPointers,
    find_mass_missed_by_runs,
    plan_runs,
    rank_all_pages,
    select_by_runs,
)

# Up to here a program has all pages in its registers.
FEW_PAGES = 2048
# With fewer scores a thread, a round waits longer for its threads; with more it counts longer.
SCORES_PER_THREAD, KEYS_PER_THREAD, LEAST_WARPS, MOST_WARPS = 32, 8, 4, 32


@triton.jit
def _sum_up_kernel(
    logit_ptr,
    length_ptr,
    highest_ptr,
    total_ptr,
    logical_pages,
    PAGE_SIZE: tl.constexpr,
    BLOCK_PAGES: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program sums up BLOCK_PAGES logits of one row."""
    wait_for_previous_kernel(DEPENDENT)
    row, block = tl.program_id(0), tl.program_id(1)
    pages = block * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)[None, :]
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(length_ptr))
    logits = tl.load(logit_ptr + row.to(tl.int64) * logical_pages + pages, visible, float("-inf"))
    highest, total = sum_up_logits(logits, visible)
    index = row * tl.num_programs(1) + block + tl.arange(0, 1)
    tl.store(highest_ptr + index, highest)
    tl.store(total_ptr + index, total)


@triton.jit
def _select_few_kernel(
    score_ptr,
    highest_ptr,
    total_ptr,
    length_ptr,
    page_id_ptr,
    page_count_ptr,
    missed_mass_ptr,
    logical_pages,
    blocks,
    budget_pages,
    sink_pages,
    recent_pages,
    SHAPE: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program selects for one kv head, from keys in registers."""
    scores = Scores(score_ptr, highest_ptr, total_ptr, logical_pages, blocks)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    wait_for_previous_kernel(DEPENDENT)
    head = tl.program_id(0)
    plan = plan_selection(length_ptr, logical_pages, budget, SHAPE.page_size)
    pages = page_grid(SHAPE.block_pages)
    selection = select_few(scores, head, pages, plan, SHAPE)
    page_id_ptr += head * budget_pages
    tl.store(page_id_ptr + selection.list_indices, pages, selection.list_indices >= 0)
    fill_up_list(page_id_ptr, plan.selected_pages, budget_pages, BLOCK_BUDGET)
    tl.store(page_count_ptr + head, plan.selected_pages)
    if SHAPE.logits:
        tl.store(missed_mass_ptr + head, find_missed_mass(selection))


@triton.jit
def _select_runs_kernel(
    rank_ptr,
    best_ptr,
    count_ptr,
    always_read_ptr,
    run_id_ptr,
    length_ptr,
    page_id_ptr,
    page_count_ptr,
    missed_mass_ptr,
    logical_pages,
    runs,
    parts,
    budget_pages,
    sink_pages,
    recent_pages,
    LOGITS: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK_BUDGET: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program selects for one kv head, by runs."""
    ranked = RankedPointers(rank_ptr, best_ptr, count_ptr, always_read_ptr, run_id_ptr, runs, parts)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    wait_for_previous_kernel(DEPENDENT)
    head = tl.program_id(0)
    plan = plan_selection(length_ptr, logical_pages, budget, RUNS.page_size)
    pages, chosen, ranks, list_indices = select_by_runs(ranked, head, plan, RUNS)
    page_id_ptr += head * budget_pages
    tl.store(page_id_ptr + list_indices, pages, chosen)
    fill_up_list(page_id_ptr, plan.selected_pages, budget_pages, BLOCK_BUDGET)
    tl.store(page_count_ptr + head, plan.selected_pages)
    if LOGITS:
        tl.store(missed_mass_ptr + head, find_mass_missed_by_runs(ranked, head, chosen, ranks, RUNS))


def select_pages(
    scores: torch.Tensor, length_tokens: torch.Tensor, page_size: int, budget: PageBudget, logits: bool
) -> SelectedPages:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or a tensor is not on
            a GPU or of a matching shape and dtype.
    """
    require(scores, "scores", (None, None, None), (torch.float32,))
    require(length_tokens, "length_tokens", (1,), (torch.int32,))
    require_contiguous(scores, "scores")
    check_selection(scores, budget, logits)
    if not logits:
        return select_from(ScoredPages(scores, None, None), length_tokens, page_size, budget)
    kv_heads, rows, logical_pages = scores.shape
    blocks = triton.cdiv(logical_pages, LOGIT_BLOCK_PAGES)
    highest, total = torch.empty((2, kv_heads, rows, blocks), dtype=torch.float32, device=scores.device)
    dependent = launches_dependently(scores.device)
    _sum_up_kernel[(kv_heads * rows, blocks)](
        scores,
        length_tokens,
        highest,
        total,
        logical_pages,
        PAGE_SIZE=page_size,
        BLOCK_PAGES=LOGIT_BLOCK_PAGES,
        DEPENDENT=dependent,
        num_warps=1,
        launch_pdl=dependent,
    )
    counts = torch.zeros((kv_heads, BUCKETS), dtype=torch.int32, device=scores.device)
    return select_from(ScoredPages(scores, highest, total, counts), length_tokens, page_size, budget)


def empty_selection(kv_heads: int, budget_pages: int, logits: bool, device: torch.device) -> SelectedPages:
    """Uninitialised tensors for the pages that are selected."""
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=device)
    return SelectedPages(
        page_ids, page_counts, torch.empty(kv_heads, dtype=torch.float32, device=device) if logits else None
    )


def select_from(
    scored: ScoredPages, length_tokens: torch.Tensor, page_size: int, budget: PageBudget
) -> SelectedPages:
    """Select by one score a page, or by the softmax mass of logits."""
    kv_heads, _, logical_pages = scored.scores.shape
    logits, device = scored.highest is not None, scored.scores.device
    selected = empty_selection(kv_heads, budget.pages, logits, device)
    outputs = (*selected[:2], selected.missed_mass if logits else scored.scores)  # not written without logits
    dependent = launches_dependently(device)
    launch = {
        "BLOCK_BUDGET": triton.next_power_of_2(budget.pages),
        "DEPENDENT": dependent,
        "launch_pdl": dependent,
    }
    if logical_pages <= FEW_PAGES:
        ranking = plan_ranking(scored, page_size)
        numbers = (logical_pages, scored.blocks, *budget)
        warps = choose_warps(ranking.block_pages, SCORES_PER_THREAD)
        _select_few_kernel[(kv_heads,)](
            *scored.pointers, length_tokens, *outputs, *numbers, SHAPE=ranking, num_warps=warps, **launch
        )
    else:
        runs = plan_runs(logical_pages, budget.pages, page_size, logits)
        ranked = rank_all_pages(scored, length_tokens, budget, runs)
        numbers = (logical_pages, ranked.best.shape[1], ranked.always_read.shape[1], *budget)
        warps = choose_warps(runs.most_keys, KEYS_PER_THREAD)
        _select_runs_kernel[(kv_heads,)](
            *ranked, length_tokens, *outputs, *numbers, LOGITS=logits, RUNS=runs, num_warps=warps, **launch
        )
    return selected


def choose_warps(keys: int, keys_per_thread: int) -> int:
    """Of a program that selects among so many keys; a power of two."""
    return min(max(keys // (32 * keys_per_thread), LEAST_WARPS), MOST_WARPS)
