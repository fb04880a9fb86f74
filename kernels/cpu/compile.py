"""How this package compiles its loops with Numba.

Compiled code is cached beside the sources (or in NUMBA_CACHE_DIR), so only the first run waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from kernels.cpu.shared_cache import share_cache
from kernels.reference import KvScales

_SOURCES = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
_STAMP = max(source.st_mtime for source in _SOURCES), sum(source.st_size for source in _SOURCES)


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile `function` when it is first called, or take it from the disk.

    Without fast math: the compiler would add up in an order of its own, another on each processor, and a slower one
    than that of `vectors`.
    """
    dispatcher = njit(cache=True, nogil=True, no_cfunc_wrapper=True, **options)(function)
    # Numba looks at the function's own file alone; what it calls from another would be taken stale after an update.
    dispatcher._cache._cache_file._source_stamp = _STAMP
    share_cache(dispatcher)
    return dispatcher


# Products and sums may be fused: for long polynomials.
compiled_fused = partial(compiled, fastmath={"contract"})


def require_float32(**tensors: torch.Tensor) -> None:
    """Raises ValueError naming the first tensor that is not a float32 CPU tensor with a contiguous last dimension."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} must be float32 on the CPU with a contiguous last dimension, got {tensor.dtype} on "
                f"{tensor.device} with strides {tensor.stride()}"
            )


PAGE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def require_pages(**stores: torch.Tensor) -> None:
    """Raises ValueError naming the first store that is not contiguous on the CPU in a floating dtype."""
    for name, store in stores.items():
        if store.dtype not in PAGE_DTYPES or store.device.type != "cpu" or not store.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous on the CPU, of {PAGE_DTYPES}, got {store.dtype} on {store.device} with "
                f"strides {store.stride()}"
            )


def require_query(query: torch.Tensor) -> None:
    """Raises ValueError unless the query is on the CPU in a dtype of pages."""
    if query.dtype not in PAGE_DTYPES or query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, of {PAGE_DTYPES}, got {query.dtype} on {query.device}")


def as_array(store: torch.Tensor) -> np.ndarray:
    """The same memory for compiled code, which takes the bits of 16-bit floats as `vectors.KINDS` says."""
    bits = {torch.float16: torch.int16, torch.bfloat16: torch.uint16}.get(store.dtype)
    return (store if bits is None else store.view(bits)).numpy()


def scales_array(summary_scales: torch.Tensor | None) -> np.ndarray:
    """As NumPy has them; an empty array for none, so that there is one version of the code."""
    return np.empty((0, 0, 0), np.float32) if summary_scales is None else summary_scales.numpy()


def require_summaries(
    page_summaries: torch.Tensor, summary_scales: torch.Tensor | None, vectors: int
) -> None:
    """Raises ValueError unless the summaries are floating without scales, or int8 with one for each of the vectors."""
    dtypes = PAGE_DTYPES if summary_scales is None else (torch.int8,)
    if page_summaries.dtype not in dtypes or page_summaries.device.type != "cpu" or page_summaries.shape[2] != vectors:
        raise ValueError(
            f"page_summaries must be one of {dtypes} on the CPU with {vectors} vectors a page, got "
            f"{page_summaries.dtype} on {page_summaries.device} of shape {tuple(page_summaries.shape)}"
        )
    if not page_summaries.is_contiguous():
        raise ValueError(f"page_summaries must be contiguous, got strides {page_summaries.stride()}")
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
