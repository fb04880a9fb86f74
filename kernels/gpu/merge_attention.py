"""Join the attention of the same queries over two sets of keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous

BLOCK_TOKENS = 16


@triton.jit
def _merge_attention_kernel(
    attended_ptr, log_sum_ptr, other_ptr, other_log_sum_ptr, merged_ptr, merged_log_sum_ptr,
    token_stride, head_stride, other_token_stride, other_head_stride, tokens, heads, head_dim,
    BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One program joins BLOCK_TOKENS tokens of one head; the heads of a token, which lie side by side, run so."""
    head = tl.program_id(0) % heads
    token = (tl.program_id(0) // heads).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    channels = tl.arange(0, BLOCK_DIM)[None, :]
    present = token < tokens
    inside = present[:, None] & (channels < head_dim)
    # int64, as a million tokens of 32 heads of 128 channels are 2**32 elements.
    place = head.to(tl.int64) * tokens + token
    log_sum = tl.load(log_sum_ptr + place, present, 0.0)
    other_log_sum = tl.load(other_log_sum_ptr + place, present, 0.0)
    rows = token[:, None]
    attended = tl.load(attended_ptr + rows * token_stride + head * head_stride + channels, inside, 0.0)
    other = tl.load(other_ptr + rows * other_token_stride + head * other_head_stride + channels, inside, 0.0)
    largest = tl.maximum(log_sum, other_log_sum)
    weight, other_weight = tl.exp(log_sum - largest), tl.exp(other_log_sum - largest)
    total = weight + other_weight
    merged = attended.to(tl.float32) * (weight / total)[:, None]
    merged += other.to(tl.float32) * (other_weight / total)[:, None]
    tl.store(merged_ptr + (rows * heads + head) * head_dim + channels, merged.to(merged_ptr.dtype.element_ty), inside)
    tl.store(merged_log_sum_ptr + place, largest + tl.log(total), present)


def merge_attention(
    attended: torch.Tensor,
    log_sums: torch.Tensor,
    other_attended: torch.Tensor,
    other_log_sums: torch.Tensor,
    dtype: torch.dtype,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `kernels.reference.naive_merge_attention`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape, dtype and layout.
    """
    require(attended, "attended", (None, None, None), FLOATING)
    tokens, heads, head_dim = attended.shape
    require(other_attended, "other_attended", (tokens, heads, head_dim), FLOATING)
    for sums, name in ((log_sums, "log_sums"), (other_log_sums, "other_log_sums")):
        require(sums, name, (heads, tokens), (torch.float32,))
        require_contiguous(sums, name)
    if dtype not in FLOATING:
        raise ValueError(f"dtype must be one of {FLOATING}, got {dtype}")
    if out is None:
        out = (torch.empty(attended.shape, dtype=dtype, device=attended.device), torch.empty_like(log_sums))
    merged, merged_log_sums = out
    require(merged, "out[0]", attended.shape, (dtype,))
    require(merged_log_sums, "out[1]", log_sums.shape, (torch.float32,))
    for tensor, name in ((merged, "out[0]"), (merged_log_sums, "out[1]")):
        require_contiguous(tensor, name)
    _merge_attention_kernel[(heads * triton.cdiv(tokens, BLOCK_TOKENS),)](
        attended,
        log_sums,
        other_attended,
        other_log_sums,
        merged,
        merged_log_sums,
        attended.stride(0),
        attended.stride(1),
        other_attended.stride(0),
        other_attended.stride(1),
        tokens,
        heads,
        head_dim,
        BLOCK_TOKENS=BLOCK_TOKENS,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
    return merged, merged_log_sums
