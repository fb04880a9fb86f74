"""Root mean square norm, with the residual sum before it fused in."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu_tools.checks import FLOATING, require, require_contiguous


@triton.jit
def _rms_norm_kernel(
    hidden_ptr,
    residual_ptr,
    weight_ptr,
    normed_ptr,
    width,
    epsilon,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program a row: add, store the sum, norm it in float32, scale."""
    row = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    hidden = tl.load(hidden_ptr + row + columns, inside, 0.0)
    if HAS_RESIDUAL:
        # The sum is rounded before it is normed, so that it equals the residual that the next layer adds to.
        residual = tl.load(residual_ptr + row + columns, inside, 0.0)
        hidden = (hidden.to(tl.float32) + residual.to(tl.float32)).to(hidden.dtype)
        tl.store(residual_ptr + row + columns, hidden, inside)
    wide = hidden.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
    weight = tl.load(weight_ptr + columns, inside, 0.0).to(tl.float32)
    tl.store(normed_ptr + row + columns, (wide * scale * weight).to(hidden.dtype), inside)


def rms_norm(
    hidden: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """As `kernels.reference.naive_rms_norm`.

    Raises:
        ValueError: if a tensor is not contiguous, on a GPU, or of a matching shape and dtype.
    """
    require(hidden, "hidden", (None,) * hidden.dim(), FLOATING)
    require(weight, "weight", (hidden.shape[-1],), FLOATING)
    require_contiguous(hidden, "hidden")
    if residual is not None:
        require(residual, "residual", tuple(hidden.shape), (hidden.dtype,))
        require_contiguous(residual, "residual")
    normed = torch.empty_like(hidden)
    width = hidden.shape[-1]
    block = triton.next_power_of_2(width)
    _rms_norm_kernel[(hidden.numel() // width,)](
        hidden,
        residual if residual is not None else hidden,
        weight,
        normed,
        width,
        epsilon,
        HAS_RESIDUAL=residual is not None,
        BLOCK=block,
        num_warps=min(max(block // 256, 1), 16),
    )
    return normed
