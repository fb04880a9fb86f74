"""The softmax of a token's attention, split among programs: what each does with its tokens, and how all are combined.

Each program of a kv head attends with all query heads of the group to its split of the tokens and stores a partial
softmax; when all have, each combines a part of them (flash-decoding; the online softmax is arXiv 2205.14135). Knows
nothing of which tokens are read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.gpu_tools.checks import MOST_GROUP
from kernels.gpu_tools.float8 import WEIGHT_UNIT, widen_codes, widen_values
from kernels.gpu_tools.grid_barrier import barrier_target, counters, wait_at_barrier
from kernels.gpu_tools.rows import load_rows

QUERY_ROWS = tl.constexpr(MOST_GROUP)
NUM_WARPS = 4
# Elements of partial softmaxes that a program combines at once, at most: 64 registers of 128 threads.
COMBINED_ELEMENTS = tl.constexpr(8192)
LOG2_E = tl.constexpr(1.4426950408889634)


class AttentionShape(NamedTuple):
    """Constants of a kernel that attends, beside those of a `CacheLayout`.

    Args:
        selected: whether a list says which pages are read, not all of the sequence.
        group: query heads of a kv head.
        block_dim: channels of a head, padded.
        block_tokens: that a program attends to at once.
        splits: programs of a kv head.
        stages: of the pipeline that loads page indices, then keys and values.
        grid_barrier: whether the programs of a kv head wait for each other, to combine their softmaxes together.
    """

    selected: bool
    group: int
    block_dim: int
    block_tokens: int
    splits: int
    stages: int
    grid_barrier: bool


class PartialSoftmax(NamedTuple):
    """A partial softmax: attention to some of the tokens; logits are in base 2.

    Args:
        highest, total: float32 [QUERY_ROWS], the highest logit and the sum of the weights relative to it.
        attended: float32 [QUERY_ROWS, block_dim], the weighted sum of the values; of 8-bit ones in `WEIGHT_UNIT`.
    """

    highest: tl.tensor
    total: tl.tensor
    attended: tl.tensor


class Splits(NamedTuple):
    """Where the programs of a launch leave their partial softmaxes, and where these are combined.

    Args:
        partial_ptr: float32 [kv_heads, splits, group, head_dim].
        highest_ptr, total_ptr: float32 [kv_heads, splits, group].
        counter_ptr: int64 [kv_heads], counts programs.
        attended_ptr: [kv_heads, group, head_dim].
    """

    partial_ptr: tl.tensor
    highest_ptr: tl.tensor
    total_ptr: tl.tensor
    counter_ptr: tl.tensor
    attended_ptr: tl.tensor


@triton.jit
def load_query(query_ptr, head, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """The queries of a kv head's group, [QUERY_ROWS, block_dim], padded with zeros."""
    rows = tl.arange(0, QUERY_ROWS)[:, None]
    channels = tl.arange(0, SHAPE.block_dim)[None, :]
    inside = (rows < SHAPE.group) & (channels < LAYOUT.head_dim)
    return tl.load(query_ptr + (head * SHAPE.group + rows) * LAYOUT.head_dim + channels, inside, 0.0)


@triton.jit
def start_softmax(SHAPE: tl.constexpr):
    """The `PartialSoftmax` of no tokens."""
    BLOCK_DIM: tl.constexpr = SHAPE.block_dim
    highest = tl.full([QUERY_ROWS], float("-inf"), tl.float32)
    return PartialSoftmax(
        highest, tl.zeros([QUERY_ROWS], tl.float32), tl.zeros([QUERY_ROWS, BLOCK_DIM], tl.float32)
    )


