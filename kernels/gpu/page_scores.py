"""Score KV pages from their summaries, straight from the query.

Both the functions of the query and their dot products with the summary vectors are made in one kernel, on the matrix
units: these stream the summaries at the speed of the memory, where products element by element reached half of it.
Summaries go in as they lie in memory, int8 or 16-bit. So that no bits of the query are lost, it is split into three
parts of that precision, each what rounding left of the one before: three quarters of the rows that the units have.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import (
    FLOATING,
    multiprocessors,
    require,
    require_contiguous,
    require_summaries,
    shared_memory_bytes,
)
from kernels.gpu.dependent_launch import launches_dependently, wait_for_previous_kernel
from kernels.gpu.page_ranking import SHARE_PAGES, sum_up_logits
from kernels.gpu.rows import load_rows
from kernels.reference import SUPERPAGE_PAGES, check_levels, check_summary

NUM_WARPS = 4
# A pipeline keeps a block of summaries in shared memory, and up to so much else; where that does not fit there is none.
NUM_STAGES, OTHER_SHARED_BYTES = 3, 1 << 15
# Pages of a block at most, of 8-bit summaries twice as many, which are as many bytes; and at least, where larger ones
# would be too few for all multiprocessors.
BLOCK_PAGES, LEAST_BLOCK_PAGES = {"int8": 128, "floating": 64}, 32
# Programs hide each other's waits; each keeps its functions of the query for several blocks.
PROGRAMS_PER_MULTIPROCESSOR = {1: 4, 2: 2}  # by the vectors of a summary
# Of an int8 part: the next part's step is half of what this one's may be off, in as many levels.
PART_LEVELS = tl.constexpr(127)
PART_RATIO = tl.constexpr(254)
# Of the L2 cache.
LINE_BYTES = tl.constexpr(128)


@triton.jit
def _choose_step(magnitudes, summary_dtype: tl.constexpr):
    """What a step of the first part of functions is worth, [rows, 1]; `magnitudes` [rows, channels] are none's above.
    """
    if summary_dtype == tl.int8:
        # Positive floats are in the order of their bits, and integers compared across a warp by one instruction.
        highest = tl.max(magnitudes.to(tl.int32, bitcast=True), 1).to(tl.float32, bitcast=True)
        return highest[:, None] / PART_LEVELS
    else:
        return tl.full([magnitudes.shape[0], 1], 1.0, tl.float32)


@triton.jit
def _split_rows(function, step, part, summary_dtype: tl.constexpr):
    """Split a function of the query into three parts.

    Args:
        function: float32 [rows, channels], each row three times or more, once for each part; or one row for all.
        step: as `_choose_step` returns it.
        part: int32 [rows, 1], which part a row keeps; nothing from 3 on.

    Returns:
        The parts [rows, channels] in the dtype of the summaries.
    """
    if summary_dtype == tl.int8:
        rest = function / tl.maximum(step, 1e-30)
        first = tl.floor(rest + 0.5)
        rest = (rest - first) * PART_RATIO
        second = tl.floor(rest + 0.5)
        third = tl.floor((rest - second) * PART_RATIO + 0.5)
        parts = tl.where(part == 0, first, tl.where(part == 1, second, tl.where(part == 2, third, 0.0)))
        return parts.to(tl.int8)
    else:
        first = function.to(summary_dtype)
        rest = function - first.to(tl.float32)
        second = rest.to(summary_dtype)
        third = (rest - second.to(tl.float32)).to(summary_dtype)
        nothing = tl.zeros_like(first)
        return tl.where(part == 0, first, tl.where(part == 1, second, tl.where(part == 2, third, nothing)))


@triton.jit
def _bound_functions(
    head, query_ptr, scale, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr
):
    """What lower and upper bounds are dotted with, float32 [1, channels]: the mean over the group's queries."""
    channels = tl.arange(0, BLOCK_DIM)
    low, high = tl.zeros([BLOCK_DIM], tl.float32), tl.zeros([BLOCK_DIM], tl.float32)
    # One after the other, in each thread: their sums need no exchange between threads.
    for member in tl.static_range(GROUP):
        query = tl.load(query_ptr + (head * GROUP + member) * HEAD_DIM + channels, channels < HEAD_DIM, 0.0)
        query = query.to(tl.float32) * (scale / GROUP)
        low += tl.minimum(query, 0.0)
        high += tl.maximum(query, 0.0)
    return low[None, :], high[None, :]


