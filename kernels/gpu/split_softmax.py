"""The softmax of one token's attention, split among programs: what each does with its tokens, and how all are combined.

Each program of a kv head attends with all query heads of the group to its share of the tokens and leaves an unfinished
softmax; whichever program finishes last combines them (flash-decoding; the online softmax is arXiv 2205.14135). Knows
nothing of which tokens are read.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require
from kernels.gpu.float8 import WEIGHT_UNIT, widen_codes, widen_values
from kernels.gpu.rows import load_rows
from kernels.reference import KvScales

# tl.dot wants at least 16 rows: a group's few query rows are padded, which the matrix units do for free.
QUERY_ROWS = 16
NUM_WARPS = 4
# Numbers of unfinished softmaxes that a program combines at once: 64 registers of 128 threads.
COMBINED_NUMBERS = 8192
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
    head, split, highest, total, attended, partial_ptr, highest_ptr, total_ptr, finished_ptr, attended_ptr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, FLOAT8: tl.constexpr, QUERY_ROWS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr, GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr,
    THREAD_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Leave a program's softmax, as `attend_tokens` returns it; the last program of the head combines them all."""
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
    # All threads have stored before one of them counts this program in, and what others stored is seen once it is.
    tl.debug_barrier()
    finished = tl.atomic_add(finished_ptr + head, 1, sem="acq_rel", scope="gpu")
    if finished == SPLITS - 1:
        tl.store(finished_ptr + head, 0)
        _combine_splits(
            head, partial_ptr, highest_ptr, total_ptr, attended_ptr,
            GROUP, HEAD_DIM, BLOCK_DIM, SPLITS, GROUP_ROWS, COMBINED_SPLITS, THREAD_CHANNELS,
        )  # fmt: skip


@triton.jit
def _combine_splits(
    head, partial_ptr, highest_ptr, total_ptr, attended_ptr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    GROUP_ROWS: tl.constexpr, COMBINED_SPLITS: tl.constexpr, THREAD_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Finish the softmaxes of a group over all splits; splits without a page weigh nothing."""
    # All is [splits, members, channels], and so few channels are a thread's that it sums over all splits by itself.
    member = tl.arange(0, GROUP_ROWS)[None, :, None]
    channels = tl.max_contiguous(tl.arange(0, BLOCK_DIM), THREAD_CHANNELS)[None, None, :]
    in_group, inside = member < GROUP, channels < HEAD_DIM
    highest = tl.full([1, GROUP_ROWS, 1], float("-inf"), tl.float32)
    total = tl.zeros([1, GROUP_ROWS, 1], tl.float32)
    attended = tl.zeros([1, GROUP_ROWS, BLOCK_DIM], tl.float32)
    for first in range(0, SPLITS, COMBINED_SPLITS):
        split = first + tl.arange(0, COMBINED_SPLITS)[:, None, None]
        rows = (head * SPLITS + split) * GROUP + member
        there = in_group & (split < SPLITS)
        # Past the L1 cache, which need not know what other multiprocessors wrote.
        highs = tl.load(highest_ptr + rows, there, float("-inf"), cache_modifier=".cg")
        totals = tl.load(total_ptr + rows, there, 0.0, cache_modifier=".cg")
        partial = tl.load(partial_ptr + rows * HEAD_DIM + channels, there & inside, 0.0, cache_modifier=".cg")
        # The first split always has a page, so that no member's highest is -inf alone.
        new_highest = tl.where(in_group, tl.maximum(highest, tl.max(highs, 0, keep_dims=True)), 0.0)
        weights = tl.exp2(highs - new_highest)
        decay = tl.exp2(highest - new_highest)
        total = total * decay + tl.sum(weights * totals, 0, keep_dims=True)
        attended = attended * decay + tl.sum(partial * weights, 0, keep_dims=True)
        highest = new_highest
    attended /= tl.where(in_group, total, 1.0)
    target = attended_ptr + (head * GROUP + member) * HEAD_DIM + channels
    tl.store(target, attended.to(attended_ptr.dtype.element_ty), in_group & inside)


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


def finish_constants(group: int, splits: int, block_dim: int) -> dict[str, int]:
    """Constants of `finish_share`."""
    group_rows = triton.next_power_of_2(group)
    return {
        "SPLITS": splits,
        "GROUP_ROWS": group_rows,
        "COMBINED_SPLITS": min(COMBINED_NUMBERS // (group_rows * block_dim), triton.next_power_of_2(splits)),
        "THREAD_CHANNELS": min(max(group_rows * block_dim // (32 * NUM_WARPS), 1), 4),
    }


def unfinished_softmaxes(
    kv_heads: int, splits: int, group: int, head_dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `finish_share` leaves: weighted sums, highest logits and totals of each split, and finished programs."""
    partial = torch.empty((kv_heads, splits, group, head_dim), dtype=torch.float32, device=device)
    highest, total = torch.empty((2, kv_heads, splits, group), dtype=torch.float32, device=device)
    return partial, highest, total, _finished_counts(kv_heads, device)


@lru_cache
def _finished_counts(kv_heads: int, device: torch.device) -> torch.Tensor:
    """Zeros, one a kv head, that the programs of a launch count up and the last one puts back; launches of one stream
    share them.
    """
    return torch.zeros(kv_heads, dtype=torch.int32, device=device)
