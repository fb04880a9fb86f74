"""Select among many pages, exactly: first *runs* of consecutive pages by their best page, then pages of these.

As many runs as pages are wanted, those with the best best pages, hold all pages that are wanted: each of them has one
page that ranks no lower than any page of the other runs. So a launch after scoring finds, shared by the whole GPU, the
importance of every page and the best of each run; then a program selects the runs, and among their pages, the
*candidates*, the pages, both from keys in its registers (`kernels.select.gpu_few`).

The launch also counts the runs by *buckets* of their best, so that their threshold is searched within one bucket; that
of the pages is searched from it upwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.contract import PageBudget
from kernels.gpu_tools.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.select.gpu_few import LOWEST_SCORE, find_range, find_threshold
from kernels.select.gpu_ranking import (
    BUCKETS,
    RankingShape,
    ScoredPages,
    Scores,
    choose,
    fill_up_list,
    load_importance,
    order_keys,
    page_grid,
    plan_selection,
    running_count,
)

# Pages that a program ranks, and its warps.
PART_PAGES, NUM_WARPS = 512, 4
# Of a run, at least: shorter ones would be hardly fewer than pages.
LEAST_RUN_PAGES = 4
# That a program has room for at least: fewer would not fill its threads.
LEAST_RUNS = 128
# A bucket is an eighth of an octave, up to 1: the first three bits of a float's fraction, after its exponent.
BUCKET_SHIFT, BUCKET_KEYS, FIRST_BUCKET = tl.constexpr(20), tl.constexpr(1 << 20), tl.constexpr((127 - 32) * 8)
# As `kernels.select.gpu_ranking.order_keys` makes them of LOWEST_SCORE and infinity.
LOWEST_KEY, INFINITE_KEY = tl.constexpr(0x00800000), tl.constexpr(0xFF800000)
# Keys, a sixteenth of an octave: the last page selected is usually not much better than the last run listed.
FIRST_STEP = tl.constexpr(1 << 19)


class RankedPages(NamedTuple):
    """What pages are ranked by, and where a selection lists the runs.

    Args:
        ranks: float32 [kv_heads, runs * run_pages], importance; inf for pages that are always read, -inf beyond the
            sequence.
        best: float32 [kv_heads, runs], the highest of each run.
        counts: int32 [kv_heads, BUCKETS], runs of the sequence in each bucket; not used where scores are no logits.
        always_read: float32 [kv_heads, parts], importance of the pages that are always read, likewise.
        run_ids: int32 [kv_heads, listed_runs], uninitialised; all programs of a kv head write the same to it.
    """

    ranks: torch.Tensor
    best: torch.Tensor
    counts: torch.Tensor
    always_read: torch.Tensor
    run_ids: torch.Tensor


class RankedPointers(NamedTuple):
    """Where `RankedPages` are, and how many runs and parts a row has."""

    rank_ptr: tl.tensor
    best_ptr: tl.tensor
    count_ptr: tl.tensor
    always_read_ptr: tl.tensor
    run_id_ptr: tl.tensor
    runs: tl.tensor
    parts: tl.tensor


class RunShape(NamedTuple):
    """Constants of a kernel that selects by runs.

    Args:
        page_size: tokens in a page.
        run_pages: pages of a run.
        runs: of a row, filled up to a power of two.
        listed_runs: whose pages are candidates, filled up likewise.
        parts: into which a row is divided when it is ranked, filled up likewise.
        buckets: BUCKETS, or 0 where scores are no logits.
    """

    page_size: int
    run_pages: int
    runs: int
    listed_runs: int
    parts: int
    buckets: int

    @property
    def most_keys(self) -> int:
        """Of runs or of candidates, whichever are more: so many have to fit the registers of a program."""
        return max(self.runs, self.listed_runs * self.run_pages)


@triton.jit
def _rank_pages_kernel(
    score_ptr,
    highest_ptr,
    total_ptr,
    length_ptr,
    rank_ptr,
    best_ptr,
    count_ptr,
    always_read_ptr,
    run_id_ptr,
    logical_pages,
    runs,
    blocks,
    budget_pages,
    sink_pages,
    recent_pages,
    RANKING: tl.constexpr,
    RUNS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program ranks its part of a head's pages, finds the best of each of its runs, and counts its buckets."""
    RUN_PAGES: tl.constexpr = RUNS.run_pages
    PART_RUNS: tl.constexpr = RANKING.block_pages // RUN_PAGES
    scores = Scores(score_ptr, highest_ptr, total_ptr, logical_pages, blocks)
    budget = PageBudget(budget_pages, sink_pages, recent_pages)
    head, part = tl.program_id(0), tl.program_id(1)
    plan = plan_selection(length_ptr, logical_pages, budget, RANKING.page_size)
    wait_for_previous_kernel(DEPENDENT)
    of_part = part * PART_RUNS + tl.arange(0, PART_RUNS)
    pages = of_part[:, None] * RUN_PAGES + tl.arange(0, RUN_PAGES)[None, :]
    visible = pages < plan.total_pages
    importance = load_importance(scores, head, pages, visible, RANKING)
    always = visible & ((pages < plan.sink_pages) | (pages >= plan.recent_from))
    # No number ranks as low as can be, but above what is not there; what overflowed, below what is always read.
    ranks = tl.where(importance > LOWEST_SCORE, tl.minimum(importance, -LOWEST_SCORE), LOWEST_SCORE)
    ranks = tl.where(visible, tl.where(always, float("inf"), ranks), float("-inf"))
    best = tl.max(ranks, 1)
    there = of_part < runs
    tl.store(rank_ptr + head.to(tl.int64) * runs * RUN_PAGES + pages, ranks, there[:, None])
    tl.store(best_ptr + head * runs + of_part, best, there)
    if RANKING.logits:
        buckets = _bucket_of(best, RUNS)
        tl.atomic_add(count_ptr + head * RUNS.buckets + buckets, 1, best > float("-inf"), sem="relaxed")
        tl.store(always_read_ptr + head * tl.num_programs(1) + part, tl.sum(tl.where(always, importance, 0.0)))


