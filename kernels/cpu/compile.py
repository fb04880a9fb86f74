"""How this package compiles its loops with Numba.

Compiled code is cached beside the sources (or in NUMBA_CACHE_DIR), so only the first run waits. Loops run on the
calling thread: two pools that spin on the same cores, torch's and Numba's, slow each other down far more than a second
thread would gain.
"""

from __future__ import annotations

from functools import partial

import torch
from numba import njit

from kernels.reference import KvScales

# Sums may be reordered and fused so that they vectorise; infinities and NaN keep their meaning (padding, bad pages).
compiled = partial(njit, cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"})


def require_float32(**tensors: torch.Tensor) -> None:
    """Raises ValueError naming the first tensor that is not a float32 CPU tensor with a contiguous last dimension."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} must be float32 on the CPU with a contiguous last dimension, got {tensor.dtype} on "
                f"{tensor.device} with strides {tensor.stride()}"
            )


def require_summaries(
    page_summaries: torch.Tensor, summary_scales: torch.Tensor | None, vectors: int
) -> None:
    """Raises ValueError unless the summaries are float32 without scales, or int8 with one for each of the vectors."""
    dtype = torch.float32 if summary_scales is None else torch.int8
    if page_summaries.dtype != dtype or page_summaries.device.type != "cpu" or page_summaries.shape[2] != vectors:
        raise ValueError(
            f"page_summaries must be {dtype} on the CPU with {vectors} vectors a page, got {page_summaries.dtype} on "
            f"{page_summaries.device} of shape {tuple(page_summaries.shape)}"
        )
    if summary_scales is not None:
        require_float32(summary_scales=summary_scales)
        if summary_scales.shape != page_summaries.shape[:3]:
            raise ValueError(
                f"summary_scales must have the shape {tuple(page_summaries.shape[:3])}, got "
                f"{tuple(summary_scales.shape)}"
            )


def refuse_kv_scales(kv_scales: KvScales | None) -> None:
    """Raises ValueError if there are scales, which only 8-bit pages have."""
    if kv_scales is not None:
        raise ValueError("8-bit KV pages are for the GPU: kv_scales must be None on the CPU")
