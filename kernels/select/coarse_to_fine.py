"""Coarse-to-fine selection: in a long context only the pages of the most promising superpages are scored.

A *superpage* is `SUPERPAGE_PAGES` consecutive logical pages. Beside its own summary a page keeps one of all keys from
the start of its superpage to its own end: the last page of a superpage has the summary of the whole superpage, and
sequences that share their first pages share these summaries too. Scoring and selecting superpages first leaves a
bounded number of pages to score, the *candidates*, however long the context is. What this costs in quality is in
`docs/evaluation.md`.
"""

from __future__ import annotations

SUPERPAGE_PAGES = 16
# Candidates for each page that is read; by perplexity so many lose nothing. A power of two within these bounds.
CANDIDATES_PER_PAGE, LEAST_CANDIDATES, MOST_CANDIDATES = 8, 512, 2048
# Up to here scoring every page is faster than selecting coarse to fine (`docs/kernels.md`).
MOST_PAGES_SCORED = 4096
# Selecting among more superpages would take as long as among pages.
MOST_SUPERPAGES = 8192


def candidate_pages(budget_pages: int) -> int:
    """How many pages are scored in a coarse-to-fine selection."""
    wanted = 1 << (budget_pages * CANDIDATES_PER_PAGE - 1).bit_length()
    return min(max(wanted, LEAST_CANDIDATES), MOST_CANDIDATES)


def is_coarse_to_fine(levels: int, logical_pages: int, budget_pages: int) -> bool:
    """Whether pages are selected coarse to fine: superpages first, then among the pages of the best superpages."""
    return (
        levels == 2
        and MOST_PAGES_SCORED < logical_pages <= MOST_SUPERPAGES * SUPERPAGE_PAGES
        and budget_pages * CANDIDATES_PER_PAGE <= MOST_CANDIDATES
    )


def scored_summaries(levels: int, logical_pages: int, budget_pages: int) -> int:
    """How many summaries are read to select among so many pages."""
    if not is_coarse_to_fine(levels, logical_pages, budget_pages):
        return logical_pages
    return -(-logical_pages // SUPERPAGE_PAGES) + candidate_pages(budget_pages)
