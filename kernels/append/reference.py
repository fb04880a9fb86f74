"""Write new keys and values to their pages, and bring the summaries of these up to date."""

from __future__ import annotations

import torch

from kernels.contract import (
    INT8_LEVELS,
    ROUNDING_MARGIN,
    SCALE_MARGIN,
    HeadNorms,
    LayerCache,
    RopeTables,
    SequenceView,
    Summary,
)
from kernels.float8 import round_to_float8
from kernels.prefill.reference import naive_apply_rope, naive_rms_norm


def naive_append_keys_values(
    keys: torch.Tensor, values: torch.Tensor, cache: LayerCache, sequence: SequenceView
) -> None:
    """Write the keys and values of a sequence's last tokens, and bring the summaries of their pages up to date.

    The summary of a touched page is computed from all its keys up to the last new one, so that nothing of a truncated
    sequence stays in it; and from keys as the page holds them, so that bounds are bounds of the logits they will give.
    Bounds in 8 bits are rounded outwards, other summaries to the nearest.

    Args:
        keys, values: [new_tokens, kv_heads, head_dim], keys after RoPE.
        cache: of the layer, written in place.
        sequence: the new tokens included.
    """
    layout = cache.layout
    end = int(sequence.length_tokens)
    start = end - len(keys)
    positions = torch.arange(start, end, device=keys.device)
    physical, slots = sequence.page_table.long()[positions // layout.page_size], positions % layout.page_size
    for vectors, pages, scales in (
        (keys, cache.key_pages, cache.key_scales),
        (values, cache.value_pages, cache.value_scales),
    ):
        if layout.is_float8:
            vectors, scales[physical, :, slots] = round_to_float8(vectors)
        pages[physical, :, slots] = vectors.to(layout.dtype)
    for logical in range(start // layout.page_size, (end - 1) // layout.page_size + 1):
        page = int(sequence.page_table[logical])
        tokens_in_page = min(end - logical * layout.page_size, layout.page_size)
        page_keys = cache.keys_at(page, slice(None), slice(tokens_in_page))  # [kv_heads, tokens, head_dim]
        _store_summary(_summarise(page_keys, layout.summary), cache, page)


def _store_summary(vectors: torch.Tensor, cache: LayerCache, page: int) -> None:
    """Write [kv_heads, vectors, head_dim] as the summary of a physical page."""
    if cache.layout.has_int8_summaries:
        steps, scales = _round_to_int8(vectors, outwards=cache.layout.summary.is_bounds)
        cache.summaries[page], cache.summary_scales[page] = steps, scales
    else:
        cache.summaries[page] = vectors.to(cache.layout.summary_dtype)


def _summarise(page_keys: torch.Tensor, summary: Summary) -> torch.Tensor:
    """[kv_heads, tokens, head_dim] -> [kv_heads, vectors, head_dim]."""
    if summary.is_bounds:
        return torch.stack((page_keys.amin(dim=1), page_keys.amax(dim=1)), dim=1)
    return page_keys.mean(dim=1, keepdim=True)


def _round_to_int8(vectors: torch.Tensor, outwards: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to int8 [kv_heads, vectors, head_dim] with scales [kv_heads, vectors], what a step of each stands for.

    If `outwards`, the first vector is rounded down and the second up; otherwise all to the nearest.
    """
    scales = vectors.abs().amax(dim=2) / INT8_LEVELS * (1 + SCALE_MARGIN)
    steps = vectors / scales.clamp(min=1e-30).unsqueeze(2)
    if not outwards:
        return (steps + 0.5).floor().to(torch.int8), scales
    low, high = steps.unbind(dim=1)
    rounded = torch.stack(((low - ROUNDING_MARGIN).floor(), (high + ROUNDING_MARGIN).ceil()), dim=1)
    return rounded.clamp(-INT8_LEVELS, INT8_LEVELS).to(torch.int8), scales


def naive_rotate_and_append(
    projected: torch.Tensor,
    norms: HeadNorms | None,
    rope: RopeTables,
    cache: LayerCache,
    sequence: SequenceView,
) -> torch.Tensor:
    """Norm and rotate the queries and keys of a sequence's last tokens, and write keys and values to their pages.

    A decode step has one token, or a few that are verified at once.

    Args:
        projected: [rows, (query_heads + 2 * kv_heads) * head_dim], in each row queries, keys, values; up to 8 rows.
        norms: of each query and key; None without.
        rope: of all positions.
        cache, sequence: as for `naive_append_keys_values`.

    Returns:
        The queries, [rows, query_heads, head_dim] in the dtype of the pages; over 8-bit pages, in that of `projected`.
    """
    layout = cache.layout
    heads = projected.float().view(len(projected), -1, layout.head_dim)
    query_heads = heads.shape[1] - 2 * layout.kv_heads
    queries, keys, values = heads.split((query_heads, layout.kv_heads, layout.kv_heads), dim=1)
    if norms is not None:
        queries = naive_rms_norm(queries, norms.query, norms.epsilon)
        keys = naive_rms_norm(keys, norms.key, norms.epsilon)
    queries, keys = queries.clone(), keys.clone()
    naive_apply_rope(queries, keys, rope, sequence.last_positions(len(projected)))
    naive_append_keys_values(keys, values, cache, sequence)
    return queries.to(projected.dtype if layout.is_float8 else layout.dtype)