@triton.jit
def _bucket_of(importance, SHAPE: tl.constexpr):
    """The bucket of a rank among softmax mass; what was no number has the first."""
    buckets = (importance.to(tl.int32, bitcast=True) >> BUCKET_SHIFT) - FIRST_BUCKET
    return tl.minimum(tl.maximum(buckets, 0), SHAPE.buckets - 1)


@triton.jit
def _find_bucket(count_ptr, head, wanted, SHAPE: tl.constexpr):
    """The bucket in which `wanted` runs are reached from above: its first key, its keys, the runs that reach it."""
    BUCKETS: tl.constexpr = SHAPE.buckets
    buckets = tl.arange(0, BUCKETS)
    reaching = tl.cumsum(tl.load(count_ptr + head * BUCKETS + buckets), 0, reverse=True)
    bucket = tl.maximum(tl.max(tl.where(reaching >= wanted, buckets, -1), 0), 0)
    reaching = tl.sum(tl.where(buckets == bucket, reaching, 0), 0)
    lowest, infinite = tl.full([], LOWEST_KEY, tl.uint32), tl.full([], INFINITE_KEY, tl.uint32)
    edge = order_keys(((bucket + FIRST_BUCKET) << BUCKET_SHIFT).to(tl.float32, bitcast=True))
    # The first and the last bucket have all below and above, too.
    key = tl.where(bucket > 0, edge, lowest)
    end = tl.where(bucket < BUCKETS - 1, edge + BUCKET_KEYS, infinite)
    return key, end - key, reaching


@triton.jit
def _list_runs(ranked, head, wanted, SHAPE: tl.constexpr):
    """Write the runs whose pages are candidates to the head's list, in ascending order, then -1.

    Args:
        wanted: how many runs these are.

    Returns:
        the rank that the best of each reaches.
    """
    LISTED: tl.constexpr = SHAPE.listed_runs
    runs = page_grid(SHAPE.runs)
    best = tl.load(ranked.best_ptr + head * ranked.runs + runs, runs < ranked.runs, float("-inf"))
    if SHAPE.buckets:
        key, width, reaching = _find_bucket(ranked.count_ptr, head, wanted, SHAPE)
    else:
        key, width = find_range(best)
        reaching = tl.sum((best > float("-inf")).to(tl.int32))
    least, ties = find_threshold(best, key, width, width, reaching, wanted, SHAPE.runs)
    chosen = choose(best, least, ties, SHAPE.runs)
    run_id_ptr = ranked.run_id_ptr + head * LISTED
    tl.store(run_id_ptr + running_count(chosen) - 1, runs, chosen)
    fill_up_list(run_id_ptr, wanted, LISTED, LISTED)
    return least


