"""Norm and rotate one token's queries and keys, and write its key, value and page summary, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import FLOATING, require, require_contiguous, require_pages, require_summaries
from kernels.gpu.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu.float8 import as_codes, load_vectors, store_vectors
from kernels.gpu.page_summaries import (
    load_earlier_summaries,
    store_summary,
    summarise_keys,
    summarise_superpage,
)
from kernels.reference import KvScales, check_levels, check_summary

# Of the page that is summarised: 64 registers of a thread.
KEY_NUMBERS_PER_WARP = 2048


@triton.jit
def _norm_and_rotate(
    base_ptr, norm_ptr, epsilon, cosine, sine, head_dim,
    HAS_NORM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """One head's vector, float32 [BLOCK_DIM]: normed if the model does so, and rotated."""
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    half = head_dim // 2
    # The channel that this one is rotated with.
    partner = tl.where(channels < half, channels + half, channels - half)
    own = tl.load(base_ptr + channels, inside, 0.0).to(tl.float32)
    other = tl.load(base_ptr + partner, inside, 0.0).to(tl.float32)
    if HAS_NORM:
        norm = tl.rsqrt(tl.sum(own * own, 0) / head_dim + epsilon)
        own *= norm * tl.load(norm_ptr + channels, inside, 0.0).to(tl.float32)
        other *= norm * tl.load(norm_ptr + partner, inside, 0.0).to(tl.float32)
    return own * cosine + tl.where(channels < half, -other, other) * sine


