"""The softmax of one token's attention, split among programs: what each does with its tokens, and how all are combined.

Each program of a kv head attends with all query heads of the group to its share of the tokens and leaves an unfinished
softmax; when all have, each combines a part of them (flash-decoding; the online softmax is arXiv 2205.14135). Knows
nothing of which tokens are read.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require
from kernels.gpu.float8 import WEIGHT_UNIT, widen_codes, widen_values
from kernels.gpu.meetings import counters, find_meeting, meet
from kernels.gpu.rows import load_rows
from kernels.reference import KvScales

# tl.dot wants at least 16 rows: a group's few query rows are padded, which the matrix units do for free.
QUERY_ROWS = 16
NUM_WARPS = 4
# Numbers of unfinished softmaxes that a program combines at once, at most: 64 registers of 128 threads.
COMBINED_NUMBERS = tl.constexpr(8192)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_query(
    query_ptr, head, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, QUERY_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """The queries of a kv head's group, [QUERY_ROWS, BLOCK_DIM], filled up with zeros."""
    rows = tl.arange(0, QUERY_ROWS)[:, None]
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    inside = (rows < GROUP) & (channels < HEAD_DIM)
    return tl.load(query_ptr + (head * GROUP + rows) * HEAD_DIM + channels, inside, 0.0)