@triton.jit
def select_by_runs(ranked, head, plan, SHAPE: tl.constexpr):
    """Select for a kv head.

    Args:
        ranked: as `RankedPointers`; this program lists the runs there.
        plan: as `plan_selection` returns it.
        SHAPE: a `RunShape`.

    Returns:
        pages, the candidates in ascending order; which of them are read; their ranks; and the indices, int32, of those
        read in the list.
    """
    RUN_PAGES: tl.constexpr = SHAPE.run_pages
    LISTED: tl.constexpr = SHAPE.listed_runs
    CANDIDATES: tl.constexpr = LISTED * RUN_PAGES
    wanted_runs = tl.minimum(plan.selected_pages, tl.cdiv(plan.total_pages, RUN_PAGES))
    least = _list_runs(ranked, head, wanted_runs, SHAPE)
    # All threads have stored before one of them reads.
    tl.debug_barrier()
    candidates = page_grid(CANDIDATES)
    run = tl.load(ranked.run_id_ptr + head * LISTED + candidates // RUN_PAGES, cache_modifier=".cg")
    pages = run * RUN_PAGES + candidates % RUN_PAGES
    row_ptr = ranked.rank_ptr + head.to(tl.int64) * ranked.runs * RUN_PAGES
    ranks = tl.load(row_ptr + pages, run >= 0, float("-inf"))
    # Each of the runs has a page that reaches what its best does; in a short sequence these are too few.
    least = tl.where(wanted_runs == plan.selected_pages, least, LOWEST_SCORE)
    key = order_keys(least)
    width = tl.full([], INFINITE_KEY, tl.uint32) + 1 - key
    step = tl.full([], FIRST_STEP, tl.uint32)
    reaching = tl.sum((ranks >= least).to(tl.int32))
    threshold, ties = find_threshold(ranks, key, width, step, reaching, plan.selected_pages, CANDIDATES)
    chosen = choose(ranks, threshold, ties, CANDIDATES)
    return pages, chosen, ranks, running_count(chosen) - 1


@triton.jit
def find_mass_missed_by_runs(ranked, head, chosen, ranks, SHAPE: tl.constexpr):
    """The softmax mass of the pages that are not read, from what `select_by_runs` returned."""
    part = tl.arange(0, SHAPE.parts)
    always_read = tl.load(ranked.always_read_ptr + head * ranked.parts + part, part < ranked.parts, 0.0)
    by_rank = chosen & (ranks < float("inf"))
    return 1.0 - tl.sum(always_read, 0) - tl.sum(tl.where(by_rank, ranks, 0.0))


def plan_runs(logical_pages: int, budget_pages: int, page_size: int, logits: bool) -> RunShape:
    """Runs as long as makes them, and the candidates, fewest."""
    listed_runs = max(LEAST_RUNS // LEAST_RUN_PAGES, triton.next_power_of_2(budget_pages))
    parts = triton.next_power_of_2(triton.cdiv(logical_pages, PART_PAGES))
    shapes = []
    run_pages = LEAST_RUN_PAGES
    while run_pages <= PART_PAGES:
        runs = max(LEAST_RUNS, triton.next_power_of_2(triton.cdiv(logical_pages, run_pages)))
        shapes.append(RunShape(page_size, run_pages, runs, min(listed_runs, runs), parts, BUCKETS if logits else 0))
        run_pages *= 2
    return min(shapes, key=lambda shape: shape.runs + shape.listed_runs * shape.run_pages)


def rank_all_pages(
    scored: ScoredPages, length_tokens: torch.Tensor, budget: PageBudget, shape: RunShape
) -> RankedPages:
    """Rank pages that have been scored, for `select_by_runs`.

    Args:
        scored: with `counts`, if they are logits.
    """
    kv_heads, rows, logical_pages = scored.scores.shape
    logits, device = scored.highest is not None, scored.scores.device
    runs, parts = triton.cdiv(logical_pages, shape.run_pages), triton.cdiv(logical_pages, PART_PAGES)
    options = {"dtype": torch.float32, "device": device}
    best = torch.empty((kv_heads, runs), **options)
    ranked = RankedPages(
        torch.empty((kv_heads, runs * shape.run_pages), **options),
        best,
        scored.counts if logits else best,
        torch.empty((kv_heads, parts), **options),
        torch.empty((kv_heads, shape.listed_runs), dtype=torch.int32, device=device),
    )
    dependent = launches_dependently(device)
    _rank_pages_kernel[(kv_heads, parts)](
        *scored.pointers,
        length_tokens,
        *ranked,
        logical_pages,
        runs,
        scored.blocks,
        *budget,
        RANKING=RankingShape(rows, logits, shape.page_size, PART_PAGES, triton.next_power_of_2(scored.blocks)),
        RUNS=shape,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
    )
    return ranked
