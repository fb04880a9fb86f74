"""Which document pages an answer read, and what a KV page holds.

Adds up the KV pages that decode steps chose to read and splits them over the document pages they hold. Knows
nothing of sessions or of how a prompt is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.chat.prompt.plan import PromptPlan
from app.errors import UserFacingError
from app.library import Document

if TYPE_CHECKING:
    from quest_core.decode.read_trace import StepReads

# A page of four tokens means little without its surroundings.
TOKENS_AROUND = 16


@dataclass(frozen=True)
class PageShare:
    """One document page's part of an answer's reads.

    Args:
        document, page_label: its document by name, and the page's label.
        share: 0 to 1, of the page reads beyond what every step reads anyway.
        document_id, page_index: the same page for programs; "" and -1 in reports of earlier versions.
        read_score: how much more of the answer's attention it had than pages at its place have anyway: 1.0 is as
            much; None if that is not known.
    """

    document: str
    page_label: str
    share: float
    document_id: str = ""
    page_index: int = -1
    read_score: float | None = None


class PageReadTotals:
    """Reads of each KV page, summed over the steps of an answer."""

    def __init__(self) -> None:
        self._totals = np.zeros(0, dtype=np.int64)

    def add(self, reads: StepReads) -> None:
        """Add a step; its dense layers and the pages that every step reads are left out."""
        counts = reads.page_reads[reads.dense_layers :].sum(axis=0, dtype=np.int64)  # [pages]
        counts[list(reads.always_read_pages)] = 0
        if len(counts) > len(self._totals):
            self._totals = np.pad(self._totals, (0, len(counts) - len(self._totals)))
        self._totals[: len(counts)] += counts

    def shares(self, plan: PromptPlan, page_size: int) -> tuple[PageShare, ...]:
        """Document pages by share, largest first; pages never read are left out.

        A KV page across several document pages counts for each by the tokens it holds of it, out of `page_size`. What
        is missing to 1 went to instructions and conversation.
        """
        total = int(self._totals.sum())
        if not total:
            return ()
        reads_per_token = np.repeat(self._totals, page_size) / (page_size * total)
        running = np.concatenate(([0.0], np.cumsum(reads_per_token)))
        shares: dict[tuple[str, int], float] = {}
        labels: dict[tuple[str, int], tuple[str, str]] = {}
        for span in plan.spans:
            if span.document is None:
                continue
            start, end = min(span.start_token, len(running) - 1), min(span.end_token, len(running) - 1)
            key = (span.document.document_id, span.page_index)
            labels[key] = (span.document.shown_name, span.page_label)
            shares[key] = shares.get(key, 0.0) + float(running[end] - running[start])
        ranked = sorted(shares.items(), key=lambda item: -item[1])
        return tuple(PageShare(*labels[key], share, *key) for key, share in ranked if share > 0.0)


def scored_pages(
    shares: Sequence[PageShare], scores: Mapping[tuple[str, int], float], documents: Sequence[Document]
) -> tuple[PageShare, ...]:
    """The shares with the pages' read scores; pages that have a score alone come after them, highest first.

    Args:
        shares: of the selected pages; none of an answer with dense attention.
        scores: by document id and page index.
        documents: that the pages are of.
    """
    of_shares = {(share.document_id, share.page_index) for share in shares}
    by_id = {document.document_id: document for document in documents}
    others = []
    for (document_id, page_index), score in sorted(scores.items(), key=lambda item: -item[1]):
        document = by_id.get(document_id)
        if document is not None and (document_id, page_index) not in of_shares:
            label = document.document_pages[page_index].page_label
            others.append(PageShare(document.shown_name, label, 0.0, document_id, page_index, round(score, 3)))
    scored = [_with_score(share, scores.get((share.document_id, share.page_index))) for share in shares]
    return (*scored, *others)


def _with_score(share: PageShare, score: float | None) -> PageShare:
    return replace(share, read_score=None if score is None else round(score, 3))


def page_text(
    plan: PromptPlan,
    generated: Sequence[int],
    page: int,
    page_size: int,
    decode: Callable[[Sequence[int]], str],
) -> dict[str, Any]:
    """What a KV page holds.

    Args:
        plan: the prompt.
        generated: tokens of the answer after it.
        page: number of the KV page.
        page_size: tokens in one.
        decode: token ids -> text.

    Returns:
        page, first_token, last_token, text; text_before and text_after: some tokens around it; parts: its document
        pages (document, document_id, page_label, page_index and the characters start_char to end_char of that page's
        text); role: what most of its tokens are, "document", "conversation" or "instructions".

    Raises:
        UserFacingError: if there is no such page.
    """
    prompt_tokens = len(plan.token_ids)
    total_tokens = prompt_tokens + len(generated)
    first, end = page * page_size, min((page + 1) * page_size, total_tokens)
    if page < 0 or first >= total_tokens:
        raise UserFacingError(f"There is no KV page {page}; the last one is {(total_tokens - 1) // page_size}.")

    def decode_span(start: int, stop: int) -> str:
        answer = generated[max(0, start - prompt_tokens) : max(0, stop - prompt_tokens)]
        return decode([*plan.token_ids[start:stop], *answer])

    role_tokens = {"conversation": max(0, end - max(first, prompt_tokens))}
    parts = []
    for span in plan.spans_between(first, end):
        start_token, end_token = max(first, span.start_token), min(end, span.end_token)
        role_tokens[span.role] = role_tokens.get(span.role, 0) + end_token - start_token
        if span.document is not None:
            characters = span.characters[start_token - span.start_token : end_token - span.start_token]
            parts.append(
                {
                    "document": span.document.shown_name,
                    "document_id": span.document.document_id,
                    "page_label": span.page_label,
                    "page_index": span.page_index,
                    "start_char": int(characters[0, 0]),
                    "end_char": int(characters[-1, 1]),
                }
            )
    return {
        "page": page,
        "first_token": first,
        "last_token": end - 1,
        "text": decode_span(first, end),
        "text_before": decode_span(max(0, first - TOKENS_AROUND), first),
        "text_after": decode_span(end, min(end + TOKENS_AROUND, total_tokens)),
        "parts": parts,
        "role": max(role_tokens, key=lambda role: role_tokens[role]),
    }
