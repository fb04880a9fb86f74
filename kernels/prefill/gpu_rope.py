"""Rotate queries and keys in place by their positions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import RopeTables
from kernels.gpu_tools.checks import FLOATING, require, require_contiguous

# Heads that share a program, and so the cosines and sines of their token.
BLOCK_HEADS = 8


@triton.jit
def _apply_rope_kernel(
    query_ptr,
    key_ptr,
    cosine_ptr,
    sine_ptr,
    position_ptr,
    query_token_stride,
    query_head_stride,
    key_token_stride,
    key_head_stride,
    query_heads,
    key_heads,
    half,
    BLOCK_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program rotates some heads of one token; those of the keys come after those of the queries."""
    token = tl.program_id(0).to(tl.int64)
    query_blocks = tl.cdiv(query_heads, BLOCK_HEADS)
    if tl.program_id(1) < query_blocks:
        head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
        base = query_ptr + token * query_token_stride + head * query_head_stride
        heads = query_heads
    else:
        head = (tl.program_id(1) - query_blocks) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
        base = key_ptr + token * key_token_stride + head * key_head_stride
        heads = key_heads
    channels = tl.arange(0, BLOCK)[None, :]
    present = channels < half
    inside = (head < heads) & present
    row = tl.load(position_ptr + token).to(tl.int64) * half
    cosine = tl.load(cosine_ptr + row + channels, present, 0.0)
    sine = tl.load(sine_ptr + row + channels, present, 0.0)
    first = tl.load(base + channels, inside, 0.0)
    second = tl.load(base + half + channels, inside, 0.0)
    low, high = first.to(tl.float32), second.to(tl.float32)
    tl.store(base + channels, (low * cosine - high * sine).to(first.dtype), inside)
    tl.store(base + half + channels, (high * cosine + low * sine).to(first.dtype), inside)


def apply_rope(queries: torch.Tensor, keys: torch.Tensor, rope: RopeTables, positions: torch.Tensor) -> None:
    """As `kernels.reference.naive_apply_rope`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    require(queries, "queries", (None, None, None), FLOATING)
    tokens, query_heads, head_dim = queries.shape
    if head_dim % 2:
        raise ValueError(f"queries must have an even head_dim, got {head_dim}")
    require(keys, "keys", (tokens, None, head_dim), (queries.dtype,))
    require(rope.cosines, "cosines", (None, head_dim // 2), (torch.float32,))
    require(rope.sines, "sines", tuple(rope.cosines.shape), (torch.float32,))
    require(positions, "positions", (tokens,), (torch.int32,))
    require_contiguous(rope.cosines, "cosines")
    require_contiguous(rope.sines, "sines")
    key_heads = keys.shape[1]
    blocks = triton.cdiv(query_heads, BLOCK_HEADS) + triton.cdiv(key_heads, BLOCK_HEADS)
    _apply_rope_kernel[(tokens, blocks)](
        queries,
        keys,
        *rope,
        positions,
        queries.stride(0),
        queries.stride(1),
        keys.stride(0),
        keys.stride(1),
        query_heads,
        key_heads,
        head_dim // 2,
        BLOCK_HEADS=BLOCK_HEADS,
        BLOCK=triton.next_power_of_2(head_dim // 2),
        num_warps=2,
    )
