"""What pages are ranked by when some are to be selected, and which places the chosen ones take.

Logits become shares of attention in two steps: each block of pages finds its highest logit and the sum of the
exponentials above it (`kernels.gpu.page_scores` does so as it scores), and the selection makes one softmax of these.
Knows nothing of how the lowest score that gets in is found.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Pages of a block that sums up its own logits.
SHARE_PAGES = 128
# Pages of a row in which a selection arranges them: as many as a thread loads at once.
ROW_PAGES = tl.constexpr(4)


@triton.jit
def sum_up_logits(logits, visible):
    """The highest of a block's logits and the sum of exponentials above it, for each row of [rows, pages]."""
    highest = tl.max(tl.where(visible, logits, float("-inf")), 1)
    # A block beyond the context has no logit to be above.
    above = logits - tl.where(highest == float("-inf"), 0.0, highest)[:, None]
    return highest, tl.sum(tl.where(visible, tl.exp(above), 0.0), 1)


@triton.jit
def load_worth(
    score_ptr, highest_ptr, total_ptr, head, places, visible, entries, blocks,
    ROWS: tl.constexpr, SHARES: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """What pages of a head are ranked by: their one score, or the mean of their rows' shares, 0 where not `visible`.

    Args:
        places: of the pages' scores in a row, which has so many `entries`.
        visible: which pages are in the context.
    """
    # Scores beyond the context are loaded, and returned, too: its length need not have come before.
    score_ptr += head.to(tl.int64) * ROWS * entries
    if SHARES:
        block = tl.arange(0, BLOCKS)
        used = block < blocks
        worth = places * 0.0
        for row in tl.static_range(ROWS):
            entry = (head * ROWS + row) * blocks + block
            highs = tl.load(highest_ptr + entry, used, float("-inf"))
            totals = tl.load(total_ptr + entry, used, 0.0)
            highest = tl.max(highs, 0)
            factor = 1.0 / (tl.sum(totals * tl.exp(highs - highest), 0) * ROWS)
            logits = tl.load(score_ptr + row * entries + places, places < entries, float("-inf"))
            worth += tl.where(visible, tl.exp(logits - highest) * factor, 0.0)
        return worth
    else:
        return tl.load(score_ptr + places, places < entries, 0.0)


@triton.jit
def order_keys(worth):
    """uint32 keys, above 0, in the order of the scores."""
    # Adding 0.0 turns -0.0 into 0.0: equal scores must have equal bits.
    bits = (worth + 0.0).to(tl.uint32, bitcast=True)
    sign, all_bits = tl.full([], 0x80000000, tl.uint32), tl.full([], 0xFFFFFFFF, tl.uint32)
    # Negative floats order backwards by their bits, positive ones forwards.
    return tl.where((bits & sign) != 0, bits ^ all_bits, bits | sign)


@triton.jit
def worth_of(keys):
    """The scores that `order_keys` made keys of."""
    sign, all_bits = tl.full([], 0x80000000, tl.uint32), tl.full([], 0xFFFFFFFF, tl.uint32)
    return tl.where((keys & sign) != 0, keys ^ sign, keys ^ all_bits).to(tl.float32, bitcast=True)


@triton.jit
def plan_selection(context_ptr, logical_pages, budget_pages, sink_pages, recent_pages, PAGE_SIZE: tl.constexpr):
    """Pages of the context, pages to read, the first always read at the end, pages ranked, and wanted of these."""
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    count = tl.minimum(budget_pages, total_pages)
    recent_from = tl.maximum(total_pages - 1 - recent_pages, 0)
    ranked_pages = tl.maximum(recent_from - sink_pages, 0)
    return total_pages, count, recent_from, ranked_pages, count - (total_pages - ranked_pages)


@triton.jit
def page_grid(PAGES: tl.constexpr):
    """The numbers of so many pages in rows, [PAGES / ROW_PAGES, ROW_PAGES], which `running_count` wants."""
    return tl.arange(0, PAGES // ROW_PAGES)[:, None] * ROW_PAGES + tl.arange(0, ROW_PAGES)[None, :]


@triton.jit
def running_count(flags):
    """How many of the flags are set up to each, int32, in the order of the rows.

    Counting along short rows, and then over the rows, measured faster than one long scan (`kernels/NOTES.md`).
    """
    flags = flags.to(tl.int32)
    in_row = tl.sum(flags, 1)
    return (tl.cumsum(in_row, 0) - in_row)[:, None] + tl.cumsum(flags, 1)


@triton.jit
def place_chosen(
    ranks, pages, threshold, ties, taken, wanted, total_pages, count, sink_pages, recent_from, PAGES: tl.constexpr
):  # fmt: skip
    """The places of pages in the list of those that are read: of pages above the threshold, the first `ties` at it, and
    those always read.

    Args:
        ranks: of ranked pages scores or keys, lower ones than any of theirs for others.
        ranks, pages: as `page_grid` arranges PAGES of them.
        taken: how many places are taken by earlier pages.

    Returns:
        int32 places, in the order of the pages, -1 for those not read; and which pages are chosen by their ranks.
    """
    chosen = (ranks >= threshold) & (wanted > 0)
    # Mostly all that are tied get in.
    if ties < PAGES:
        tied = ranks == threshold
        late = tied & (running_count(tied) > ties)
        chosen = chosen & (late == 0)
    always = ((pages < sink_pages) | (pages >= recent_from)) & (pages < total_pages)
    places = taken + running_count(chosen | always) - 1
    return tl.where((chosen | always) & (places < count), places, -1), chosen
