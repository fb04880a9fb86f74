"""Join the attention of the same queries over two sets of keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.contract import PartialAttention
from kernels.gpu_tools.checks import FLOATING, require, require_contiguous

BLOCK_TOKENS = 16


@triton.jit
def _merge_attention_kernel(
    attended_ptr,
    log_sum_ptr,
    other_ptr,
    other_log_sum_ptr,
    merged_ptr,
    merged_log_sum_ptr,
    token_stride,
    head_stride,
    other_token_stride,
    other_head_stride,
    tokens,
    heads,
    head_dim,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """One program joins BLOCK_TOKENS tokens of one head; programs of a token's heads run side by side, as these lie."""
    head = tl.program_id(0) % heads
    token = (tl.program_id(0) // heads).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    present = token < tokens
    inside = present[:, None] & (channels < head_dim)
    # int64, since a million tokens of 32 heads of 128 channels are 2**32 elements.
    index = head.to(tl.int64) * tokens + token
    log_sum = tl.load(log_sum_ptr + index, present, 0.0)
    other_log_sum = tl.load(other_log_sum_ptr + index, present, 0.0)
    rows = token[:, None]
    attended = tl.load(attended_ptr + rows * token_stride + head * head_stride + channels, inside, 0.0)
    other = tl.load(other_ptr + rows * other_token_stride + head * other_head_stride + channels, inside, 0.0)
    largest = tl.maximum(log_sum, other_log_sum)
    weight, other_weight = tl.exp(log_sum - largest), tl.exp(other_log_sum - largest)
    total = weight + other_weight
    merged = attended.to(tl.float32) * (weight / total)[:, None]
    merged += other.to(tl.float32) * (other_weight / total)[:, None]
    tl.store(merged_ptr + (rows * heads + head) * head_dim + channels, merged.to(merged_ptr.dtype.element_ty), inside)
    tl.store(merged_log_sum_ptr + index, largest + tl.log(total), present)


def merge_attention(
    part: PartialAttention,
    other: PartialAttention,
    dtype: torch.dtype,
    out: PartialAttention | None = None,
) -> PartialAttention:
    """As `kernels.reference.naive_merge_attention`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape, dtype and layout.
    """
    require(part.attended, "part.attended", (None, None, None), FLOATING)
    tokens, heads, head_dim = part.attended.shape
    require(other.attended, "other.attended", (tokens, heads, head_dim), FLOATING)
    if dtype not in FLOATING:
        raise ValueError(f"dtype must be one of {FLOATING}, got {dtype}")
    if out is None:
        attended = torch.empty(part.attended.shape, dtype=dtype, device=part.attended.device)
        out = PartialAttention(attended, torch.empty_like(part.log_sums))
    require(out.attended, "out.attended", (tokens, heads, head_dim), (dtype,))
    require_contiguous(out.attended, "out.attended")
    for name, each in (("part", part), ("other", other), ("out", out)):
        require(each.log_sums, f"{name}.log_sums", (heads, tokens), (torch.float32,))
        require_contiguous(each.log_sums, f"{name}.log_sums")
    _merge_attention_kernel[(heads * triton.cdiv(tokens, BLOCK_TOKENS),)](
        *part,
        *other,
        *out,
        *part.attended.stride()[:2],
        *other.attended.stride()[:2],
        tokens,
        heads,
        head_dim,
        BLOCK_TOKENS=BLOCK_TOKENS,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
    return out
