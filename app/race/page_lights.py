"""How much of each document page a decode step read: what a lane of the race lights up.

Sums a step's page reads over layers and kv heads and splits them over the document pages in context. Knows nothing
of the race, or of how it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from app.chat.prompt.plan import PromptPlan
    from quest_core.decode.read_trace import StepReads


@dataclass(frozen=True)
class PageInContext:
    """A document page with text in the prompt.

    Args:
        document_id, document: its document, and what people call it.
        page_index, page_label: of the page.
        tokens: of its text in the prompt.
    """

    document_id: str
    document: str
    page_index: int
    page_label: str
    tokens: int


class PageLights:
    """Reads by document page, for one prompt.

    Args:
        plan: the prompt.
        page_size: tokens of a KV page.

    Attributes:
        pages: the document pages in context, in the order of the prompt.
    """

    def __init__(self, plan: PromptPlan, page_size: int) -> None:
        self._page_size = page_size
        indices: dict[tuple[str, int], int] = {}
        spans = [span for span in plan.spans if span.document is not None]
        self._page_of_span = np.array(
            [indices.setdefault((span.document.document_id, span.page_index), len(indices)) for span in spans],
            dtype=np.int64,
        )
        self._starts = np.array([span.start_token for span in spans], dtype=np.int64)
        self._ends = np.array([span.end_token for span in spans], dtype=np.int64)
        self._tokens = np.bincount(self._page_of_span, self._ends - self._starts, len(indices))
        named = {indices[span.document.document_id, span.page_index]: span for span in spans}
        self.pages = tuple(
            PageInContext(
                span.document.document_id, span.document.shown_name, span.page_index, span.page_label, int(tokens)
            )
            for span, tokens in zip((named[index] for index in range(len(named))), self._tokens, strict=True)
        )

    def percent_read(self, reads: StepReads) -> list[int]:
        """How much of each page's text a step read, averaged over layers and kv heads; in percent, 1 at the least
        where anything was read."""
        if not self.pages:
            return []
        layers = reads.page_reads.shape[0]
        counts = reads.page_reads.sum(axis=0, dtype=np.int64)  # [KV pages]
        # Reads of all tokens before a position: whole KV pages, and of the one it lies in a part.
        before = np.concatenate(([0], np.cumsum(counts)))
        padded = np.append(counts, 0)

        def reads_before(positions: np.ndarray) -> np.ndarray:
            pages = np.minimum(positions // self._page_size, len(counts))
            return before[pages] * self._page_size + padded[pages] * (positions - pages * self._page_size)

        in_spans = reads_before(self._ends) - reads_before(self._starts)
        read = np.bincount(self._page_of_span, in_spans, len(self.pages)) / (self._tokens * layers * reads.kv_heads)
        return np.where(read > 0, np.clip(np.rint(100 * read), 1, 100), 0).astype(int).tolist()
