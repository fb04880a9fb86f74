"""What reads KV pages: score, select, attend."""

from __future__ import annotations

import math

import torch

from kernels.reference.float8 import widen
from kernels.reference.page_summaries import KvScales, check_levels, check_summary
from kernels.reference.superpages import SUPERPAGE_PAGES, candidate_pages, narrows

# Whether scores by a summary are logits, of which a softmax makes shares of attention.
SUMMARY_LOGITS = {"bounds": False, "spread": True, "mean": True}


def naive_page_scores(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None = None,
) -> torch.Tensor:
    """Score pages: the dot products of a page's summary vectors with as many functions of the query, added up.

    With "bounds" a kv head's pages get one score: the upper bound `sum_d max(q_d min_d, q_d max_d)` of their logits
    (arXiv 2406.10774, algorithm 1), meaned over the group. It is linear in relu(q) and -relu(-q), so these are meaned.
    With "mean" and "spread" they get one for each query head of the group: `q @ mean`, `q @ mean + |q| @ deviation`.

    Args:
        query: [query_heads, head_dim], after RoPE.
        page_summaries: [physical_pages, kv_heads, vectors, head_dim], those of superpages not looked at.
        page_table: int32 [logical_pages].
        context_tokens: int32 [1], the current token included.
        page_size: tokens in a page.
        summary: what the vectors are, see `naive_append_keys_values`.
        scale: of the logits.
        summary_scales: float32 [physical_pages, kv_heads, vectors], of int8 summaries.

    Returns:
        float32 [kv_heads, rows, logical_pages], -inf for pages beyond the context; rows is 1 or the group.

    Raises:
        ValueError: for another summary.
    """
    check_levels(page_summaries, summary)
    own = slice(0, check_summary(summary))
    summaries = page_summaries[page_table.long(), :, own].float()  # [logical_pages, kv_heads, vectors, head_dim]
    if summary_scales is not None:
        summaries = summaries * summary_scales[page_table.long(), :, own].unsqueeze(3)
    grouped = query.float().view(page_summaries.shape[1], -1, query.shape[1]) * scale
    if summary == "bounds":
        low, high = grouped.clamp(max=0).mean(dim=1), grouped.clamp(min=0).mean(dim=1)
        functions = torch.stack((low, high), dim=1).unsqueeze(1)  # [kv_heads, rows, vectors, head_dim]
    elif summary == "mean":
        functions = grouped.unsqueeze(2)
    else:
        functions = torch.stack((grouped, grouped.abs()), dim=2)
    scores = torch.einsum("hrvd,phvd->hrp", functions, summaries)
    beyond = torch.arange(len(page_table), device=scores.device) * page_size >= context_tokens
    return scores.masked_fill(beyond, float("-inf"))


