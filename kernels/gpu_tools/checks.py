"""What launchers check before they hand addresses to a kernel, and what they know of the device."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton

from kernels.contract import CacheLayout, LayerCache, PackedMatrix, SequenceView

FLOATING = (torch.float16, torch.bfloat16, torch.float32)
MOST_VECTORS = 2**31 - 1
# Rows for the query heads of a kv head: tl.dot takes no fewer, and padding a smaller group to them costs nothing.
MOST_GROUP = 16
# Tokens that the operators of a decode step take at once, at most: of one that verifies drafts. Up to so many rows,
# reading packed weights again for each row costs less than writing and reading a 16-bit copy.
FEW_ROWS = 8


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
    _require_gpu(tensor, name)


def _require_gpu(tensor: torch.Tensor, name: str) -> None:
    # Triton's interpreter, with which the tests run where there is no GPU, takes CPU tensors.
    if tensor.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ValueError(f"{name} must be on a CUDA GPU, got {tensor.device}")


def require_contiguous(tensor: torch.Tensor, name: str) -> None:
    """Raise ValueError unless `tensor` is contiguous."""
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")


def require_few_rows(tensor: torch.Tensor, name: str) -> int:
    """Raise ValueError unless the first dimension of `tensor` is from 1 to FEW_ROWS; returns it."""
    rows = tensor.shape[0]
    if not 1 <= rows <= FEW_ROWS:
        raise ValueError(f"{name} must have from 1 to {FEW_ROWS} rows, got {rows}")
    return rows


def require_cache(cache: LayerCache) -> None:
    """Raise ValueError unless the tensors of one layer are as its layout says, contiguous and on one GPU."""
    device = cache.key_pages.device
    expected = _expected_tensors(cache.layout, cache.key_pages.shape[0])
    for tensor, (name, shape, dtype) in zip(cache[1:], expected, strict=True):
        if tensor is None or shape is None:
            if tensor is not shape:
                raise ValueError(f"{name} must {'not ' if shape is None else ''}be given for {cache.layout}")
        # One expression, since this runs in every layer of every step.
        elif not (
            tensor.shape == shape and tensor.dtype == dtype and tensor.device == device and tensor.is_contiguous()
        ):
            require(tensor, name, shape, (dtype,))
            require_contiguous(tensor, name)
            raise ValueError(f"{name} must be on {device} as key_pages are, got {tensor.device}")
    _require_gpu(cache.key_pages, "key_pages")


@lru_cache
def _expected_tensors(
    layout: CacheLayout, pages: int
) -> tuple[tuple[str, tuple[int, ...] | None, torch.dtype | None], ...]:
    """Name, shape and dtype of each tensor of a `LayerCache`, in its order; None for those it does not have."""
    if not layout.is_float8 and layout.dtype not in FLOATING:
        raise ValueError(f"key_pages must be float8_e4m3fn or one of {FLOATING}, got {layout.dtype}")
    if not layout.has_int8_summaries and layout.summary_dtype not in FLOATING:
        raise ValueError(f"summaries must be int8 or one of {FLOATING}, got {layout.summary_dtype}")
    # The attention kernel takes whole pages in blocks of a power of two tokens.
    if layout.page_size < 1 or layout.page_size & (layout.page_size - 1):
        raise ValueError(f"page_size must be a power of two, got {layout.page_size}")
    # Vectors have 32-bit indices; their addresses are 64-bit.
    vectors = pages * layout.kv_heads * layout.page_size
    if vectors > MOST_VECTORS:
        raise ValueError(f"key_pages must hold no more than {MOST_VECTORS} vectors, got {vectors}")
    specs = layout.specs(pages)
    return tuple((name, *specs.get(name, (None, None))) for name in LayerCache._fields[1:])


def require_sequence(sequence: SequenceView) -> None:
    """Raise ValueError unless page table and length are int32 and on a GPU."""
    require(sequence.page_table, "page_table", (None,), (torch.int32,))
    require(sequence.length_tokens, "length_tokens", (1,), (torch.int32,))


def require_query(query: torch.Tensor, layout: CacheLayout) -> int:
    """Raise ValueError unless a query, [query_heads, head_dim], fits a cache; returns the query heads of a group."""
    require(query, "query", (None, layout.head_dim), FLOATING if layout.is_float8 else (layout.dtype,))
    group, rest = divmod(query.shape[0], layout.kv_heads)
    if rest or group > MOST_GROUP:
        raise ValueError(
            f"{query.shape[0]} query heads do not share {layout.kv_heads} kv heads in groups of up to {MOST_GROUP}"
        )
    return group


def require_quantized(matrix: PackedMatrix, in_channels: int) -> int:
    """Check a quantised matrix; returns how many runs of 16 bytes make up a group."""
    packed, scales, minimums, bits = matrix
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
    """How much shared memory of `device` one program may have; plenty where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin if device.type == "cuda" else 1 << 20
