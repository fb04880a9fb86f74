"""How much of each document page an answer's steps select, above what a neutral text selects: while it is written.

Counts of selected KV pages alone name the last document pages for every question. So a page is compared with itself: a
few tokens that could answer anything are decoded after the same documents, with the same selection, and what they
select of each document page in each layer is the page's usual level. Layers are compared one by one, and those that are
far above it count for more. It tells less than the attention that an answer's end is looked at with
(`answer_reads` beside this), but needs nothing of an answer's own steps; how much less is in docs/sources.md.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.chat.answers.reads.answer_reads import NEUTRAL_TEXTS
from app.chat.prompt.plan import PromptPlan
from app.library import Document

if TYPE_CHECKING:
    from quest_core.config import QuestConfig
    from quest_core.decode.read_trace import StepReads
    from quest_core.engine import Cancellation
    from quest_core.session import Session

# More neutral tokens told the right page no more often; with eight it did less often, with four hardly ever.
_NEUTRAL_TOKENS = 16
_LEAST_NEUTRAL_TOKENS = 8
# No longer than that between the answer's first word and its second, unless the machine is too busy even for the least.
_MOST_S = 1.0
_KEPT_LEVELS = 16
# Added to both shares that are compared, over the number of document pages: one that is hardly selected says nothing.
_LEAST_SHARE = 2e-2


@dataclass(frozen=True)
class PlacedPage:
    """A document page in context, and where its tokens stand: start and end of each range, end excluded."""

    document: Document
    page_index: int
    page_label: str
    token_ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class UsualLevels:
    """float32 [layers, document pages]: the share of a layer's selected tokens that each document page usually has."""

    shares: np.ndarray


def placed_pages(plan: PromptPlan) -> tuple[PlacedPage, ...]:
    """The document pages that have tokens in a prompt, by their first token in it."""
    pages: dict[tuple[str, int], PlacedPage] = {}
    for span in plan.spans:
        if span.document is None:
            continue
        key = (span.document.document_id, span.page_index)
        before = pages[key].token_ranges if key in pages else ()
        token_range = (span.start_token, span.end_token)
        pages[key] = PlacedPage(span.document, span.page_index, span.page_label, (*before, token_range))
    return tuple(pages.values())


class SelectedTokens:
    """Adds up, layer by layer, what steps select of each document page.

    Args:
        pages: document pages in context.
        page_size: tokens of a KV page.
    """

    def __init__(self, pages: Sequence[PlacedPage], page_size: int) -> None:
        self._page_size = page_size
        token_ranges = [(index, *each) for index, page in enumerate(pages) for each in page.token_ranges]
        self._owners, self._starts, self._ends = np.array(token_ranges, dtype=np.int64).reshape(-1, 3).T
        self._page_count = len(pages)
        self._kv_pages = -(-int(self._ends.max(initial=0)) // page_size)
        self._counts = np.zeros((0, self._kv_pages), dtype=np.int32)
        self.steps = 0

    def add(self, reads: StepReads) -> None:
        """Add a step; its dense layers and the KV pages that every step reads are left out.

        A step that chose nothing, because it read everything, does not count.
        """
        if reads.dense_layers == len(reads.page_reads):
            return
        step = reads.page_reads[reads.dense_layers :, : self._kv_pages].astype(np.int32)
        step[:, [page for page in reads.always_read_pages if page < step.shape[1]]] = 0
        if not len(self._counts):
            self._counts = np.zeros((len(step), self._kv_pages), dtype=np.int32)
        self._counts[:, : step.shape[1]] += step
        self.steps += 1

    def shares(self) -> np.ndarray:
        """float32 [layers, document pages]: of the tokens that each layer has selected in all of them together."""
        before = np.zeros((len(self._counts), self._kv_pages + 2), dtype=np.float64)
        np.cumsum(self._counts, axis=1, out=before[:, 1:-1])
        before[:, -1] = before[:, -2]
        # A KV page across two document pages counts for each by the tokens that it holds of it.
        inside = self._before(before, self._ends) - self._before(before, self._starts)
        of_pages = np.zeros((len(self._counts), self._page_count), dtype=np.float64)
        np.add.at(of_pages, (slice(None), self._owners), inside)
        return (of_pages / np.maximum(of_pages.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)

    def _before(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """[layers, tokens]: reads of all that stands before each token."""
        pages, within = tokens // self._page_size, tokens % self._page_size / self._page_size
        return before[:, pages] + within * (before[:, pages + 1] - before[:, pages])

    def factors(self, usual: UsualLevels) -> list[float]:
        """How many times as much as usual each document page was selected, as a root mean square over the layers."""
        shares, least = self.shares(), _LEAST_SHARE / max(1, self._page_count)
        if shares.shape != usual.shares.shape:
            return []
        return np.sqrt((((shares + least) / (usual.shares + least)) ** 2).mean(axis=0)).tolist()


class SelectionLevels:
    """The usual levels of contexts, kept for those used last.

    Args:
        encode: text -> token ids.
        page_size: tokens of a KV page.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], page_size: int) -> None:
        self._page_size = page_size
        self._tokens = [token for text in NEUTRAL_TEXTS for token in encode(text)][:_NEUTRAL_TOKENS]
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, UsualLevels] = OrderedDict()

    def usual(
        self,
        session: Session,
        plan: PromptPlan,
        quest: QuestConfig,
        cancellation: Cancellation,
        most_s: float = _MOST_S,
    ) -> UsualLevels | None:
        """The usual levels of a prompt's documents; call inside a job, while no step of the session is on its way.

        Args:
            session: begins with the tokens of `plan`; stays as it is.
            plan: the prompt.
            quest: how the answer's steps select.
            cancellation: asked between tokens.
            most_s: how long it may take, about; levels that were cut short are not kept for another answer.

        Returns:
            None without document pages or selection, or where there was no room or no time.
        """
        from quest_core.cache.paged_kv_cache import PoolExhausted

        pages = placed_pages(plan)
        end = max((end for page in pages for _, end in page.token_ranges), default=0)
        if not pages or len(plan.token_ids) <= quest.token_budget or session.reads_all(quest):
            return None
        key = hash((tuple(plan.token_ids[:end]), quest))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            selected = self._select(session, plan, pages, end, quest, cancellation, most_s)
        except (PoolExhausted, ValueError):
            # Without room for a few tokens more the answer goes without.
            return None
        if selected.steps < _LEAST_NEUTRAL_TOKENS:
            return None
        levels = UsualLevels(selected.shares())
        if selected.steps < len(self._tokens):
            return levels
        with self._lock:
            self._kept[key] = levels
            while len(self._kept) > _KEPT_LEVELS:
                self._kept.popitem(last=False)
        return levels

    def _select(
        self,
        session: Session,
        plan: PromptPlan,
        pages: Sequence[PlacedPage],
        end: int,
        quest: QuestConfig,
        cancellation: Cancellation,
        most_s: float,
    ) -> SelectedTokens:
        selected, until = SelectedTokens(pages, self._page_size), time.perf_counter() + most_s
        fork = session.fork()
        try:
            fork.truncate(end)
            # The logits after the last token that is left; with as much room, so that the cache stays as it is.
            for _ in fork.prefill(plan.token_ids[:end], cancellation, session.max_tokens - end):
                pass
            for token in fork.score(self._tokens, quest, cancellation):
                if token.reads is not None:
                    selected.add(token.reads)
                if not selected.steps:
                    # Before the question the text is shorter: it is read as a whole.
                    break
                if time.perf_counter() > until and selected.steps >= _LEAST_NEUTRAL_TOKENS:
                    break
        finally:
            fork.close()
        return selected
