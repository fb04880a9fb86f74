"""Choose the pages to read from their scores; Numba.

Finds the lowest score that still gets in by counting its bits from the highest on, a few at a time, and then collects
the pages in order: a set needs no sort.
"""

from __future__ import annotations

import numpy as np
import torch

from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView, check_selection
from kernels.cpu_tools.checks import require_float32
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.exponentials import exponentiate
from kernels.cpu_tools.vectors import address_of, largest_of
from kernels.score.cpu import page_scores

BINS = 1 << 11
ALWAYS_READ = np.uint32(0xFFFFFFFF)
SIGN = np.uint32(0x80000000)


@compiled
def add_softmax_mass(weights, factors, chunk_pages, importance):
    """Add a row's `weights` to `importance`, each chunk of them times its factor."""
    for chunk in range(len(factors)):
        first, factor = chunk * chunk_pages, factors[chunk]
        for page in range(first, min(first + chunk_pages, len(importance))):
            importance[page] += weights[page] * factor


@compiled
def merge_softmax(maxima, totals, factors):
    """By what to multiply each chunk's exponentials, taken over its own maximum, for the softmax over all."""
    highest = np.float32(-np.inf)
    for chunk in range(len(maxima)):
        highest = max(highest, maxima[chunk])
    total = np.float32(0.0)
    for chunk in range(len(maxima)):
        factors[chunk] = np.exp(maxima[chunk] - highest)
        total += factors[chunk] * totals[chunk]
    for chunk in range(len(maxima)):
        factors[chunk] /= total


@compiled
def select_best(importance, budget, ranks, candidates, page_ids):
    """Write the logical pages of one kv head, ascending; returns their summed importance.

    Args:
        importance: float32 [pages].
        budget: a `PageBudget`.
        ranks: uint32 [pages] to work in; `candidates` int32 [pages].
        page_ids: int32 [budget.pages], padded with -1.
    """
    pages = len(importance)
    count = min(budget.pages, pages)
    bits = importance.view(np.uint32)
    for page in range(pages):
        # In the order of the floats: the bits of negative ones run backwards, and there is a zero of either sign.
        negative = bits[page] > SIGN
        ranks[page] = ~bits[page] if negative else bits[page] | SIGN
    ranks[: budget.sink_pages] = ALWAYS_READ
    ranks[max(0, pages - 1 - budget.recent_pages) :] = ALWAYS_READ
    lowest, ties = _find_lowest(ranks, count, candidates)
    taken = 0
    total = np.float32(0.0)
    for page in range(pages):
        rank = ranks[page]
        if rank >= lowest and (rank > lowest or ties > 0):
            if rank == lowest:
                ties -= 1
            page_ids[taken] = page
            taken += 1
            total += importance[page]
    page_ids[taken:] = -1
    return total


@compiled
def _find_lowest(ranks, count, candidates):
    """The rank of the last of the `count` best, and how many of that rank get in."""
    lowest = np.uint32(0)
    left = len(ranks)
    counts = np.empty(BINS, np.int32)
    for shift, width in ((21, 11), (10, 11), (0, 10)):
        mask = np.uint32((1 << width) - 1)
        counts[:] = 0
        if shift == 21:
            for page in range(left):
                counts[ranks[page] >> np.uint32(shift)] += 1
        else:
            for index in range(left):
                counts[(ranks[candidates[index]] >> np.uint32(shift)) & mask] += 1
        found = (1 << width) - 1
        while counts[found] < count:
            count -= counts[found]
            found -= 1
        lowest |= np.uint32(found) << np.uint32(shift)
        kept = 0
        if shift == 21:
            for page in range(left):
                candidates[kept] = page
                kept += (ranks[page] >> np.uint32(shift)) == np.uint32(found)
        else:
            for index in range(left):
                page = candidates[index]
                candidates[kept] = page
                kept += ((ranks[page] >> np.uint32(shift)) & mask) == np.uint32(found)
        left = kept
    return lowest, count


@compiled
def _select_pages(scores, pages, budget, logits, page_ids, missed_mass):
    kv_heads, rows, _ = scores.shape
    ranks, candidates = np.empty(pages, np.uint32), np.empty(pages, np.int32)
    for head in range(kv_heads):
        importance = np.zeros(pages, dtype=np.float32)
        weights = np.empty(pages, dtype=np.float32)
        for row in range(rows):
            if logits:
                row_scores = scores[head, row, :pages]
                highest = largest_of(address_of(row_scores), pages)
                factor = np.float32(1.0) / exponentiate(row_scores, highest, weights)
                add_softmax_mass(weights, np.full(1, factor, np.float32), pages, importance)
            else:
                # A loop, as `compile` says.
                for page in range(pages):
                    importance[page] = scores[head, 0, page]
        read = select_best(importance, budget, ranks, candidates, page_ids[head])
        missed_mass[head] = np.float32(1.0) - read / np.float32(rows)


def select_pages(
    scores: torch.Tensor, length_tokens: torch.Tensor, page_size: int, budget: PageBudget, logits: bool
) -> SelectedPages:
    """As `kernels.reference.naive_select_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, several rows are no logits, or scores are not
            float32.
    """
    require_float32(scores=scores)
    check_selection(scores, budget, logits)
    kv_heads, pages = len(scores), -(-int(length_tokens) // page_size)
    page_ids = torch.empty(kv_heads, budget.pages, dtype=torch.int32)
    missed_mass = torch.empty(kv_heads)
    _select_pages(scores.numpy(), pages, budget, logits, page_ids.numpy(), missed_mass.numpy())
    page_counts = torch.full((kv_heads,), min(budget.pages, pages), dtype=torch.int32)
    return SelectedPages(page_ids, page_counts, missed_mass if logits else None)


def choose_pages(
    query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
) -> SelectedPages:
    """As `kernels.reference.naive_choose_pages`.

    Raises:
        ValueError: if the budget is smaller than what is always read, or for another dtype, device or layout.
    """
    layout = cache.layout
    scores = page_scores(query, cache, sequence, scale)
    return select_pages(scores, sequence.length_tokens, layout.page_size, budget, layout.summary.scores_are_logits)
