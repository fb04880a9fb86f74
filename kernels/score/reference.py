"""Score pages: from their summaries, estimate the attention that their keys may get."""

from __future__ import annotations

import torch

from kernels.contract import LayerCache, SequenceView


def naive_page_scores(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
) -> torch.Tensor:
    """Score pages: the dot products of a page's summary vectors with as many query vectors, added up.

    With "bounds" a kv head's pages get one score: the upper bound `sum_d max(q_d min_d, q_d max_d)` of their logits
    (arXiv 2406.10774, algorithm 1), averaged over the group. It is linear in relu(q) and -relu(-q), so these are
    averaged. With "mean" they get one for each query head of the group: `q @ mean`.

    Args:
        query: [query_heads, head_dim], after RoPE.
        cache: of the layer.
        sequence: the current token included.
        scale: of the logits.

    Returns:
        float32 [kv_heads, rows, logical_pages], -inf for pages beyond the sequence; rows is 1 or the group.
    """
    layout, table = cache.layout, sequence.page_table.long()
    summaries = cache.summaries[table].float()  # [logical_pages, kv_heads, vectors, head_dim]
    if layout.has_int8_summaries:
        summaries = summaries * cache.summary_scales[table].unsqueeze(3)
    grouped = query.float().view(layout.kv_heads, -1, layout.head_dim) * scale
    if layout.summary.is_bounds:
        low, high = grouped.clamp(max=0).mean(dim=1), grouped.clamp(min=0).mean(dim=1)
        query_vectors = torch.stack((low, high), dim=1).unsqueeze(1)  # [kv_heads, rows, vectors, head_dim]
    else:
        query_vectors = grouped.unsqueeze(2)
    scores = torch.einsum("hrvd,phvd->hrp", query_vectors, summaries)
    first_tokens = torch.arange(sequence.logical_pages, device=query.device) * layout.page_size
    return scores.masked_fill(first_tokens >= sequence.length_tokens, float("-inf"))
