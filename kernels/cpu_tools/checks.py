"""What the operators check before compiled code reads memory that might not exist."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache

PAGE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def require_float32(**tensors: torch.Tensor) -> None:
    """Raises ValueError naming the first tensor that is not a float32 CPU tensor with a contiguous last dimension."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} must be float32 on the CPU with a contiguous last dimension, got {tensor.dtype} on "
                f"{tensor.device} with strides {tensor.stride()}"
            )


def require_query(query: torch.Tensor) -> None:
    """Raises ValueError unless the query is on the CPU in a dtype of pages."""
    if query.dtype not in PAGE_DTYPES or query.device.type != "cpu":
        raise ValueError(f"query must be on the CPU, of {PAGE_DTYPES}, got {query.dtype} on {query.device}")


def require_pages(cache: LayerCache) -> None:
    """Raises ValueError unless a cache's keys and values, of one layer or of all, are floating and contiguous here."""
    layout = cache.layout
    if layout.is_float8:
        raise ValueError("8-bit KV pages are for the GPU: key_pages and value_pages must be floating on the CPU")
    if layout.dtype not in PAGE_DTYPES:
        raise ValueError(f"key_pages must be of {PAGE_DTYPES}, got {layout.dtype}")
    _require(cache, "key_pages", "value_pages", "key_scales", "value_scales")


def require_cache(cache: LayerCache) -> None:
    """Raises ValueError unless a cache, of one layer or of all, is as its layout says and as the loops read it.

    They read floating pages, and floating or int8 summaries, contiguous on the CPU.
    """
    require_pages(cache)
    layout = cache.layout
    if layout.summary_dtype not in (*PAGE_DTYPES, torch.int8):
        raise ValueError(f"summaries must be of {PAGE_DTYPES} or int8, got {layout.summary_dtype}")
    _require(cache, "summaries", "summary_scales")


def _require(cache: LayerCache, *names: str) -> None:
    """Raises ValueError unless these tensors are there, contiguous on the CPU, as the layout says."""
    layers, specs = cache.key_pages.shape[:-4], cache.layout.specs(cache.key_pages.shape[-4])
    for name in names:
        tensor, spec = getattr(cache, name), specs.get(name)
        if spec is None or tensor is None:
            if spec is not tensor:
                raise ValueError(f"{name} must be there if and only if the layout has it")
            continue
        if tensor.dtype != spec.dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous on the CPU, of {spec.dtype}, got {tensor.dtype} on {tensor.device} with "
                f"strides {tensor.stride()}"
            )
        if tensor.shape != (*layers, *spec.shape):
            raise ValueError(f"{name} must have the shape {(*layers, *spec.shape)}, got {tuple(tensor.shape)}")
