"""Attention of one token over the pages of its sequence, all of them or those selected."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.select.reference import naive_choose_pages


def naive_sparse_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, selected: SelectedPages, scale: float
) -> torch.Tensor:
    """Attention of one token over the selected pages of each kv head.

    Args:
        query: [query_heads, head_dim], after RoPE.
        cache: of the layer.
        sequence: later tokens of its last page are not attended.
        selected: the first `page_counts` of each row are read.
        scale: of the logits.

    Returns:
        [query_heads, head_dim] in the query's dtype.
    """
    layout = cache.layout
    grouped = query.float().view(layout.kv_heads, -1, layout.head_dim)
    attended = torch.empty_like(grouped)
    for head in range(layout.kv_heads):
        logical = selected.page_ids[head, : int(selected.page_counts[head])].long()
        positions = logical[:, None] * layout.page_size + torch.arange(layout.page_size, device=query.device)
        visible = (positions < sequence.length_tokens).flatten()
        physical = sequence.page_table.long()[logical]
        keys = cache.keys_at(physical, head).reshape(-1, layout.head_dim)[visible]
        values = cache.values_at(physical, head).reshape(-1, layout.head_dim)[visible]
        attended[head] = (grouped[head] @ keys.T * scale).softmax(dim=-1) @ values
    return attended.view_as(query).to(query.dtype)


def naive_choose_and_attend(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> tuple[torch.Tensor, SelectedPages]:
    """Attention of one token over the pages that its query chooses (Quest, arXiv 2406.10774, algorithm 1).

    Arguments as for `naive_choose_pages` and `naive_sparse_decode_attention`; `scale` is that of the logits in both.

    Returns:
        what is attended, [query_heads, head_dim] in the query's dtype, and the pages.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """
    selected = naive_choose_pages(query, cache, sequence, budget, scale)
    return naive_sparse_decode_attention(query, cache, sequence, selected, scale), selected


def naive_dense_decode_attention(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
) -> torch.Tensor:
    """Attention of one token over the whole sequence, or of its last tokens, each to those up to itself.

    Args:
        query: [query_heads, head_dim], or [rows, query_heads, head_dim] of up to 8 tokens, after RoPE.
        cache, sequence, scale: as for `naive_sparse_decode_attention`.

    Returns:
        In the query's shape and dtype; each row of several with the bits that it gets alone.
    """
    if query.dim() == 3:
        views = [sequence.before_last(len(query) - 1 - row) for row in range(len(query))]
        rows = [naive_dense_decode_attention(each, cache, view, scale) for each, view in zip(query, views, strict=True)]
        return torch.stack(rows)
    kv_heads, device = cache.layout.kv_heads, query.device
    pages = -(-int(sequence.length_tokens) // cache.layout.page_size)
    page_ids = torch.arange(pages, dtype=torch.int32, device=device).expand(kv_heads, -1)
    every_page = SelectedPages(page_ids, torch.full((kv_heads,), pages, dtype=torch.int32, device=device))
    return naive_sparse_decode_attention(query, cache, sequence, every_page, scale)
