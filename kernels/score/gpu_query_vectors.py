"""The query vectors that summaries are multiplied with, split into parts of the summaries' precision.

The matrix units take summaries as they lie in memory, int8 or 16-bit. So that no bits of the query are lost, it is
split into three parts of that precision, each the rounding error of the one before. With its parts a query takes three
quarters of the rows that the units have.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

# Of an int8 part: its rounding error is at most half a step, which the next part divides into as many levels.
PART_LEVELS = tl.constexpr(127)
PART_RATIO = tl.constexpr(254)


class QueryVectors(NamedTuple):
    """What the first and the last vector of a summary are multiplied with.

    With bounds row r is part r of the one vector. Otherwise it is part r // members of the vector of query head
    r % members of the group. Other rows are zero.

    Args:
        first, last: [4 * members, block_dim] in the dtype of the summaries.
        step: float32 [4 * members, 1], the scale of each row: what a step of an integer stands for.
    """

    first: tl.tensor
    last: tl.tensor
    step: tl.tensor


@triton.jit
def _choose_step(magnitudes, summary_dtype: tl.constexpr):
    """The scale of the first part of vectors, [rows, 1]; no element exceeds its `magnitudes` [rows, channels]."""
    if summary_dtype == tl.int8:
        # Positive floats order as their bits do, and integers are compared across a warp by one instruction.
        highest = tl.max(magnitudes.to(tl.int32, bitcast=True), 1).to(tl.float32, bitcast=True)
        return highest[:, None] / PART_LEVELS
    else:
        return tl.full([magnitudes.shape[0], 1], 1.0, tl.float32)


@triton.jit
def _split_rows(vectors, step, part, summary_dtype: tl.constexpr):
    """Split query vectors into three parts.

    Args:
        vectors: float32 [rows, channels], each in three rows or more, one for each part; or one row for all.
        step: as `_choose_step` returns it.
        part: int32 [rows, 1], which part a row keeps; nothing from 3 on.

    Returns:
        The parts [rows, channels] in the dtype of the summaries.
    """
    if summary_dtype == tl.int8:
        rest = vectors / tl.maximum(step, 1e-30)
        first = tl.floor(rest + 0.5)
        rest = (rest - first) * PART_RATIO
        second = tl.floor(rest + 0.5)
        third = tl.floor((rest - second) * PART_RATIO + 0.5)
        parts = tl.where(part == 0, first, tl.where(part == 1, second, tl.where(part == 2, third, 0.0)))
        return parts.to(tl.int8)
    else:
        first = vectors.to(summary_dtype)
        rest = vectors - first.to(tl.float32)
        second = rest.to(summary_dtype)
        third = (rest - second.to(tl.float32)).to(summary_dtype)
        nothing = tl.zeros_like(first)
        return tl.where(part == 0, first, tl.where(part == 1, second, tl.where(part == 2, third, nothing)))


@triton.jit
def _average_bounds(head, query_ptr, scale, LAYOUT: tl.constexpr, SHAPE: tl.constexpr):
    """What lower and upper bounds are multiplied with, float32 [1, channels]: averages over the group's queries."""
    BLOCK_DIM: tl.constexpr = SHAPE.block_dim
    GROUP: tl.constexpr = SHAPE.group
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < LAYOUT.head_dim
    low, high = tl.zeros([BLOCK_DIM], tl.float32), tl.zeros([BLOCK_DIM], tl.float32)
    # One query after the other, in each thread, so that the sums need no exchange between threads.
    for member in tl.static_range(GROUP):
        query = tl.load(query_ptr + (head * GROUP + member) * LAYOUT.head_dim + channels, inside, 0.0)
        query = query.to(tl.float32) * (scale / GROUP)
        low += tl.minimum(query, 0.0)
        high += tl.maximum(query, 0.0)
    return low[None, :], high[None, :]


@triton.jit
def load_query_vectors(
    head, query_ptr, scale, summary_dtype: tl.constexpr, LAYOUT: tl.constexpr, SHAPE: tl.constexpr
):
    """The `QueryVectors` of a kv head's group; SHAPE is a `ScoreShape`."""
    MEMBERS: tl.constexpr = SHAPE.members
    rows = tl.arange(0, 4 * MEMBERS)
    if LAYOUT.summary.is_bounds:
        part = rows[:, None]
        vector, last_vector = _average_bounds(head, query_ptr, scale, LAYOUT, SHAPE)
        magnitudes = tl.maximum(-vector, last_vector)
    else:
        member, part = rows % MEMBERS, (rows // MEMBERS)[:, None]
        channels = tl.arange(0, SHAPE.block_dim)
        present = (member < SHAPE.group)[:, None] & (channels < LAYOUT.head_dim)[None, :]
        query_rows = (head * SHAPE.group + member)[:, None] * LAYOUT.head_dim
        vector = tl.load(query_ptr + query_rows + channels[None, :], present, 0.0).to(tl.float32) * scale
        last_vector = vector
        magnitudes = tl.abs(vector)
    step = _choose_step(magnitudes, summary_dtype)
    parts = _split_rows(vector, step, part, summary_dtype)
    last_parts = parts if LAYOUT.summary.vectors == 1 else _split_rows(last_vector, step, part, summary_dtype)
    if summary_dtype == tl.int8:
        step *= tl.where(part == 0, 1.0, tl.where(part == 1, 1.0 / PART_RATIO, 1.0 / (PART_RATIO * PART_RATIO)))
    return QueryVectors(parts, last_parts, step)
