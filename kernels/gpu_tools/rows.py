"""Rows of a tensor picked by number, as kernels read pages: lean, since small kernels wait for their instructions."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(ptr, rows, ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of ROW numbers each, [rows, BLOCK], filled up with zeros.

    Args:
        ptr: of the first row.
        rows: int32 [rows]; all of them must be there, since a mask takes more instructions than the load.
    """
    places = tl.arange(0, BLOCK)
    # So written, an address takes one multiply-add, beyond 2**31 numbers too.
    addresses = (ptr + places)[None, :] + rows.to(tl.int64)[:, None] * ROW
    if ROW == BLOCK:
        return tl.load(addresses)
    else:
        return tl.load(addresses, (places < ROW)[None, :], 0.0)
