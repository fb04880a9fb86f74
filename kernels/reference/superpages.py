"""Two levels of summaries: in a long context only the pages of the most promising superpages are scored.

A *superpage* is `SUPERPAGE_PAGES` consecutive logical pages. Beside its own summary a page keeps that of all keys from
the start of its superpage to its own end, so that the last page of a superpage speaks for all of it, and sequences that
share their first pages share these too. Scoring and selecting superpages first leaves a few pages to score, the
*candidates*, however long the context is. What it costs in quality is in `EVALUATION.md`.
"""

from __future__ import annotations

import torch

SUPERPAGE_PAGES = 16
# So many candidates for each page that is read lose next to nothing; a power of two within these bounds.
CANDIDATES_PER_PAGE, LEAST_CANDIDATES, MOST_CANDIDATES = 8, 512, 2048
# Up to so many pages are scored sooner than narrowed down (`kernels/NOTES.md`).
MOST_PAGES_SCORED = 4096
# More of them would take as long to select among as pages do.
MOST_SUPERPAGES = 8192
# Vectors that a summary keeps of a page's keys.
SUMMARY_VECTORS = {"bounds": 2, "spread": 2, "mean": 1}
# Deviations of pages do not make one of a superpage.
TWO_LEVEL_SUMMARIES = ("bounds", "mean")


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


def candidate_pages(budget_pages: int) -> int:
    """How many pages are left to score where pages are narrowed down."""
    wanted = 1 << (budget_pages * CANDIDATES_PER_PAGE - 1).bit_length()
    return min(max(wanted, LEAST_CANDIDATES), MOST_CANDIDATES)


def narrows(levels: int, logical_pages: int, budget_pages: int) -> bool:
    """Whether the pages of a table are narrowed down by superpages before some of them are selected."""
    return (
        levels == 2
        and MOST_PAGES_SCORED < logical_pages <= MOST_SUPERPAGES * SUPERPAGE_PAGES
        and budget_pages * CANDIDATES_PER_PAGE <= MOST_CANDIDATES
    )


def scored_summaries(levels: int, logical_pages: int, budget_pages: int) -> int:
    """Summaries that are read to select among so many pages."""
    if not narrows(levels, logical_pages, budget_pages):
        return logical_pages
    return -(-logical_pages // SUPERPAGE_PAGES) + candidate_pages(budget_pages)


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
