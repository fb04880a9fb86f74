"""Choose the pages to read from their scores, without a sort.

Scores become unsigned integers of the same order; wanted is the lowest that still gets in. Few pages stay in the
registers of one program a kv head, which finds it by thirds (`kernels.gpu.select_few_pages`); many are shared by
several programs (`kernels.gpu.select_many_pages`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import require, require_contiguous
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.narrow_pages import candidate_grid, count_ranked_candidates
from kernels.gpu.page_ranking import SHARE_PAGES, page_grid, plan_selection, sum_up_logits
from kernels.gpu.select_few_pages import find_missed, select_few
from kernels.gpu.select_many_pages import select_among_many
from kernels.reference import check_selection

# Up to here one program selects.
FEW_PAGES = 8192
# Scores of a thread: with fewer a round waits longer for its threads, with more it counts longer.
SCORES_PER_THREAD = 32


@triton.jit
def _sum_up_kernel(
    logit_ptr, context_ptr, highest_ptr, total_ptr, logical_pages,
    PAGE_SIZE: tl.constexpr, SHARE_PAGES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program sums up SHARE_PAGES logits of one row."""
    wait_for_previous_kernel(DEPENDENT)
    row, block = tl.program_id(0), tl.program_id(1)
    pages = block * SHARE_PAGES + tl.arange(0, SHARE_PAGES)[None, :]
    visible = (pages < logical_pages) & (pages * PAGE_SIZE < tl.load(context_ptr))
    logits = tl.load(logit_ptr + row.to(tl.int64) * logical_pages + pages, visible, float("-inf"))
    highest, total = sum_up_logits(logits, visible)
    entry = row * tl.num_programs(1) + block + tl.arange(0, 1)
    tl.store(highest_ptr + entry, highest)
    tl.store(total_ptr + entry, total)


@triton.jit
def _select_few_kernel(
    score_ptr, highest_ptr, total_ptr, superpage_id_ptr, context_ptr, page_id_ptr, page_count_ptr, missed_ptr,
    logical_pages, entries, blocks, budget_pages, sink_pages, recent_pages,
    NARROWED: tl.constexpr, ROWS: tl.constexpr, SHARES: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_PAGES: tl.constexpr, BLOCKS: tl.constexpr, BLOCK_BUDGET: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program selects for one kv head, from keys in registers."""
    wait_for_previous_kernel(DEPENDENT)
    head = tl.program_id(0)
    total_pages, count, recent_from, ranked_pages, wanted = plan_selection(
        context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE
    )
    if NARROWED:
        pages = candidate_grid(superpage_id_ptr, head, BLOCK_PAGES)
        ranked_pages = count_ranked_candidates(ranked_pages, total_pages, BLOCK_PAGES)
    else:
        pages = page_grid(BLOCK_PAGES)
    places, keys, chosen, read = select_few(
        score_ptr, highest_ptr, total_ptr, head, pages, total_pages, count, recent_from, ranked_pages, wanted,
        entries, blocks, sink_pages, ROWS, SHARES, BLOCK_PAGES, BLOCKS,
    )  # fmt: skip
    page_id_ptr += head * budget_pages
    tl.store(page_id_ptr + places, pages, places >= 0)
    entries = tl.arange(0, BLOCK_BUDGET)
    tl.store(page_id_ptr + entries, -1, (entries >= count) & (entries < budget_pages))
    tl.store(page_count_ptr + head, count)
    if SHARES:
        tl.store(missed_ptr + head, find_missed(keys, chosen, read))


def select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logits: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or a tensor is not on
            a GPU or of a matching shape and dtype.
    """
    require(scores, "scores", (None, None, None), (torch.float32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(scores, "scores")
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    if not logits:
        return select_from(scores, None, None, context_tokens, page_size, budget_pages, sink_pages, recent_pages)
    kv_heads, rows, logical_pages = scores.shape
    blocks = triton.cdiv(logical_pages, SHARE_PAGES)
    highest, total = torch.empty((2, kv_heads, rows, blocks), dtype=torch.float32, device=scores.device)
    dependent = launches_dependently(scores.device)
    _sum_up_kernel[(kv_heads * rows, blocks)](
        scores,
        context_tokens,
        highest,
        total,
        logical_pages,
        PAGE_SIZE=page_size,
        SHARE_PAGES=SHARE_PAGES,
        DEPENDENT=dependent,
        num_warps=1,
        launch_pdl=dependent,
    )
    return select_from(scores, highest, total, context_tokens, page_size, budget_pages, sink_pages, recent_pages)


def select_from(
    scores: torch.Tensor,
    highest: torch.Tensor | None,
    total: torch.Tensor | None,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logical_pages: int | None = None,
    superpage_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Select by one score a page, or by the shares of logits.

    Args:
        scores: float32 [kv_heads, rows, entries]; logits if `highest` is given.
        highest, total: float32 [kv_heads, rows, blocks of SHARE_PAGES], as `sum_up_logits` gives them.
        logical_pages: of the page table; None if all of them have scores.
        superpage_ids: whose pages have scores, as `kernels.gpu.narrow_pages.Candidates` has them; None for all pages.
    """
    kv_heads, rows, entries = scores.shape
    shares, device = highest is not None, scores.device
    page_ids = torch.empty((kv_heads, budget_pages), dtype=torch.int32, device=device)
    page_counts = torch.empty(kv_heads, dtype=torch.int32, device=device)
    missed_share = torch.empty(kv_heads, dtype=torch.float32, device=device) if shares else None
    blocks = highest.shape[2] if shares else 1
    ranking = (scores, highest if shares else scores, total if shares else scores)
    result = (page_ids, page_counts, missed_share if shares else scores)
    plan = (budget_pages, sink_pages, recent_pages)
    dependent = launches_dependently(device)
    how = {"PAGE_SIZE": page_size, "DEPENDENT": dependent, "launch_pdl": dependent}
    loading = {"ROWS": rows, "SHARES": shares, "BLOCKS": triton.next_power_of_2(blocks)}
    if entries <= FEW_PAGES:
        block_pages = max(SHARE_PAGES, triton.next_power_of_2(entries))
        _select_few_kernel[(kv_heads,)](
            *ranking,
            context_tokens if superpage_ids is None else superpage_ids,
            context_tokens,
            *result,
            logical_pages or entries,
            entries,
            blocks,
            *plan,
            NARROWED=superpage_ids is not None,
            BLOCK_PAGES=block_pages,
            BLOCK_BUDGET=triton.next_power_of_2(budget_pages),
            num_warps=max(block_pages // (32 * SCORES_PER_THREAD), 4),
            **loading,
            **how,
        )
        return page_ids, page_counts, missed_share
    select_among_many(ranking, context_tokens, result, plan, loading, how)
    return page_ids, page_counts, missed_share
