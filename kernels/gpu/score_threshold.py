"""Find the lowest score that still gets in, among scores in the registers of one program.

The range from the lowest key to the highest is cut in three, until a cut is reached by exactly the keys wanted, or
until nothing is left to cut, among equal scores; in three, because one sum counts for two cuts.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _count_reaching(keys, low, high):
    """How many of fewer than 65536 keys reach each of two cuts."""
    both = tl.sum((keys >= low).to(tl.int32) + ((keys >= high).to(tl.int32) << 16))
    return both & 0xFFFF, (both >> 16) & 0xFFFF


@triton.jit
def find_threshold(keys, ranked_pages, wanted, PAGES: tl.constexpr):
    """The key that `wanted` of the ranked keys reach, by thirds of the range from the lowest to the highest.

    Returns:
        the threshold, uint32, and how many of the keys at it get in: PAGES, which is all of them, unless more reach it
        than are wanted, since equal scores do.
    """
    highest_key = tl.max(keys)
    lowest_key = tl.min(tl.where(keys > 0, keys, tl.full([1], 0xFFFFFFFF, tl.uint32)))
    # At least `wanted` keys reach the threshold, and fewer reach what lies `width` above it.
    threshold, width = lowest_key, highest_key - lowest_key + 1
    reaching = ranked_pages
    while (width > 1) & (reaching != wanted):
        third = width // 3 + 1
        low, high = threshold + third, threshold + tl.minimum(2 * third, width - 1)
        reach_low, reach_high = _count_reaching(keys, low, high)
        if reach_high >= wanted:
            width -= high - threshold
            threshold, reaching = high, reach_high
        elif reach_low >= wanted:
            width = high - low
            threshold, reaching = low, reach_low
        else:
            width = third
    # More reach the threshold than are wanted only if equal scores do: of these the earlier pages get in.
    ties = PAGES
    if reaching > wanted:
        ties = wanted - tl.sum((keys > threshold).to(tl.int32))
    return threshold, ties
