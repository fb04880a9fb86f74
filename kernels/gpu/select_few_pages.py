"""Select among few pages: one program, from scores in its registers.

The range from the lowest score to the highest is cut in three, until a cut is reached by exactly as many scores as are
wanted, or until nothing is left to cut, among equal ones; in three, because one sum counts for two cuts. Cuts are made
by the bits of the scores (`kernels.gpu.page_ranking.order_keys`), of which there are only so many. Scores are compared
with them, and counted, as floats: an integer takes a comparison and a selection, at half the rate each, where a float
becomes 1.0 or 0.0 by one instruction.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.page_ranking import load_worth, order_keys, page_grid, place_chosen, worth_of

# Of float32: what overflowed, and what is no number, still ranks above pages that are not ranked.
LOWEST_SCORE = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _find_range(ranks):
    """The keys of the lowest and the highest of the ranks above -inf, by one reduction for both."""
    highest = order_keys(tl.max(ranks, 1))
    lowest = order_keys(tl.min(tl.where(ranks > float("-inf"), ranks, float("inf")), 1))
    all_bits = tl.full([], 0xFFFFFFFF, tl.uint32)
    highest, inverted_lowest = tl.split(tl.max(tl.join(highest, lowest ^ all_bits), 0))
    return inverted_lowest ^ all_bits, highest


@triton.jit
def _count_reaching(ranks, low, high):
    """How many ranks reach each of two scores; fewer than 65,536."""
    # First in each row, which one thread has: so few floats are added up exactly.
    both = tl.sum((ranks >= low).to(tl.float32) + (ranks >= high).to(tl.float32) * 65536.0, 1)
    # Above 2**23 a float's bits count on as an integer's. Were it converted, the compiler would count integers instead.
    counts = tl.sum((both + 8388608.0).to(tl.int32, bitcast=True) - 0x4B000000)
    return counts & 0xFFFF, (counts >> 16) & 0xFFFF


@triton.jit
def _find_threshold(ranks, ranked_pages, wanted, PAGES: tl.constexpr):
    """The score that `wanted` of the ranks reach, by thirds of the range from the lowest to the highest.

    Args:
        ranks: of `ranked_pages` pages finite scores, or inf; of others -inf.

    Returns:
        the threshold, and how many of the ranks at it get in: PAGES, which is all of them, unless more reach it than
        are wanted, since equal scores do.
    """
    # At least `wanted` ranks reach the score of this key, and fewer that of what lies `width` above it.
    key, highest = _find_range(ranks)
    width = highest - key + 1
    reaching = ranked_pages
    while (width > 1) & (reaching != wanted):
        third = width // 3 + 1
        low, high = key + third, key + tl.minimum(2 * third, width - 1)
        reach_low, reach_high = _count_reaching(ranks, worth_of(low), worth_of(high))
        # Chosen, not branched to: a round is a chain of few instructions.
        at_high, at_low = reach_high >= wanted, reach_low >= wanted
        width = tl.where(at_high, width - (high - key), tl.where(at_low, high - low, third))
        key = tl.where(at_high, high, tl.where(at_low, low, key))
        reaching = tl.where(at_high, reach_high, tl.where(at_low, reach_low, reaching))
    threshold = worth_of(key)
    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    ties = PAGES
    if reaching > wanted:
        ties = wanted - tl.sum((ranks > threshold).to(tl.int32))
    return threshold, ties


@triton.jit
def select_few(
    score_ptr, highest_ptr, total_ptr, head, pages, total_pages, count, recent_from, ranked_pages, wanted,
    entries, blocks, sink_pages,
    ROWS: tl.constexpr, SHARES: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Select for a kv head, as `kernels.gpu.page_ranking.plan_selection` plans it.

    Args:
        pages: whose scores these are, ascending, as `page_grid` arranges BLOCK_PAGES of them.
        entries, blocks: of a row of scores, and of block sums.

    Returns:
        int32 places of the pages in the list of those that are read, -1 elsewhere; and what `find_missed` takes: ranks,
        which pages are chosen by them, and the share of the pages that are read anyway.
    """
    worth = load_worth(
        score_ptr, highest_ptr, total_ptr, head, page_grid(BLOCK_PAGES), pages < total_pages, entries, blocks,
        ROWS, SHARES, BLOCKS,
    )  # fmt: skip
    ranked = (pages >= sink_pages) & (pages < recent_from)
    # Ranks alone need registers from here on: they hold the worth of all pages but those that are read anyway.
    read = tl.sum(tl.where(ranked, 0.0, worth))
    ranks = tl.where(ranked, tl.where(worth > LOWEST_SCORE, worth, LOWEST_SCORE), float("-inf"))
    threshold, ties = _find_threshold(ranks, ranked_pages, wanted, BLOCK_PAGES)
    places, chosen = place_chosen(
        ranks, pages, threshold, ties, 0, wanted, total_pages, count, sink_pages, recent_from, BLOCK_PAGES
    )
    return places, ranks, chosen, read


@triton.jit
def find_missed(ranks, chosen, read):
    """The share of attention that the other pages would get, of what `select_few` returns."""
    return 1.0 - read - tl.sum(tl.where(chosen, ranks, 0.0))