@triton.jit
def attend_tokens(
    query, kv_rows, visible, highest, total, attended,
    key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, scale,
    HEAD_DIM: tl.constexpr, FLOAT8: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Go on with an unfinished softmax, whose logits are in units of log 2.

    Args:
        kv_rows: int32 [tokens], of keys and values of the head; all of them must be there.
        visible: [tokens], which of them count.
        highest, total: float32 [QUERY_ROWS], the highest logit and the sum of the weights relative to it.
        attended: float32 [QUERY_ROWS, BLOCK_DIM], the weighted sum of the values; of 8-bit ones in `WEIGHT_UNIT`.
    """
    keys = widen_codes(load_rows(key_page_ptr, kv_rows, HEAD_DIM, BLOCK_DIM), query.dtype)
    values = widen_values(load_rows(value_page_ptr, kv_rows, HEAD_DIM, BLOCK_DIM), query.dtype)
    logits = tl.dot(query, tl.trans(keys), input_precision="ieee") * (scale * LOG2_E)
    if FLOAT8:
        logits *= tl.load(key_scale_ptr + kv_rows)[None, :]
    logits = tl.where(visible[None, :], logits, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(logits, 1))
    # Until a visible entry there is no logit to be above.
    above = tl.where(new_highest == float("-inf"), 0.0, new_highest)
    weights = tl.exp2(logits - above[:, None])
    decay = tl.exp2(highest - above)
    total = total * decay + tl.sum(weights, 1)
    if FLOAT8:
        weights *= tl.load(value_scale_ptr + kv_rows)[None, :] * WEIGHT_UNIT
    attended = attended * decay[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return new_highest, total, attended


@triton.jit
def finish_share(
    head, split, highest, total, attended, partial_ptr, highest_ptr, total_ptr, counter_ptr, attended_ptr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, MEETS: tl.constexpr,
):  # fmt: skip
    """Leave a program's softmax, as `attend_tokens` returns it, and combine those of all.

    Each program of a head that MEETS the others combines its part of the numbers; else the last one combines all.
    """
    counter_ptr += head
    if MEETS:
        meeting = find_meeting(counter_ptr, SPLITS)
    if FLOAT8:
        attended *= 1.0 / WEIGHT_UNIT
    rows = tl.arange(0, QUERY_ROWS)
    channels = tl.arange(0, BLOCK_DIM)
    in_group = rows < GROUP
    out = (head * SPLITS + split) * GROUP + rows
    inside = in_group[:, None] & (channels < HEAD_DIM)[None, :]
    tl.store(partial_ptr + out[:, None] * HEAD_DIM + channels[None, :], attended, inside)
    tl.store(highest_ptr + out, highest, in_group)
    tl.store(total_ptr + out, total, in_group)
    NUMBERS: tl.constexpr = GROUP * HEAD_DIM
    SPLIT_ROWS: tl.constexpr = triton.next_power_of_2(SPLITS)
    if MEETS:
        meet(counter_ptr, meeting)
        PART: tl.constexpr = triton.next_power_of_2(triton.cdiv(NUMBERS, SPLITS))
        numbers = split * PART + tl.arange(0, PART)[None, :]
        row = tl.minimum(numbers // HEAD_DIM, GROUP - 1)
        _combine(
            head, row, numbers, numbers < NUMBERS, partial_ptr, highest_ptr, total_ptr, attended_ptr,
            GROUP, HEAD_DIM, SPLITS, SPLIT_ROWS,
        )  # fmt: skip
    else:
        ROW_PARTS: tl.constexpr = triton.cdiv(HEAD_DIM * SPLIT_ROWS, COMBINED_NUMBERS)
        PART: tl.constexpr = triton.next_power_of_2(triton.cdiv(HEAD_DIM, ROW_PARTS))
        # All threads have stored before one of them counts this program in, and what others stored is seen once it is.
        tl.debug_barrier()
        finished = tl.atomic_add(counter_ptr, tl.full([], 1, tl.int64), sem="acq_rel", scope="gpu")
        if finished % SPLITS == SPLITS - 1:
            for part in range(GROUP * ROW_PARTS):
                row, of_row = part // ROW_PARTS, part % ROW_PARTS * PART + tl.arange(0, PART)[None, :]
                _combine(
                    head, row, row * HEAD_DIM + of_row, of_row < HEAD_DIM, partial_ptr, highest_ptr, total_ptr,
                    attended_ptr, GROUP, HEAD_DIM, SPLITS, SPLIT_ROWS,
                )  # fmt: skip


@triton.jit
def _combine(
    head, row, numbers, inside, partial_ptr, highest_ptr, total_ptr, attended_ptr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr, SPLIT_ROWS: tl.constexpr,
):  # fmt: skip
    """Combine the softmaxes of all splits for some of a group's numbers; those without a page weigh nothing.

    Args:
        row: the query head of the group whose numbers they are: one for all, so that each weight is loaded once, or
            [1, numbers], which takes no exchange between threads and is faster for few.
        numbers: [1, numbers], their places in [GROUP, HEAD_DIM], where they are `inside`.
    """
    split = tl.arange(0, SPLIT_ROWS)[:, None]
    there = split < SPLITS
    rows = (head * SPLITS + split) * GROUP + row
    # Past the L1 cache, which need not know what other multiprocessors wrote.
    highs = tl.load(highest_ptr + rows, there, float("-inf"), cache_modifier=".cg")
    totals = tl.load(total_ptr + rows, there, 0.0, cache_modifier=".cg")
    places = (head * SPLITS + split) * (GROUP * HEAD_DIM) + numbers
    partial = tl.load(partial_ptr + places, there & inside, 0.0, cache_modifier=".cg")
    # The first split always has a page, so that the highest is never -inf.
    weights = tl.exp2(highs - tl.max(highs, 0, keep_dims=True))
    total = tl.sum(weights * totals, 0, keep_dims=True)
    attended = tl.sum(weights * partial, 0, keep_dims=True) / total
    tl.store(attended_ptr + head * (GROUP * HEAD_DIM) + numbers, attended.to(attended_ptr.dtype.element_ty), inside)


def require_query(query: torch.Tensor, key_pages: torch.Tensor, kv_scales: KvScales | None) -> int:
    """Check a query against pages that have been checked; returns the query heads of a group."""
    kv_heads, head_dim = key_pages.shape[1], key_pages.shape[3]
    require(query, "query", (None, head_dim), (key_pages.dtype,) if kv_scales is None else FLOATING)
    group, rest = divmod(query.shape[0], kv_heads)
    if rest or group > QUERY_ROWS:
        raise ValueError(
            f"{query.shape[0]} query heads do not share {kv_heads} kv heads in groups of up to {QUERY_ROWS}"
        )
    return group


def unfinished_softmaxes(
    kv_heads: int, splits: int, group: int, head_dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `finish_share` leaves: weighted sums, highest logits and totals of each split, and a head's counter."""
    partial = torch.empty((kv_heads, splits, group, head_dim), dtype=torch.float32, device=device)
    highest, total = torch.empty((2, kv_heads, splits, group), dtype=torch.float32, device=device)
    return partial, highest, total, counters(kv_heads, splits, device)
