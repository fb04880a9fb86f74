"""`silu(gate) * up` over the fused gate and up projection."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu_tools.checks import FLOATING, require, require_contiguous

BLOCK = 1024


@triton.jit
def _swiglu_kernel(gate_up_ptr, product_ptr, width, BLOCK: tl.constexpr):
    """One program multiplies BLOCK channels of one token."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up_ptr + token * 2 * width + columns, inside, 0.0)
    up = tl.load(gate_up_ptr + token * 2 * width + width + columns, inside, 0.0).to(tl.float32)
    wide = gate.to(tl.float32)
    product = wide / (1.0 + tl.exp(-wide)) * up
    tl.store(product_ptr + token * width + columns, product.to(gate.dtype), inside)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """As `kernels.reference.naive_swiglu`.

    Raises:
        ValueError: if the tensor is not contiguous, on a GPU, and of even width.
    """
    require(gate_up, "gate_up", (None, None), FLOATING)
    require_contiguous(gate_up, "gate_up")
    tokens, double = gate_up.shape
    if double % 2:
        raise ValueError(f"gate_up must have an even width, got {double}")
    product = torch.empty((tokens, double // 2), dtype=gate_up.dtype, device=gate_up.device)
    _swiglu_kernel[(tokens, triton.cdiv(double // 2, BLOCK))](gate_up, product, double // 2, BLOCK=BLOCK)
    return product