def naive_select_pages(
    scores: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    logits: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The pages to read: those always read, then the best scores; of equal scores the earlier page.

    Always read are the page of the last token, the first `sink_pages`, and the `recent_pages` before the last.

    Args:
        scores: float32 [kv_heads, rows, logical_pages].
        context_tokens: int32 [1].
        page_size: tokens in a page.
        budget_pages: pages to read per kv head, those always read included.
        logits: the scores are logits, of which a softmax over the pages makes each row's shares of attention; a page
            is ranked by the mean share of its rows. Otherwise there must be one row, and it ranks as it is.

    Returns:
        page_ids: int32 [kv_heads, budget_pages], logical, ascending, padded with -1.
        page_counts: int32 [kv_heads], how many of them are real.
        missed_share: float32 [kv_heads], the share of attention that the other pages would get; None without logits.

    Raises:
        ValueError: if the budget is smaller than what is always read, or several rows are no logits.
    """
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    pages = -(-int(context_tokens) // page_size)
    ranked = scores[:, :, :pages]
    worth = ranked.softmax(dim=2).mean(dim=1) if logits else ranked[:, 0]
    page_ids, page_counts, best = _take_best(worth, budget_pages, sink_pages, recent_pages)
    return page_ids, page_counts, 1.0 - worth.gather(1, best).sum(dim=1) if logits else None


def _take_best(
    worth: torch.Tensor, budget_pages: int, sink_pages: int, recent_pages: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Select among the pages of a context by their worth, float32 [kv_heads, pages].

    Returns:
        page_ids, page_counts: as `naive_select_pages`.
        best: int64 [kv_heads, count], the same pages, the best first.
    """
    kv_heads, pages = worth.shape
    ranked = worth.clone()
    ranked[:, :sink_pages] = float("inf")
    ranked[:, max(0, pages - 1 - recent_pages) :] = float("inf")
    count = min(budget_pages, pages)
    best = ranked.sort(dim=1, descending=True, stable=True).indices[:, :count]
    page_ids = torch.full((kv_heads, budget_pages), -1, dtype=torch.int32, device=worth.device)
    page_ids[:, :count] = best.sort(dim=1).values.int()
    return page_ids, torch.full((kv_heads,), count, dtype=torch.int32, device=worth.device), best


def check_selection(
    scores: torch.Tensor, budget_pages: int, sink_pages: int, recent_pages: int, logits: bool
) -> None:
    """Raises ValueError if the budget is smaller than what is always read, or several rows are no logits."""
    check_budget(budget_pages, sink_pages, recent_pages)
    if scores.shape[1] > 1 and not logits:
        raise ValueError(f"scores must have one row a kv head, got {scores.shape[1]}")


def check_budget(budget_pages: int, sink_pages: int, recent_pages: int) -> None:
    """Raises ValueError if the budget is smaller than what is always read."""
    if budget_pages < 1 + sink_pages + recent_pages:
        raise ValueError(f"budget_pages {budget_pages} is less than the pages that are always read")


def naive_choose_pages(
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Score pages and select the best; arguments as for `naive_page_scores`, then as for `naive_select_pages`.

    Where `narrows` says so, only pages of the best superpages are scored. These are selected as pages are, with those
    of pages that are always read; the other superpages' pages count for shares as if all their keys were its mean.

    Returns:
        As `naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another summary.
    """
    logits = SUMMARY_LOGITS[summary]
    scoring = (query, page_summaries, page_table, context_tokens, page_size, summary, scale, summary_scales)
    scores = naive_page_scores(*scoring)
    if not narrows(check_levels(page_summaries, summary), len(page_table), budget_pages):
        return naive_select_pages(scores, context_tokens, page_size, budget_pages, sink_pages, recent_pages, logits)
    check_selection(scores, budget_pages, sink_pages, recent_pages, logits)
    ranked, others = _narrow(scores, *scoring, budget_pages, sink_pages, recent_pages)
    if not logits:
        page_ids, page_counts, _ = _take_best(ranked[:, 0], budget_pages, sink_pages, recent_pages)
        return page_ids, page_counts, None
    worth = torch.cat((ranked, others), dim=2).softmax(dim=2)[:, :, :-1].mean(dim=1)
    page_ids, page_counts, best = _take_best(worth, budget_pages, sink_pages, recent_pages)
    return page_ids, page_counts, 1.0 - worth.gather(1, best).sum(dim=1)


def _narrow(
    scores: torch.Tensor,
    query: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    page_size: int,
    summary: str,
    scale: float,
    summary_scales: torch.Tensor | None,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave the scores of the candidates, the pages of the best superpages.

    Returns:
        float32 [kv_heads, rows, pages of the context], -inf for pages that are no candidates; and [kv_heads, rows, 1],
        the logit of all these together, each with its superpage's.
    """
    pages = -(-int(context_tokens) // page_size)
    superpages = -(-pages // SUPERPAGE_PAGES)
    last_pages = (torch.arange(1, superpages + 1, device=scores.device) * SUPERPAGE_PAGES).clamp(max=pages) - 1
    of_superpage = slice(check_summary(summary), None)
    superpage_scores = naive_page_scores(
        query, page_summaries[:, :, of_superpage], page_table[last_pages], context_tokens, page_size * SUPERPAGE_PAGES,
        summary, scale, None if summary_scales is None else summary_scales[:, :, of_superpage],
    )  # fmt: skip
    worth = superpage_scores.softmax(dim=2).mean(dim=1) if SUMMARY_LOGITS[summary] else superpage_scores[:, 0]
    always = (-(-each // SUPERPAGE_PAGES) for each in (sink_pages, recent_pages))
    _, _, best = _take_best(worth, candidate_pages(budget_pages) // SUPERPAGE_PAGES, *always)
    chosen = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, best, True)[:, None]
    candidates = chosen.repeat_interleave(SUPERPAGE_PAGES, dim=2)[:, :, :pages]
    others = superpage_scores.masked_fill(chosen, float("-inf")).logsumexp(dim=2, keepdim=True)
    return scores[:, :, :pages].masked_fill(~candidates, float("-inf")), others + math.log(SUPERPAGE_PAGES)


def naive_sparse_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    page_ids: torch.Tensor,
    page_counts: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """Attention of one token over the selected pages of each kv head.

    Args:
        query: [query_heads, head_dim], after RoPE.
        key_pages, value_pages: [physical_pages, kv_heads, page_size, head_dim], floating; float8_e4m3fn with scales.
        page_table: int32 [logical_pages].
        page_ids: int32 [kv_heads, budget_pages], logical.
        page_counts: int32 [kv_heads], how many of them to read.
        context_tokens: int32 [1]; later tokens of the last page are not attended.
        scale: of the logits.
        kv_scales: what a code of each token's key and value is worth, for 8-bit pages.

    Returns:
        [query_heads, head_dim] in the query's dtype.
    """
    kv_heads, page_size, head_dim = key_pages.shape[1:]
    grouped = query.float().view(kv_heads, -1, head_dim)
    attended = torch.empty_like(grouped)
    for head in range(kv_heads):
        logical = page_ids[head, : int(page_counts[head])].long()
        positions = logical[:, None] * page_size + torch.arange(page_size, device=query.device)
        visible = (positions < context_tokens).flatten()
        physical = page_table.long()[logical]
        keys, values = (
            widen(pages[physical, head], kv_scales and kv_scales[store][physical, head])
            for store, pages in enumerate((key_pages, value_pages))
        )
        keys, values = keys.reshape(-1, head_dim)[visible], values.reshape(-1, head_dim)[visible]
        attended[head] = (grouped[head] @ keys.T * scale).softmax(dim=-1) @ values
    return attended.view_as(query).to(query.dtype)


def naive_choose_and_attend(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_summaries: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    summary: str,
    scale: float,
    budget_pages: int,
    sink_pages: int,
    recent_pages: int,
    summary_scales: torch.Tensor | None = None,
    kv_scales: KvScales | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Attention of one token over the pages that its query chooses (Quest, arXiv 2406.10774, algorithm 1).

    Arguments as for `naive_choose_pages` and `naive_sparse_decode_attention`; `scale` is that of the logits in both.

    Returns:
        attended: [query_heads, head_dim] in the query's dtype.
        page_ids, page_counts, missed_share: as `naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another summary.
    """
    page_ids, page_counts, missed_share = naive_choose_pages(
        query, page_summaries, page_table, context_tokens, key_pages.shape[2], summary, scale, summary_scales,
        budget_pages, sink_pages, recent_pages,
    )  # fmt: skip
    attended = naive_sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales
    )
    return attended, page_ids, page_counts, missed_share


def naive_dense_decode_attention(
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    context_tokens: torch.Tensor,
    scale: float,
    kv_scales: KvScales | None = None,
) -> torch.Tensor:
    """Attention of one token over the whole context; arguments as for `naive_sparse_decode_attention`."""
    kv_heads, page_size = key_pages.shape[1:3]
    pages = -(-int(context_tokens) // page_size)
    page_ids = torch.arange(pages, dtype=torch.int32, device=query.device).expand(kv_heads, -1)
    page_counts = torch.full((kv_heads,), pages, dtype=torch.int32, device=query.device)
    return naive_sparse_decode_attention(
        query, key_pages, value_pages, page_table, page_ids, page_counts, context_tokens, scale, kv_scales
    )
