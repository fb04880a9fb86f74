"""Memory on large pages of the system, where it grants them.

When a step reads a hundred megabytes, a noticeable part of its time goes into address translation for the usual pages
of 4 KiB. NumPy asks for large pages whenever it allocates several megabytes; torch does not. What does not begin with a
cache line takes up one line more for each run of vectors that is read, and loads that meet two lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

ALIGNMENT_BYTES = 64


def empty_on_large_pages(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """As `torch.empty` on the CPU, from the beginning of a cache line on."""
    length_bytes = math.prod(shape) * dtype.itemsize
    memory = torch.from_numpy(np.empty(length_bytes + ALIGNMENT_BYTES, np.uint8))
    start = -memory.data_ptr() % ALIGNMENT_BYTES
    return memory[start : start + length_bytes].view(dtype).view(*shape)


def move_together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of CPU tensors in one piece of memory, in the same order."""
    starts, length_bytes = [], 0
    for tensor in tensors:
        starts.append(length_bytes)
        length_bytes += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    memory = empty_on_large_pages((length_bytes,), torch.uint8)
    copies = []
    for start, tensor in zip(starts, tensors, strict=True):
        copies.append(memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor))
    return copies
