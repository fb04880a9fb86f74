"""Two levels of summaries: in a long context only the pages of the most promising superpages are scored.

A *superpage* is `SUPERPAGE_PAGES` consecutive logical pages. Beside its own summary a page keeps that of all keys from
the start of its superpage to its own end, so that the last page of a superpage speaks for all of it, and sequences that
share their first pages share these too. Scoring and selecting superpages first leaves a few pages to score, the
*candidates*, however long the context is. What it costs in quality is in `docs/evaluation.md`.
"""

from __future__ import annotations

SUPERPAGE_PAGES = 16
# So many candidates for each page that is read, which by perplexity lose nothing; a power of two within these bounds.
CANDIDATES_PER_PAGE, LEAST_CANDIDATES, MOST_CANDIDATES = 8, 512, 2048
# Up to so many pages are scored sooner than narrowed down (`docs/kernels.md`).
MOST_PAGES_SCORED = 4096
# More of them would take as long to select among as pages do.
MOST_SUPERPAGES = 8192


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
