"""Norm and rotate one token's queries and keys, and write its key, value and page summary, in one launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.append.gpu_summaries import store_summary, summarise_keys
from kernels.contract import HeadNorms, LayerCache, RopeTables, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, Summaries, page_pointers, summary_pointers
from kernels.gpu_tools.checks import FLOATING, require, require_cache, require_contiguous, require_sequence
from kernels.gpu_tools.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu_tools.float8 import load_vectors, store_vectors

# Elements of the page that is summarised: 64 registers of a thread.
KEY_ELEMENTS_PER_WARP = 2048


class Rotation(NamedTuple):
    """Cosines and sines of one position, float32 [BLOCK_DIM]."""

    cosine: tl.tensor
    sine: tl.tensor


@triton.jit
def _norm_and_rotate(
    vector_ptr, norm_ptr, epsilon, rotation, HEAD_DIM: tl.constexpr, HAS_NORM: tl.constexpr
):
    """One head's vector, float32 [BLOCK_DIM]: normed if the model norms it, and rotated."""
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(HEAD_DIM)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < HEAD_DIM
    half = HEAD_DIM // 2
    # The channel with which each channel is rotated.
    partner = tl.where(channels < half, channels + half, channels - half)
    own = tl.load(vector_ptr + channels, inside, 0.0).to(tl.float32)
    other = tl.load(vector_ptr + partner, inside, 0.0).to(tl.float32)
    if HAS_NORM:
        norm = tl.rsqrt(tl.sum(own * own, 0) / HEAD_DIM + epsilon)
        own *= norm * tl.load(norm_ptr + channels, inside, 0.0).to(tl.float32)
        other *= norm * tl.load(norm_ptr + partner, inside, 0.0).to(tl.float32)
    return own * rotation.cosine + tl.where(channels < half, -other, other) * rotation.sine


@triton.jit
def _rotate_and_append_kernel(
    projected_ptr,
    query_norm_ptr,
    key_norm_ptr,
    epsilon,
    cosine_ptr,
    sine_ptr,
    query_ptr,
    key_page_ptr,
    value_page_ptr,
    key_scale_ptr,
    value_scale_ptr,
    summary_ptr,
    summary_scale_ptr,
    page_table_ptr,
    length_ptr,
    query_heads,
    LAYOUT: tl.constexpr,
    HAS_NORM: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program a head; those of the kv heads come after those of the queries, and fill their page."""
    HEAD_DIM: tl.constexpr = LAYOUT.head_dim
    HALF: tl.constexpr = HEAD_DIM // 2
    PAGE_SIZE: tl.constexpr = LAYOUT.page_size
    VECTORS: tl.constexpr = LAYOUT.summary.vectors
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(HEAD_DIM)
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    summaries = Summaries(summary_ptr, summary_scale_ptr, page_table_ptr)
    head = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < HEAD_DIM
    position = tl.load(length_ptr) - 1
    angle = position.to(tl.int64) * HALF + channels % HALF
    rotation = Rotation(tl.load(cosine_ptr + angle, inside, 0.0), tl.load(sine_ptr + angle, inside, 0.0))
    own_ptr = projected_ptr + head * HEAD_DIM
    if head < query_heads:
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        query = _norm_and_rotate(own_ptr, query_norm_ptr, epsilon, rotation, HEAD_DIM, HAS_NORM)
        tl.store(query_ptr + head * HEAD_DIM + channels, query.to(query_ptr.dtype.element_ty), inside)
    else:
        logical, slot = position // PAGE_SIZE, position % PAGE_SIZE
        page = tl.load(pages.table_ptr + logical).to(tl.int64)
        page_of_head = page * LAYOUT.kv_heads + head - query_heads
        # One row, as `load_vectors` and `store_vectors` take it.
        row, columns = tl.arange(0, 1)[:, None], channels[None, :]
        index = page_of_head * PAGE_SIZE + slot + row
        slots = tl.arange(0, PAGE_SIZE)[:, None]
        indices = page_of_head * PAGE_SIZE + slots
        old_keys = load_vectors(pages.key_ptr, pages.key_scale_ptr, indices, slots < slot, columns, LAYOUT)
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        value = tl.load(own_ptr + LAYOUT.kv_heads * HEAD_DIM + channels, inside, 0.0).to(tl.float32)
        key = _norm_and_rotate(own_ptr, key_norm_ptr, epsilon, rotation, HEAD_DIM, HAS_NORM)
        store_vectors(pages.value_ptr, pages.value_scale_ptr, value[None, :], index, row == 0, columns, LAYOUT)
        key = store_vectors(pages.key_ptr, pages.key_scale_ptr, key[None, :], index, row == 0, columns, LAYOUT)
        page_keys = tl.where(slots == slot, key, old_keys)
        for vector in tl.static_range(VECTORS):
            summary = summarise_keys(page_keys, (slots <= slot) & inside[None, :], slot + 1, vector, LAYOUT)
            store_summary(summary, summaries, page_of_head * VECTORS + vector, vector, LAYOUT)


def rotate_and_append(
    projected: torch.Tensor,
    norms: HeadNorms | None,
    rope: RopeTables,
    cache: LayerCache,
    sequence: SequenceView,
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`.

    All but `projected` is read early: no output of the kernel launched before this one (`dependent_launch`).

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype.
    """
    layout = cache.layout
    head_dim, kv_heads = layout.head_dim, layout.kv_heads
    require_cache(cache)
    require_sequence(sequence)
    require(projected, "projected", (1, None), FLOATING)
    heads, rest = divmod(projected.shape[1], head_dim)
    if rest or heads <= 2 * kv_heads or head_dim % 2:
        raise ValueError(f"projected does not hold heads of {head_dim} beside {kv_heads} kv heads: {projected.shape}")
    for table, name in zip(rope, RopeTables._fields, strict=True):
        require(table, name, (None, head_dim // 2), (torch.float32,))
        require_contiguous(table, name)
    if norms is not None:
        require(norms.query, "norms.query", (head_dim,), FLOATING)
        require(norms.key, "norms.key", (head_dim,), FLOATING)
    query_heads = heads - 2 * kv_heads
    dtype = projected.dtype if layout.is_float8 else layout.dtype
    queries = torch.empty((query_heads, head_dim), dtype=dtype, device=projected.device)
    dependent = launches_dependently(projected.device)
    _rotate_and_append_kernel[(query_heads + kv_heads,)](
        projected,
        *(norms or (projected, projected, 0.0)),
        *rope,
        queries,
        *page_pointers(cache),
        *summary_pointers(cache),
        *sequence,
        query_heads,
        LAYOUT=layout,
        HAS_NORM=norms is not None,
        DEPENDENT=dependent,
        num_warps=min(max(layout.page_size * head_dim // KEY_ELEMENTS_PER_WARP, 1), 8),
        launch_pdl=dependent,
    )
    return queries
