"""What stands for the keys of a page, and of the superpage that it lies in: written with the keys and values."""

from __future__ import annotations

import torch

from kernels.reference.float8 import round_to_float8, widen
from kernels.reference.superpages import SUPERPAGE_PAGES

# What the keys and the values of 8-bit pages are worth: float32 [physical_pages, kv_heads, page_size] each.
KvScales = tuple[torch.Tensor, torch.Tensor]
# Vectors that a summary keeps of a page's keys.
SUMMARY_VECTORS = {"bounds": 2, "spread": 2, "mean": 1}
# Deviations of pages do not make one of a superpage.
TWO_LEVEL_SUMMARIES = ("bounds", "mean")
INT8_LEVELS = 127
# In steps: more than the error of a quotient, which must not be rounded inwards for having come out on the wrong side.
ROUNDING_MARGIN = 1e-4
# Keeps INT8_LEVELS steps at least as long as the longest vector.
SCALE_MARGIN = 1e-6


def naive_append_keys_values(
    keys: torch.Tensor,
    values: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    start_token: torch.Tensor,
    summary: str,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> None:
    """Write new keys and values into their pages, and bring the summaries of those pages up to date, in place.

    The summary of a touched page is computed from all its keys up to the last new one, so that nothing of a truncated
    sequence stays in it; and from keys as the page holds them, so that bounds are bounds of the logits they will give.

    Args:
        keys, values: [new_tokens, kv_heads, head_dim], keys after RoPE.
        key_pages, value_pages: [physical_pages, kv_heads, page_size, head_dim], floating; float8_e4m3fn with scales.
        page_summaries: [physical_pages, kv_heads, vectors, head_dim], what stands for a page's keys: int8, or any
            floating dtype. With twice as many vectors, the latter half stands for all keys of the superpage up to the
            page's end, see `kernels.reference.superpages`; it is made of its pages' summaries as they are kept.
        page_table: int32 [logical_pages], logical to physical.
        start_token: int32 [1], tokens in the sequence before these.
        summary: which vectors, element-wise over the keys: "bounds" is minimum and maximum (arXiv 2406.10774),
            "spread" is mean and mean absolute deviation (ArkVale, NeurIPS 2024), "mean" is the mean alone.
        summary_scales: float32 [physical_pages, kv_heads, vectors], what a step of an int8 summary is worth; None for
            floating summaries. Bounds are rounded outwards, so that they stay bounds; the others to the nearest.
        kv_scales: what a code of each token's key and value is worth, for 8-bit pages, see `round_to_float8`.

    Raises:
        ValueError: for another summary, or vectors that are none.
    """
    levels, vectors_of_page = check_levels(page_summaries, summary), check_summary(summary)
    page_size = key_pages.shape[2]
    start, end = int(start_token), int(start_token) + len(keys)
    positions = torch.arange(start, end, device=keys.device)
    physical, slots = page_table.long()[positions // page_size], positions % page_size
    for store, (vectors, pages) in enumerate(((keys, key_pages), (values, value_pages))):
        if kv_scales is not None:
            vectors, kv_scales[store][physical, :, slots] = round_to_float8(vectors)
        pages[physical, :, slots] = vectors.to(pages.dtype)
    for logical in range(start // page_size, (end - 1) // page_size + 1):
        page = int(page_table[logical])
        filled = (page, slice(None), slice(end - logical * page_size))
        page_keys = widen(key_pages[filled], kv_scales and kv_scales[0][filled])  # [kv_heads, tokens, head_dim]
        own = slice(0, vectors_of_page)
        _store_summary(_summarise(page_keys, summary), page_summaries, summary_scales, page, own, summary)
        if levels == 2:
            first = logical // SUPERPAGE_PAGES * SUPERPAGE_PAGES
            members = page_table.long()[first : logical + 1]
            vectors = page_summaries[members, :, own].float()
            if summary_scales is not None:
                vectors = vectors * summary_scales[members, :, own].unsqueeze(3)
            tokens = torch.full((len(members),), page_size)
            tokens[-1] = min(end - logical * page_size, page_size)
            of_superpage = summarise_superpage(vectors, tokens, summary)
            place = slice(vectors_of_page, None)
            _store_summary(of_superpage, page_summaries, summary_scales, page, place, summary)


def _store_summary(
    vectors: torch.Tensor,
    page_summaries: torch.Tensor,
    summary_scales: torch.Tensor | None,
    page: int,
    place: slice,
    summary: str,
) -> None:
    """Write [kv_heads, vectors, head_dim] at the `place` of a physical page."""
    if summary_scales is None:
        page_summaries[page, :, place] = vectors.to(page_summaries.dtype)
    else:
        steps, scales = _round_to_int8(vectors, outwards=summary == "bounds")
        page_summaries[page, :, place], summary_scales[page, :, place] = steps, scales


def _summarise(page_keys: torch.Tensor, summary: str) -> torch.Tensor:
    """[kv_heads, tokens, head_dim] -> [kv_heads, vectors, head_dim]."""
    if summary == "bounds":
        return torch.stack((page_keys.amin(dim=1), page_keys.amax(dim=1)), dim=1)
    mean = page_keys.mean(dim=1, keepdim=True)
    if summary == "mean":
        return mean
    return torch.cat((mean, (page_keys - mean).abs().mean(dim=1, keepdim=True)), dim=1)


def _round_to_int8(vectors: torch.Tensor, outwards: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole steps int8 [kv_heads, vectors, head_dim], and what a step is worth [kv_heads, vectors].

    Outwards, the first vector is rounded down and the second up.
    """
    scales = vectors.abs().amax(dim=2) / INT8_LEVELS * (1 + SCALE_MARGIN)
    steps = vectors / scales.clamp(min=1e-30).unsqueeze(2)
    if not outwards:
        return (steps + 0.5).floor().to(torch.int8), scales
    low, high = steps.unbind(dim=1)
    rounded = torch.stack(((low - ROUNDING_MARGIN).floor(), (high + ROUNDING_MARGIN).ceil()), dim=1)
    return rounded.clamp(-INT8_LEVELS, INT8_LEVELS).to(torch.int8), scales


def check_summary(summary: str) -> int:
    """The vectors that `summary` keeps of a page.

    Raises:
        ValueError: if there is no such summary.
    """
    if summary not in SUMMARY_VECTORS:
        raise ValueError(f"summary must be one of {tuple(SUMMARY_VECTORS)}, got {summary!r}")
    return SUMMARY_VECTORS[summary]


def check_levels(page_summaries: torch.Tensor, summary: str) -> int:
    """1 for summaries of pages alone, 2 for those of their superpages as well.

    Raises:
        ValueError: if there is no such summary, or as many vectors are neither.
    """
    levels, rest = divmod(page_summaries.shape[2], check_summary(summary))
    if rest or not 1 <= levels <= (2 if summary in TWO_LEVEL_SUMMARIES else 1):
        raise ValueError(f"page_summaries hold {page_summaries.shape[2]} vectors a page, which are no {summary!r}")
    return levels


def summarise_superpage(vectors: torch.Tensor, tokens: torch.Tensor, summary: str) -> torch.Tensor:
    """The summary of several pages' keys from the pages' own summaries.

    Args:
        vectors: float32 [pages, kv_heads, vectors, head_dim].
        tokens: [pages], of each.
        summary: one of `TWO_LEVEL_SUMMARIES`.

    Returns:
        float32 [kv_heads, vectors, head_dim].
    """
    if summary == "bounds":
        return torch.stack((vectors[:, :, 0].amin(dim=0), vectors[:, :, 1].amax(dim=0)), dim=1)
    weights = (tokens / tokens.sum()).to(vectors.device, torch.float32)
    return torch.einsum("phvd,p->hvd", vectors, weights)