@triton.jit
def _rotate_and_append_kernel(
    projected_ptr, query_norm_ptr, key_norm_ptr, cosine_ptr, sine_ptr, start_ptr, query_ptr,
    key_page_ptr, value_page_ptr, key_scale_ptr, value_scale_ptr, summary_ptr, summary_scale_ptr, page_table_ptr,
    epsilon, query_heads, kv_heads, head_dim,
    HAS_NORM: tl.constexpr, SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, LEVELS: tl.constexpr,
    FLOAT8: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program a head; those of the kv heads come after those of the queries, and fill their page."""
    head = tl.program_id(0)
    channels = tl.arange(0, BLOCK_DIM)
    inside = channels < head_dim
    start = tl.load(start_ptr)
    half = head_dim // 2
    angle = start.to(tl.int64) * half + channels % half
    cosine = tl.load(cosine_ptr + angle, inside, 0.0)
    sine = tl.load(sine_ptr + angle, inside, 0.0)
    own = projected_ptr + head * head_dim
    if head < query_heads:
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        query = _norm_and_rotate(own, query_norm_ptr, epsilon, cosine, sine, head_dim, HAS_NORM, BLOCK_DIM)
        tl.store(query_ptr + head * head_dim + channels, query.to(query_ptr.dtype.element_ty), inside)
    else:
        logical = start // PAGE_SIZE
        page = tl.load(page_table_ptr + logical).to(tl.int64)
        slot = start % PAGE_SIZE
        page_of_head = page * kv_heads + head - query_heads
        # One row, as what reads and writes pages takes it.
        row, columns = tl.arange(0, 1)[:, None], channels[None, :]
        entry = page_of_head * PAGE_SIZE + slot + row
        slots = tl.arange(0, PAGE_SIZE)[:, None]
        entries = page_of_head * PAGE_SIZE + slots
        old_keys = load_vectors(key_page_ptr, key_scale_ptr, entries, slots < slot, columns, head_dim, FLOAT8)
        earlier = ()
        if LEVELS == 2:
            for vector in tl.static_range(VECTORS):
                summaries = load_earlier_summaries(
                    logical, head - query_heads, vector, summary_ptr, summary_scale_ptr, page_table_ptr, kv_heads,
                    head_dim, VECTORS, INT8, BLOCK_DIM,
                )  # fmt: skip
                earlier = earlier + (summaries,)
        wait_for_previous_kernel(DEPENDENT)
        let_next_kernel_start(DEPENDENT)
        value = tl.load(own + kv_heads * head_dim + channels, inside, 0.0).to(tl.float32)
        key = _norm_and_rotate(own, key_norm_ptr, epsilon, cosine, sine, head_dim, HAS_NORM, BLOCK_DIM)
        store_vectors(value_page_ptr, value_scale_ptr, value[None, :], entry, row == 0, columns, head_dim, FLOAT8)
        key = store_vectors(key_page_ptr, key_scale_ptr, key[None, :], entry, row == 0, columns, head_dim, FLOAT8)
        page_keys = tl.where(slots == slot, key, old_keys)
        for vector in tl.static_range(VECTORS):
            summary = summarise_keys(page_keys, (slots <= slot) & inside[None, :], slot + 1, vector, SUMMARY)
            row = page_of_head * (LEVELS * VECTORS) + vector
            kept = store_summary(
                summary, summary_ptr, summary_scale_ptr, row, head_dim, vector, SUMMARY, INT8, BLOCK_DIM
            )
            if LEVELS == 2:
                summary = summarise_superpage(kept, earlier[vector], logical, slot + 1, vector, SUMMARY, PAGE_SIZE)
                store_summary(
                    summary, summary_ptr, summary_scale_ptr, row + VECTORS, head_dim, vector, SUMMARY, INT8, BLOCK_DIM
                )


def rotate_and_append(
    projected: torch.Tensor,
    query_norm: torch.Tensor | None,
    key_norm: torch.Tensor | None,
    epsilon: float,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
    summary: str,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_rotate_and_append`.

    All but `projected` is read early: no output of the kernel launched before this one (`dependent_launch`).

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for another summary.
    """
    kv_heads, page_size, head_dim = require_pages(key_pages, value_pages, page_table, kv_scales)
    require(projected, "projected", (1, None), FLOATING)
    heads, rest = divmod(projected.shape[1], head_dim)
    if rest or heads <= 2 * kv_heads or head_dim % 2:
        raise ValueError(f"projected does not hold heads of {head_dim} beside {kv_heads} kv heads: {projected.shape}")
    vectors, levels = check_summary(summary), check_levels(page_summaries, summary)
    shape = (key_pages.shape[0], kv_heads, None, head_dim)
    dtype = key_pages.dtype if kv_scales is None else projected.dtype
    require_summaries(page_summaries, summary_scales, shape, (dtype,))
    require(start_token, "start_token", (1,), (torch.int32,))
    for tensor, name in ((cosines, "cosines"), (sines, "sines")):
        require(tensor, name, (None, head_dim // 2), (torch.float32,))
        require_contiguous(tensor, name)
    if query_norm is not None:
        require(query_norm, "query_norm", (head_dim,), FLOATING)
        require(key_norm, "key_norm", (head_dim,), FLOATING)
    query_heads = heads - 2 * kv_heads
    queries = torch.empty((query_heads, head_dim), dtype=dtype, device=projected.device)
    dependent = launches_dependently(projected.device)
    _rotate_and_append_kernel[(query_heads + kv_heads,)](
        projected,
        projected if query_norm is None else query_norm,
        projected if key_norm is None else key_norm,
        cosines,
        sines,
        start_token,
        queries,
        as_codes(key_pages),
        as_codes(value_pages),
        *(kv_scales or (page_summaries, page_summaries)),
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        epsilon,
        query_heads,
        kv_heads,
        head_dim,
        HAS_NORM=query_norm is not None,
        SUMMARY=summary,
        VECTORS=vectors,
        INT8=summary_scales is not None,
        LEVELS=levels,
        FLOAT8=kv_scales is not None,
        PAGE_SIZE=page_size,
        BLOCK_DIM=triton.next_power_of_2(head_dim),
        DEPENDENT=dependent,
        num_warps=min(max(page_size * head_dim // KEY_NUMBERS_PER_WARP, 1), 8),
        launch_pdl=dependent,
    )
    return queries