@triton.jit
def load_functions(
    head, query_ptr, scale, SUMMARY: tl.constexpr, VECTORS: tl.constexpr, GROUP: tl.constexpr, MEMBERS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, summary_dtype: tl.constexpr,
):  # fmt: skip
    """The functions of a kv head's query that its summary vectors are dotted with, split into parts.

    With bounds row r is part r of the one function. Else it belongs to query head r % MEMBERS of the group, and is part
    r // MEMBERS of its function. Other rows are empty.

    Returns:
        for the first and for the last vector parts [4 * MEMBERS, BLOCK_DIM], and what a step of each row is worth.
    """
    rows = tl.arange(0, 4 * MEMBERS)
    if SUMMARY == "bounds":
        part = rows[:, None]
        function, last_function = _bound_functions(head, query_ptr, scale, GROUP, HEAD_DIM, BLOCK_DIM)
        magnitudes = tl.maximum(-function, last_function)
    else:
        member, part = rows % MEMBERS, (rows // MEMBERS)[:, None]
        channels = tl.arange(0, BLOCK_DIM)
        present = (member < GROUP)[:, None] & (channels < HEAD_DIM)[None, :]
        query = tl.load(query_ptr + (head * GROUP + member)[:, None] * HEAD_DIM + channels[None, :], present, 0.0)
        function = query.to(tl.float32) * scale
        last_function = tl.abs(function)
        magnitudes = last_function
    step = _choose_step(magnitudes, summary_dtype)
    parts = _split_rows(function, step, part, summary_dtype)
    last_parts = parts if VECTORS == 1 else _split_rows(last_function, step, part, summary_dtype)
    if summary_dtype == tl.int8:
        step *= tl.where(part == 0, 1.0, tl.where(part == 1, 1.0 / PART_RATIO, 1.0 / (PART_RATIO * PART_RATIO)))
    return parts, last_parts, step


@triton.jit
def _products(
    parts, worth, summary_ptr, summary_scale_ptr, rows,
    INT8: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Products of one vector of each page's summary, float32 [rows, pages]."""
    summary = load_rows(summary_ptr, rows, HEAD_DIM, BLOCK_DIM)
    if INT8:
        products = tl.dot(parts, tl.trans(summary), out_dtype=tl.int32).to(tl.float32) * worth
        return products * tl.load(summary_scale_ptr + rows)[None, :]
    else:
        return tl.dot(parts, tl.trans(summary), input_precision="ieee")


@triton.jit
def _load_physical(
    entries, page_table_ptr, total_pages, total_entries, logical_entries, SUPERPAGE_PAGES: tl.constexpr
):
    """The physical pages that hold the summaries of pages, or of superpages, with these numbers; of those beyond the
    context any that is there.
    """
    if SUPERPAGE_PAGES == 1:
        # All are loaded, since the length of the context takes as long to come as the table.
        physical = tl.load(page_table_ptr + entries, entries < logical_entries, 0)
    else:
        last_pages = tl.minimum((entries + 1) * SUPERPAGE_PAGES, total_pages) - 1
        physical = tl.load(page_table_ptr + last_pages, entries < total_entries, 0)
    return tl.where(entries < total_entries, physical, 0)


@triton.jit
def score_block(
    head, block, physical, visible, parts, last_parts, worth, summary_ptr, summary_scale_ptr, score_ptr,
    highest_ptr, total_ptr, entries, blocks,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, SHARES: tl.constexpr, GROUP: tl.constexpr,
    MEMBERS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, LEVELS: tl.constexpr,
    FIRST_VECTOR: tl.constexpr, BLOCK_PAGES: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """Score a block of BLOCK_PAGES for one kv head, whose functions are given as `load_functions` returns them.

    Args:
        physical: where their summaries are, int32 [BLOCK_PAGES]; all of them must be there.
        visible: [1, BLOCK_PAGES], which of them are in the context.
        entries, blocks: that a row of scores, and of block sums, has room for.
        LEVELS, FIRST_VECTOR: of a page's vectors, of which there are LEVELS * VECTORS, the first that counts.
    """
    rows = (physical * KV_HEADS + head) * (LEVELS * VECTORS) + FIRST_VECTOR
    places = block * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
    scores = _products(parts, worth, summary_ptr, summary_scale_ptr, rows, INT8, HEAD_DIM, BLOCK_DIM)
    if VECTORS == 2:
        scores += _products(last_parts, worth, summary_ptr, summary_scale_ptr, rows + 1, INT8, HEAD_DIM, BLOCK_DIM)
    if SUMMARY == "bounds":
        scores = tl.sum(scores, 0)[None, :]
        target = head.to(tl.int64) * entries + places[None, :]
        tl.store(score_ptr + target, tl.where(visible, scores, float("-inf")), (places < entries)[None, :])
    else:
        scores = tl.sum(tl.reshape(scores, [4, MEMBERS, BLOCK_PAGES]), 0)
        row = tl.arange(0, MEMBERS)
        target = (head * GROUP + row[:, None]).to(tl.int64) * entries + places[None, :]
        shown = tl.where(visible, scores, float("-inf"))
        tl.store(score_ptr + target, shown, (row < GROUP)[:, None] & (places < entries)[None, :])
        if SHARES:
            highest, total = sum_up_logits(scores, visible)
            entry = (head * GROUP + row) * blocks + block
            tl.store(highest_ptr + entry, highest, row < GROUP)
            tl.store(total_ptr + entry, total, row < GROUP)


@triton.jit
def _prefetch(addresses):
    """Ask for the lines at these addresses, so that the L2 cache has them when they are read."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [addresses.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _prefetch_block(
    head, physical, summary_ptr, summary_scale_ptr,
    INT8: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, VECTORS: tl.constexpr,
    STRIDE_VECTORS: tl.constexpr, FIRST_VECTOR: tl.constexpr,
):  # fmt: skip
    """Ask for the summaries of a block, so that the memory is busy while the functions of the query are made.

    Args:
        VECTORS: of a summary, which starts at FIRST_VECTOR of the STRIDE_VECTORS that a page has.
    """
    NUMBERS: tl.constexpr = VECTORS * HEAD_DIM
    LINE_NUMBERS: tl.constexpr = LINE_BYTES * 8 // summary_ptr.dtype.element_ty.primitive_bitwidth
    LINES: tl.constexpr = triton.next_power_of_2(triton.cdiv(NUMBERS, LINE_NUMBERS))
    # What is beyond a summary is never far: at its last number.
    lines = tl.minimum(tl.arange(0, LINES) * LINE_NUMBERS, NUMBERS - 1)
    first_vectors = (physical * KV_HEADS + head) * STRIDE_VECTORS + FIRST_VECTOR
    _prefetch((summary_ptr + lines)[None, :] + first_vectors.to(tl.int64)[:, None] * HEAD_DIM)
    if INT8:
        # Those of a summary's vectors lie side by side.
        _prefetch(summary_scale_ptr + first_vectors)


@triton.jit
def _page_scores_kernel(
    query_ptr, summary_ptr, summary_scale_ptr, page_table_ptr, context_ptr, score_ptr, highest_ptr, total_ptr,
    scale, logical_pages,
    SUMMARY: tl.constexpr, VECTORS: tl.constexpr, INT8: tl.constexpr, SHARES: tl.constexpr,
    GROUP: tl.constexpr, MEMBERS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    PAGE_SIZE: tl.constexpr, LEVELS: tl.constexpr, SUPERPAGE_PAGES: tl.constexpr, BLOCK_PAGES: tl.constexpr,
    BLOCK_DIM: tl.constexpr, NUM_STAGES: tl.constexpr, PREFETCH: tl.constexpr, EARLY: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program scores its share of the blocks for one kv head; what is beyond the context becomes -inf.

    Scored are pages, or with more than one SUPERPAGE_PAGES superpages, by the latter half of their vectors.
    """
    FIRST_VECTOR: tl.constexpr = 0 if SUPERPAGE_PAGES == 1 else VECTORS
    wait_for_previous_kernel(DEPENDENT and not EARLY)
    head = tl.program_id(0)
    total_pages = tl.minimum(tl.cdiv(tl.load(context_ptr), PAGE_SIZE), logical_pages)
    total_entries, entries = tl.cdiv(total_pages, SUPERPAGE_PAGES), tl.cdiv(logical_pages, SUPERPAGE_PAGES)
    blocks = tl.cdiv(entries, BLOCK_PAGES)
    if PREFETCH:
        places = tl.program_id(1) * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        physical = _load_physical(places, page_table_ptr, total_pages, total_entries, entries, SUPERPAGE_PAGES)
        _prefetch_block(
            head, physical, summary_ptr, summary_scale_ptr,
            INT8, KV_HEADS, HEAD_DIM, VECTORS, LEVELS * VECTORS, FIRST_VECTOR,
        )  # fmt: skip
    wait_for_previous_kernel(DEPENDENT and EARLY)
    parts, last_parts, worth = load_functions(
        head, query_ptr, scale, SUMMARY, VECTORS, GROUP, MEMBERS, HEAD_DIM, BLOCK_DIM, summary_ptr.dtype.element_ty
    )
    for block in tl.range(tl.program_id(1), blocks, tl.num_programs(1), num_stages=NUM_STAGES):
        places = block * BLOCK_PAGES + tl.arange(0, BLOCK_PAGES)
        physical = _load_physical(places, page_table_ptr, total_pages, total_entries, entries, SUPERPAGE_PAGES)
        score_block(
            head, block, physical, (places < total_entries)[None, :], parts, last_parts, worth,
            summary_ptr, summary_scale_ptr, score_ptr, highest_ptr, total_ptr, entries, blocks,
            SUMMARY, VECTORS, INT8, SHARES, GROUP, MEMBERS, KV_HEADS, HEAD_DIM, LEVELS, FIRST_VECTOR, BLOCK_PAGES,
            BLOCK_DIM,
        )  # fmt: skip


def choose_stages(block_bytes: int, shared_bytes: int) -> int:
    """Of the pipeline that loads blocks of so many bytes, where a program may have so many of shared memory."""
    return NUM_STAGES if block_bytes + OTHER_SHARED_BYTES <= shared_bytes else 1


def page_scores(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_page_scores`.

    Raises:
        ValueError: if a tensor is not on a GPU or of a matching shape and dtype, or for another summary.
    """
    return score_and_sum_up(
        query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales, shares=False
    )[0]


def score_and_sum_up(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    shares: bool,
    early: bool = False,
    of_superpages: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The scores and, for shares, the highest logit of each block of pages and the sum of exponentials above it.

    Args:
        of_superpages: score these in the place of pages.
        early: the kernel launched before this one has written none of `page_table` and `context_tokens`, which may be
            read while it runs (`dependent_launch`).
    """
    vectors = check_summary(summary)
    check_levels(page_summaries, summary)
    require_summaries(page_summaries, summary_scales, (None, None, None, None), FLOATING)
    kv_heads, head_dim = page_summaries.shape[1], page_summaries.shape[3]
    require(query, "query", (None, head_dim), FLOATING)
    require(page_table, "page_table", (None,), (torch.int32,))
    require(context_tokens, "context_tokens", (1,), (torch.int32,))
    require_contiguous(query, "query")
    group, rest = divmod(query.shape[0], kv_heads)
    if rest:
        raise ValueError(f"{query.shape[0]} query heads do not share {kv_heads} kv heads evenly")
    logical_pages = len(page_table)
    superpage_pages = SUPERPAGE_PAGES if of_superpages else 1
    entries = triton.cdiv(logical_pages, superpage_pages)
    block_pages = block_pages_of(summary_scales is not None, shares, entries, kv_heads, query.device)
    blocks = triton.cdiv(entries, block_pages)
    programs = multiprocessors(query.device) * PROGRAMS_PER_MULTIPROCESSOR[vectors]
    scores, highest, total = empty_scores(kv_heads, score_rows(summary, group), entries, blocks, shares, query.device)
    dependent = launches_dependently(query.device)
    parts = min(blocks, max(1, programs // kv_heads))
    _page_scores_kernel[(kv_heads, parts)](
        query,
        page_summaries,
        page_summaries if summary_scales is None else summary_scales,
        page_table,
        context_tokens,
        scores,
        highest if shares else scores,
        total if shares else scores,
        scale,
        logical_pages,
        SHARES=shares,
        PAGE_SIZE=page_size,
        SUPERPAGE_PAGES=superpage_pages,
        BLOCK_PAGES=block_pages,
        PREFETCH=not triton.knobs.runtime.interpret,
        EARLY=early,
        DEPENDENT=dependent,
        num_warps=NUM_WARPS,
        launch_pdl=dependent,
        **summary_constants(query, page_summaries, summary, block_pages, triton.cdiv(blocks, parts)),
    )
    return scores, highest, total


def score_rows(summary: str, group: int) -> int:
    """Scores that a page has for each kv head."""
    return 1 if summary == "bounds" else group


def block_pages_of(int8: bool, shares: bool, entries: int, kv_heads: int, device: torch.device) -> int:
    """Pages of a block, by what their summaries are and how many there are."""
    if shares:
        return SHARE_PAGES
    share = triton.next_power_of_2(triton.cdiv(entries * kv_heads, multiprocessors(device)))
    return min(max(share, LEAST_BLOCK_PAGES), BLOCK_PAGES["int8" if int8 else "floating"])


def empty_scores(
    kv_heads: int, rows: int, entries: int, blocks: int, shares: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Room for what `score_block` stores."""
    scores = torch.empty((kv_heads, rows, entries), dtype=torch.float32, device=device)
    if not shares:
        return scores, None, None
    return scores, *torch.empty((2, kv_heads, rows, blocks), dtype=torch.float32, device=device)


def summary_constants(
    query: torch.Tensor, page_summaries: torch.Tensor, summary: str, block_pages: int, program_blocks: int
) -> dict[str, int | bool | str]:
    """Constants of kernels whose programs score so many blocks of pages, whose summaries have been checked."""
    vectors, (_, kv_heads, _, head_dim) = check_summary(summary), page_summaries.shape
    group = query.shape[0] // kv_heads
    # An int8 product sums over at least 32 channels.
    block_dim = max(32, triton.next_power_of_2(head_dim))
    block_bytes = vectors * block_pages * block_dim * page_summaries.element_size()
    return {
        "SUMMARY": summary,
        "VECTORS": vectors,
        "LEVELS": check_levels(page_summaries, summary),
        "INT8": page_summaries.dtype == torch.int8,
        "GROUP": group,
        # Four times as many make the 16 rows that tl.dot wants at least; with bounds one function stands for all.
        "MEMBERS": 4 if summary == "bounds" else max(4, triton.next_power_of_2(group)),
        "KV_HEADS": kv_heads,
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": block_dim,
        # A program that has no second block need not prepare for a third.
        "NUM_STAGES": min(choose_stages(block_bytes, shared_memory_bytes(query.device)), program_blocks + 1),
    }
