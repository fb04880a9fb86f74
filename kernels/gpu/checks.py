"""What launchers check before they hand addresses to a kernel, and what they know of the device."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton

from kernels.reference import FLOAT8, KvScales

FLOATING = (torch.float16, torch.bfloat16, torch.float32)
MOST_VECTORS = 2**31 - 1


def require(tensor: torch.Tensor, name: str, shape: tuple[int | None, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise ValueError unless `tensor` is contiguous in its last dimension and of this shape, dtype and a GPU.

    Args:
        shape: expected sizes; None allows any.
        dtypes: allowed.
    """
    if tensor.dtype not in dtypes:
        raise ValueError(f"{name} must be one of {dtypes}, got {tensor.dtype}")
    if tensor.dim() != len(shape) or any(
        size is not None and size != actual for size, actual in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} must be contiguous in its last dimension, got strides {tensor.stride()}")
    # Triton's interpreter, with which the tests run where there is no GPU, takes CPU tensors.
    if tensor.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ValueError(f"{name} must be on a CUDA GPU, got {tensor.device}")


def require_contiguous(tensor: torch.Tensor, name: str) -> None:
    """Raise ValueError unless all of `tensor` lies in order."""
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")


def require_pages(
    key_pages: torch.Tensor, value_pages: torch.Tensor, page_table: torch.Tensor, kv_scales: KvScales | None = None
) -> tuple[int, int, int]:
    """Check a layer's pages and its table; returns kv_heads, page_size, head_dim.

    Pages are floating without scales, or float8 with a float32 scale for each token and kv head.
    """
    require(key_pages, "key_pages", (None, None, None, None), FLOATING if kv_scales is None else (FLOAT8,))
    require(value_pages, "value_pages", tuple(key_pages.shape), (key_pages.dtype,))
    require(page_table, "page_table", (None,), (torch.int32,))
    require_contiguous(key_pages, "key_pages")
    require_contiguous(value_pages, "value_pages")
    for scales, name in zip(kv_scales or (), ("key_scales", "value_scales"), strict=False):
        require(scales, name, tuple(key_pages.shape[:3]), (torch.float32,))
        require_contiguous(scales, name)
    page_size = key_pages.shape[2]
    # The attention kernel takes whole pages in blocks of a power of two tokens.
    if page_size < 1 or page_size & (page_size - 1):
        raise ValueError(f"page_size must be a power of two, got {page_size}")
    # Vectors are numbered in 32 bits; what they lie at is counted in 64.
    if key_pages.shape[:3].numel() > MOST_VECTORS:
        raise ValueError(f"key_pages must hold no more than {MOST_VECTORS} vectors, got {key_pages.shape[:3].numel()}")
    return key_pages.shape[1], key_pages.shape[2], key_pages.shape[3]


def require_summaries(
    page_summaries: torch.Tensor,
    summary_scales: torch.Tensor | None,
    shape: tuple[int | None, ...],
    dtypes: tuple[torch.dtype, ...],
) -> None:
    """Check summaries: floating without scales, or int8 with a float32 scale for each vector.

    Args:
        shape: of `page_summaries`; None allows any size.
        dtypes: that floating summaries may have.
    """
    require(page_summaries, "page_summaries", shape, dtypes if summary_scales is None else (torch.int8,))
    require_contiguous(page_summaries, "page_summaries")
    if summary_scales is not None:
        require(summary_scales, "summary_scales", tuple(page_summaries.shape[:3]), (torch.float32,))
        require_contiguous(summary_scales, "summary_scales")


def require_quantized(
    packed: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor, bits: int, in_channels: int
) -> int:
    """Check a quantised matrix; returns how many runs of 16 bytes make up a group."""
    if bits not in (4, 8):
        raise ValueError(f"bits must be 4 or 8, got {bits}")
    require(packed, "packed", (None, None), (torch.int32,))
    require(scales, "scales", (packed.shape[0], None), FLOATING)
    require(minimums, "minimums", tuple(scales.shape), FLOATING)
    for tensor, name in ((packed, "packed"), (scales, "scales"), (minimums, "minimums")):
        require_contiguous(tensor, name)
    words, groups = packed.shape[1], scales.shape[1]
    group_words, rest = divmod(words, groups)
    if rest or group_words % 4:
        raise ValueError(f"{words} words of packed do not make {groups} groups of whole runs of 4 words")
    group_size = group_words * 32 // bits
    if groups != triton.cdiv(in_channels, group_size):
        raise ValueError(f"{groups} groups of {group_size} do not hold {in_channels} input channels")
    return group_words // 4


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of `device`; a few where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


@lru_cache
def shared_memory_bytes(device: torch.device) -> int:
    """What one program may have of `device`'s shared memory; plenty where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else 1 << 20
