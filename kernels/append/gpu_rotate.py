"""Norm and rotate the queries and keys of a few tokens, and write keys, values and page summaries, in one launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.append.gpu_summaries import store_summary, summarise_keys
from kernels.contract import HeadNorms, LayerCache, RopeTables, SequenceView
from kernels.gpu_tools.cache_pointers import Pages, Summaries, page_pointers, summary_pointers
from kernels.gpu_tools.checks import (
    FLOATING,
    require,
    require_cache,
    require_contiguous,
    require_few_rows,
    require_sequence,
)
from kernels.gpu_tools.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu_tools.float8 import load_vectors, store_vectors

# Elements of the page that is summarised: 64 registers of a thread.
KEY_ELEMENTS_PER_WARP = 2048


class Rotation(NamedTuple):
    """Cosines and sines of one position, float32 [BLOCK_DIM]."""

    cosine: tl.tensor
    sine: tl.tensor


@triton.jit
def _load_rotation(cosine_ptr, sine_ptr, position, channels, HEAD_DIM: tl.constexpr):
    """The `Rotation` of a position."""
    HALF: tl.constexpr = HEAD_DIM // 2
    inside = channels < HEAD_DIM
    angle = position.to(tl.int64) * HALF + channels % HALF
    return Rotation(tl.load(cosine_ptr + angle, inside, 0.0), tl.load(sine_ptr + angle, inside, 0.0))


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
    ROWS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One program for each query head of a row, and after these one for each page of a kv head, which it fills.

    There are as many of these as pages that the rows may fall into. If they fall into fewer, the last page is written
    more than once, by programs that read nothing of each other's and write the same.
    """
    HEAD_DIM: tl.constexpr = LAYOUT.head_dim
    PAGE_SIZE: tl.constexpr = LAYOUT.page_size
    VECTORS: tl.constexpr = LAYOUT.summary.vectors
    # Of a page, at most.
    NEW_TOKENS: tl.constexpr = ROWS if ROWS < PAGE_SIZE else PAGE_SIZE
    BLOCK_DIM: tl.constexpr = triton.next_power_of_2(HEAD_DIM)
    pages = Pages(key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr)
    summaries = Summaries(summary_ptr, summary_scale_ptr, page_table_ptr)
    program = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < HEAD_DIM
    first_position = tl.load(length_ptr) - ROWS
    row_stride = (query_heads + 2 * LAYOUT.kv_heads) * HEAD_DIM
    # Of the first row; a single one's is loaded before anything else.
    rotation = _load_rotation(cosine_ptr, sine_ptr, first_position, channels, HEAD_DIM)
    if program < query_heads * ROWS:
        row = program // query_heads if ROWS > 1 else 0
        if ROWS > 1:
            rotation = _load_rotation(cosine_ptr, sine_ptr, first_position + row, channels, HEAD_DIM)
        own_ptr = projected_ptr + row * row_stride + (program - row * query_heads) * HEAD_DIM
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        query = _norm_and_rotate(own_ptr, query_norm_ptr, epsilon, rotation, HEAD_DIM, HAS_NORM)
        tl.store(query_ptr + program * HEAD_DIM + channels, query.to(query_ptr.dtype.element_ty), inside)
    else:
        program -= query_heads * ROWS
        head = program % LAYOUT.kv_heads if ROWS > 1 else program
        last_position = first_position + ROWS - 1
        logical = first_position // PAGE_SIZE
        if ROWS > 1:
            logical = tl.minimum(logical + program // LAYOUT.kv_heads, last_position // PAGE_SIZE)
        # Slots of this page that the rows fall into, and the row of the first of them.
        first_slot = tl.maximum(first_position - logical * PAGE_SIZE, 0) if ROWS > 1 else first_position % PAGE_SIZE
        last_slot = tl.minimum(last_position - logical * PAGE_SIZE, PAGE_SIZE - 1) if ROWS > 1 else first_slot
        first_row = logical * PAGE_SIZE + first_slot - first_position if ROWS > 1 else 0
        page = tl.load(pages.table_ptr + logical).to(tl.int64)
        page_of_head = page * LAYOUT.kv_heads + head
        # One row, as `load_vectors` and `store_vectors` take it.
        one, columns = tl.arange(0, 1)[:, None], channels[None, :]
        slots = tl.arange(0, PAGE_SIZE)[:, None]
        indices = page_of_head * PAGE_SIZE + slots
        page_keys = load_vectors(pages.key_ptr, pages.key_scale_ptr, indices, slots < first_slot, columns, LAYOUT)
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        for more in tl.static_range(NEW_TOKENS):
            slot = first_slot + more
            written = (one == 0) & (slot <= last_slot) if ROWS > 1 else one == 0
            # A row that the page has no slot for is not written, but must exist.
            row = tl.minimum(first_row + more, ROWS - 1) if ROWS > 1 else 0
            if ROWS > 1:
                rotation = _load_rotation(cosine_ptr, sine_ptr, first_position + row, channels, HEAD_DIM)
            own_ptr = projected_ptr + row * row_stride + (query_heads + head) * HEAD_DIM
            index = page_of_head * PAGE_SIZE + slot + one
            value = tl.load(own_ptr + LAYOUT.kv_heads * HEAD_DIM + channels, inside, 0.0).to(tl.float32)
            key = _norm_and_rotate(own_ptr, key_norm_ptr, epsilon, rotation, HEAD_DIM, HAS_NORM)
            store_vectors(pages.value_ptr, pages.value_scale_ptr, value[None, :], index, written, columns, LAYOUT)
            key = store_vectors(pages.key_ptr, pages.key_scale_ptr, key[None, :], index, written, columns, LAYOUT)
            page_keys = tl.where(slots == slot, key, page_keys)
        for vector in tl.static_range(VECTORS):
            filled = (slots <= last_slot) & inside[None, :]
            summary = summarise_keys(page_keys, filled, last_slot + 1, vector, LAYOUT)
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
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for more than FEW_ROWS rows.
    """
    layout = cache.layout
    head_dim, kv_heads = layout.head_dim, layout.kv_heads
    require_cache(cache)
    require_sequence(sequence)
    require(projected, "projected", (None, None), FLOATING)
    require_contiguous(projected, "projected")
    rows = require_few_rows(projected, "projected")
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
    queries = torch.empty((rows, query_heads, head_dim), dtype=dtype, device=projected.device)
    dependent = launches_dependently(projected.device)
    # As many as so many tokens touch where the first of them is the last of its page.
    pages = 1 + triton.cdiv(rows - 1, layout.page_size)
    _rotate_and_append_kernel[(rows * query_heads + pages * kv_heads,)](
        projected,
        *(norms or (projected, projected, 0.0)),
        *rope,
        queries,
        *page_pointers(cache),
        *summary_pointers(cache),
        *sequence,
        query_heads,
        LAYOUT=layout,
        ROWS=rows,
        HAS_NORM=norms is not None,
        DEPENDENT=dependent,
        num_warps=min(max(layout.page_size * head_dim // KEY_ELEMENTS_PER_WARP, 1), 8),
        launch_pdl=dependent,
    )
    return queries
