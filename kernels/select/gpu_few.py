"""Select among few pages: one program, from scores in its registers.

The range from the lowest score to the highest is cut in three, until a cut is reached by exactly as many scores as are
wanted, or until the range holds only equal scores. It is cut in three because one sum counts for two cuts. Cuts are
made in the integer keys of the scores (`kernels.select.gpu_ranking.order_keys`), so their number is bounded. Scores
are compared with the cuts, and counted, as floats: an integer takes a comparison and a selection, at half the rate
each, where a float becomes 1.0 or 0.0 by one instruction.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from kernels.select.gpu_ranking import index_chosen, load_importance, order_keys, page_grid, scores_of

# The lowest float32: pages whose score overflowed or is no number still rank above pages that are not ranked.
LOWEST_SCORE = tl.constexpr(-3.4028234663852886e38)


class Selection(NamedTuple):
    """What `select_few` finds.

    Args:
        list_indices: int32, each page's index in the list of pages that are read; -1 if it is not read.
        ranks: float32, what pages are ranked by, -inf for those that do not compete.
        chosen: which pages are read for their ranks.
        always_read: float32, the importance of the pages that are always read.
    """

    list_indices: tl.tensor
    ranks: tl.tensor
    chosen: tl.tensor
    always_read: tl.tensor


@triton.jit
def find_range(ranks):
    """The key of the lowest of the ranks above -inf, and how many keys there are from it to the highest's."""
    # One reduction for both.
    highest = order_keys(tl.max(ranks, 1))
    lowest = order_keys(tl.min(tl.where(ranks > float("-inf"), ranks, float("inf")), 1))
    all_bits = tl.full([], 0xFFFFFFFF, tl.uint32)
    highest, inverted_lowest = tl.split(tl.max(tl.join(highest, lowest ^ all_bits), 0))
    lowest = inverted_lowest ^ all_bits
    return lowest, highest - lowest + 1


@triton.jit
def _count_reaching(ranks, low, high):
    """How many ranks reach each of two scores."""
    if ranks.shape[0] * ranks.shape[1] > 65535:  # two counts would not fit one word
        return tl.sum((ranks >= low).to(tl.int32)), tl.sum((ranks >= high).to(tl.int32))
    # First within each row, which one thread has: the sum of so few floats is exact.
    both = tl.sum((ranks >= low).to(tl.float32) + (ranks >= high).to(tl.float32) * 65536.0, 1)
    # Above 2**23 a float's bits count on like an integer's. If converted, the compiler would count integers instead.
    counts = tl.sum((both + 8388608.0).to(tl.int32, bitcast=True) - 0x4B000000)
    return counts & 0xFFFF, (counts >> 16) & 0xFFFF


@triton.jit
def find_threshold(ranks, key, width, step, reaching, wanted, PAGES: tl.constexpr):
    """The score that `wanted` of the ranks reach, found by cutting a range of keys in three.

    Args:
        ranks: for pages that compete finite scores, or inf; for others -inf.
        key, width: uint32, where the range begins, and how many keys it has: at least `wanted` ranks reach the score of
            `key`, and fewer than that the score of `key + width`.
        step: uint32, how far from its beginning the first cut is at most, and the second from that; four times as far
            in each further round. For a threshold that is thought to be near the beginning.
        reaching: how many ranks reach the score of `key`.

    Returns:
        the threshold, and how many of the ranks at it get in: PAGES, that is all of them, unless equal scores let more
        reach it than are wanted.
    """
    while (width > 1) & (reaching != wanted):
        third = tl.minimum(width // 3 + 1, step)
        step = tl.minimum(step, 1 << 28) * 4
        low, high = key + third, key + tl.minimum(2 * third, width - 1)
        reach_low, reach_high = _count_reaching(ranks, scores_of(low), scores_of(high))
        # By selection, not branches, so that a round is a chain of few instructions.
        at_high, at_low = reach_high >= wanted, reach_low >= wanted
        width = tl.where(at_high, width - (high - key), tl.where(at_low, high - low, third))
        key = tl.where(at_high, high, tl.where(at_low, low, key))
        reaching = tl.where(at_high, reach_high, tl.where(at_low, reach_low, reaching))
    threshold = scores_of(key)
    # More ranks than wanted reach the threshold only if scores are equal: of these the earlier pages get in.
    ties = PAGES
    if reaching > wanted:
        ties = wanted - tl.sum((ranks > threshold).to(tl.int32))
    return threshold, ties


@triton.jit
def select_few(scores, head, pages, plan, SHAPE: tl.constexpr):
    """Select for a kv head, as `kernels.select.gpu_ranking.plan_selection` plans it.

    Args:
        scores: as `Scores`.
        pages: whose scores these are, ascending, as `page_grid` arranges `block_pages` of them.
        SHAPE: a `RankingShape`.

    Returns:
        a `Selection` among the pages.
    """
    PAGES: tl.constexpr = SHAPE.block_pages
    importance = load_importance(scores, head, page_grid(PAGES), pages < plan.total_pages, SHAPE)
    ranked = (pages >= plan.sink_pages) & (pages < plan.recent_from)
    # From here on only the ranks need registers: they hold the importance of all pages that are not always read.
    always_read = tl.sum(tl.where(ranked, 0.0, importance))
    ranks = tl.where(ranked, tl.where(importance > LOWEST_SCORE, importance, LOWEST_SCORE), float("-inf"))
    key, width = find_range(ranks)
    threshold, ties = find_threshold(ranks, key, width, width, plan.ranked_pages, plan.wanted, PAGES)
    list_indices, chosen = index_chosen(ranks, pages, threshold, ties, plan, PAGES)
    return Selection(list_indices, ranks, chosen, always_read)


@triton.jit
def find_missed_mass(selection):
    """The softmax mass of the pages that a `Selection` among logits leaves out."""
    return 1.0 - selection.always_read - tl.sum(tl.where(selection.chosen, selection.ranks, 0.0))
