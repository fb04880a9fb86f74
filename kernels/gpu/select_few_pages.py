"""Select among few pages: one program, from keys in its registers.

The range from the lowest key to the highest is cut in three, until a cut is reached by exactly the keys wanted, or
until nothing is left to cut, among equal scores; in three, because one sum counts for two cuts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.page_ranking import load_worth, order_keys, page_grid, place_chosen, worth_of


@triton.jit
def _find_range(keys):
    """The lowest and the highest of the keys above 0, by one reduction for both."""
    all_bits = tl.full([1], 0xFFFFFFFF, tl.uint32)
    inverted = tl.where(keys > 0, keys ^ all_bits, tl.full([1], 0, tl.uint32))
    highest, inverted_lowest = tl.split(tl.max(tl.join(keys, inverted), 0))
    return inverted_lowest ^ 0xFFFFFFFF, highest


@triton.jit
def _find_threshold(keys, ranked_pages, wanted, PAGES: tl.constexpr):
    """The key that `wanted` of the ranked keys reach, by thirds of the range from the lowest to the highest.

    Returns:
        the threshold, uint32, and how many of the keys at it get in: PAGES, which is all of them, unless more reach it
        than are wanted, since equal scores do.
    """
    keys = tl.reshape(keys, [PAGES], can_reorder=True)
    # At least `wanted` keys reach the threshold, and fewer reach what lies `width` above it.
    threshold, highest = _find_range(keys)
    width = highest - threshold + 1
    reaching = ranked_pages
    while (width > 1) & (reaching != wanted):
        third = width // 3 + 1
        low, high = threshold + third, threshold + tl.minimum(2 * third, width - 1)
        # One sum counts for both cuts, of fewer than 65536 keys.
        both = tl.sum((keys >= low).to(tl.int32) + ((keys >= high).to(tl.int32) << 16))
        reach_low, reach_high = both & 0xFFFF, (both >> 16) & 0xFFFF
        # Chosen, not branched to: a round is a chain of few instructions.
        at_high, at_low = reach_high >= wanted, reach_low >= wanted
        width = tl.where(at_high, width - (high - threshold), tl.where(at_low, high - low, third))
        threshold = tl.where(at_high, high, tl.where(at_low, low, threshold))
        reaching = tl.where(at_high, reach_high, tl.where(at_low, reach_low, reaching))
    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    ties = PAGES
    if reaching > wanted:
        ties = wanted - tl.sum((keys > threshold).to(tl.int32))
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
        int32 places of the pages in the list of those that are read, -1 elsewhere; and what `find_missed` takes: keys,
        which of them are chosen, and the share of the pages that are read anyway.
    """
    worth = load_worth(
        score_ptr, highest_ptr, total_ptr, head, page_grid(BLOCK_PAGES), pages < total_pages, entries, blocks,
        ROWS, SHARES, BLOCKS,
    )  # fmt: skip
    keys = order_keys(worth, pages, sink_pages, recent_from)
    # Keys alone need registers from here on: they hold the worth of all pages but those that are read anyway.
    read = tl.sum(tl.where(keys == 0, worth, 0.0))
    threshold, ties = _find_threshold(keys, ranked_pages, wanted, BLOCK_PAGES)
    places, chosen = place_chosen(
        keys, pages, threshold, ties, 0, wanted, total_pages, count, sink_pages, recent_from, BLOCK_PAGES
    )
    return places, keys, chosen, read


@triton.jit
def find_missed(keys, chosen, read):
    """The share of attention that the other pages would get, of what `select_few` returns."""
    return 1.0 - read - tl.sum(tl.where(chosen, worth_of(keys), 0.0))
