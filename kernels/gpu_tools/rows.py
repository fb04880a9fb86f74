"""Rows of a tensor by index, as kernels read pages; in few instructions, since small kernels are bound by these."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(ptr, rows, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of ROW elements each, [rows, BLOCK], padded with zeros.

    Args:
        ptr: of the first row.
        rows: int32 [rows]; all of them must exist, since a mask takes more instructions than the load.
    """
    elements = tl.arange(0, BLOCK)
    # Written like this an address takes one multiply-add, even beyond 2**31 elements.
    addresses = (ptr + elements)[None, :] + rows.to(tl.int64)[:, None] * ROW
    if ROW == BLOCK:
        return tl.load(addresses)
    else:
        return tl.load(addresses, (elements < ROW)[None, :], 0.0)