@triton.jit
def load_tokens(rows, dtype: tl.constexpr, pages, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Keys and values of a head, [tokens, block_dim] each, in a floating `dtype`; of 8-bit ones what their codes are.

    Args:
        rows: int32 [tokens], of the head's keys and values; all of them must exist.
        pages: as `Pages`.
    """
    keys = widen_codes(load_rows(pages.key_ptr, rows, LAYOUT.head_dim, SHAPE.block_dim), dtype)
    values = widen_values(load_rows(pages.value_ptr, rows, LAYOUT.head_dim, SHAPE.block_dim), dtype)
    return keys, values


@triton.jit
def attend_tokens(
    softmax, query, keys, values, rows, visible, pages, scale, LAYOUT: tl.constexpr, SHAPE: tl.constexpr
):
    """Add tokens to a `PartialSoftmax`; it stays what it is, to the bit, for a query that sees none of them.

    Args:
        keys, values: as `load_tokens` returned them for `rows`.
        visible: [QUERY_ROWS or 1, tokens], which of them count.
        pages: as `Pages`.
    """
    logits = tl.dot(query, tl.trans(keys), input_precision="ieee") * (scale * LOG2_E)
    if LAYOUT.is_float8:
        logits *= tl.load(pages.key_scale_ptr + rows)[None, :]
    logits = tl.where(visible, logits, float("-inf"))
    highest = tl.maximum(softmax.highest, tl.max(logits, 1))
    # Before the first visible token there is no highest logit.
    above = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(logits - above[:, None])
    decay = tl.exp2(softmax.highest - above)
    total = softmax.total * decay + tl.sum(weights, 1)
    if LAYOUT.is_float8:
        weights *= tl.load(pages.value_scale_ptr + rows)[None, :] * WEIGHT_UNIT
    attended = softmax.attended * decay[:, None]
    attended += tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return PartialSoftmax(highest, total, attended)


@triton.jit
def finish_split(head, split, softmax, splits, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Store a program's `PartialSoftmax`, and combine those of all programs of the head."""
    counter_ptr = splits.counter_ptr + head
    if SHAPE.grid_barrier:
        target = barrier_target(counter_ptr, SHAPE.splits)
    query_rows = tl.arange(0, QUERY_ROWS)
    out = (head * SHAPE.splits + split) * SHAPE.group + query_rows
    store_softmax(softmax, out, query_rows < SHAPE.group, splits, LAYOUT, SHAPE)
    if SHAPE.grid_barrier:
        wait_at_barrier(counter_ptr, target)
        combine_part(head, split, splits, LAYOUT, SHAPE)
    elif arrives_last(counter_ptr, SHAPE):
        combine_head(head, splits, LAYOUT, SHAPE)


@triton.jit
def store_softmax(softmax, out, stored, splits, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Store a `PartialSoftmax` as its split's.

    Args:
        out: int32 [QUERY_ROWS], where in [kv_heads, splits, group].
        stored: [QUERY_ROWS], which of its queries there are.
    """
    attended = softmax.attended
    if LAYOUT.is_float8:
        attended *= 1.0 / WEIGHT_UNIT
    channels = tl.arange(0, SHAPE.block_dim)
    inside = stored[:, None] & (channels < LAYOUT.head_dim)[None, :]
    tl.store(splits.partial_ptr + out[:, None] * LAYOUT.head_dim + channels[None, :], attended, inside)
    tl.store(splits.highest_ptr + out, softmax.highest, stored)
    tl.store(splits.total_ptr + out, softmax.total, stored)


@triton.jit
def combine_part(head, split, splits, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Combine a program's part of a head's elements, once all programs of the head have stored."""
    ELEMENTS: tl.constexpr = SHAPE.group * LAYOUT.head_dim
    PART: tl.constexpr = triton.next_power_of_2(triton.cdiv(ELEMENTS, SHAPE.splits))
    elements = split * PART + tl.arange(0, PART)[None, :]
    row = tl.minimum(elements // LAYOUT.head_dim, SHAPE.group - 1)
    _combine(head, row, elements, elements < ELEMENTS, splits, LAYOUT, SHAPE)


@triton.jit
def arrives_last(counter_ptr, SHAPE: tl.constexpr):
    """Whether all other programs of the head have stored; what they stored can be read then."""
    # All threads have stored before one of them increments the counter.
    tl.debug_barrier()
    finished = tl.atomic_add(counter_ptr, tl.full([], 1, tl.int64), sem="acq_rel", scope="gpu")
    return finished % SHAPE.splits == SHAPE.splits - 1


@triton.jit
def combine_head(head, splits, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Combine all elements of a head."""
    SPLIT_ROWS: tl.constexpr = triton.next_power_of_2(SHAPE.splits)
    ROW_PARTS: tl.constexpr = triton.cdiv(LAYOUT.head_dim * SPLIT_ROWS, COMBINED_ELEMENTS)
    PART: tl.constexpr = triton.next_power_of_2(triton.cdiv(LAYOUT.head_dim, ROW_PARTS))
    for part in range(SHAPE.group * ROW_PARTS):
        row, of_row = part // ROW_PARTS, part % ROW_PARTS * PART + tl.arange(0, PART)[None, :]
        elements = row * LAYOUT.head_dim + of_row
        _combine(head, row, elements, of_row < LAYOUT.head_dim, splits, LAYOUT, SHAPE)


@triton.jit
def _combine(head, row, elements, inside, splits, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """Combine the softmaxes of all splits for some of a group's elements; those without a page weigh nothing.

    Args:
        row: the query head of the group that the elements belong to: one for all, so that each weight is loaded once,
            or [1, elements], which takes no exchange between threads and is faster for few.
        elements: [1, elements], their indices in [group, head_dim], where they are `inside`.
    """
    GROUP_ELEMENTS: tl.constexpr = SHAPE.group * LAYOUT.head_dim
    split = tl.arange(0, triton.next_power_of_2(SHAPE.splits))[:, None]
    there = split < SHAPE.splits
    rows = (head * SHAPE.splits + split) * SHAPE.group + row
    # Past the L1 cache, which may not have what other multiprocessors wrote.
    highs = tl.load(splits.highest_ptr + rows, there, float("-inf"), cache_modifier=".cg")
    totals = tl.load(splits.total_ptr + rows, there, 0.0, cache_modifier=".cg")
    indices = (head * SHAPE.splits + split) * GROUP_ELEMENTS + elements
    partial = tl.load(splits.partial_ptr + indices, there & inside, 0.0, cache_modifier=".cg")
    # The first split always has a page, so that the highest is never -inf.
    weights = tl.exp2(highs - tl.max(highs, 0, keep_dims=True))
    total = tl.sum(weights * totals, 0, keep_dims=True)
    attended = (tl.sum(weights * partial, 0, keep_dims=True) / total).to(splits.attended_ptr.dtype.element_ty)
    tl.store(splits.attended_ptr + head * GROUP_ELEMENTS + elements, attended, inside)


def empty_splits(query: torch.Tensor, kv_heads: int, splits: int) -> Splits:
    """Uninitialised tensors for the partial softmaxes and, last, for the output, in the query's dtype and shape.

    Args:
        query: [query_heads, head_dim], or [rows, query_heads, head_dim]; rows are the first dimension of all then.
    """
    (*rows, query_heads, head_dim), device = query.shape, query.device
    shape = (*rows, kv_heads, splits, query_heads // kv_heads)
    partial = torch.empty((*shape, head_dim), dtype=torch.float32, device=device)
    highest, total = torch.empty((2, *shape), dtype=torch.float32, device=device)
    return Splits(partial, highest, total, counters(kv_heads, splits, device), torch.empty_like(query))
