"""What the drafts of a round of speculative decoding attend to: what Quest selects for the first of them.

The tokens of a round want much the same pages, so that selecting anew for each costs more than it brings. The pages
that the drafts themselves begin are read, too. Knows nothing of how drafts are verified.
"""

from __future__ import annotations

import torch

from kernels.contract import SelectedPages, SequenceView, StepOutcome
from quest_core.config import QuestConfig
from quest_core.decode.attention import DecodeAttention, QuestMethod
from quest_core.decode.draft_length import MOST_DRAFTS


class DraftAttention(DecodeAttention):
    """Quest's attention that selects once a round; nothing is traced.

    Args:
        method: of the session.
        quest: what to read.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """

    def __init__(self, method: QuestMethod, quest: QuestConfig) -> None:
        super().__init__(quest, method.layout, method.num_layers, method.scale, method.kernels, method.costs)
        self._page_size = method.layout.page_size
        self._page_ids: torch.Tensor | None = None  # of all selecting layers, with room for pages that begin later
        self._page_count = 0  # how many of them each kv head reads

    def begin_round(self) -> None:
        """Let the next step select."""
        self._page_ids = None

    def note(self, outcome: StepOutcome) -> None:
        """Hold what the first step of a round has selected."""
        if outcome.selected is None or self._page_ids is not None:
            return
        page_ids, page_counts, _ = outcome.selected
        self._page_count = int(page_counts[0])
        room = page_ids.new_full((*page_ids.shape[:2], -(-MOST_DRAFTS // self._page_size)), -1)
        self._page_ids = torch.cat((page_ids[:, :, : self._page_count], room), dim=2)

    def listed_pages(self, sequence: SequenceView) -> SelectedPages | None:
        """See `DecodeAttention.listed_pages`."""
        page_ids = self._page_ids
        if page_ids is None:
            return None
        # The page of a step's token is always among those that it selects, as the last.
        last_page = (int(sequence.length_tokens) - 1) // self._page_size
        for page in range(int(page_ids[0, 0, self._page_count - 1]) + 1, last_page + 1):
            page_ids[:, :, self._page_count] = page
            self._page_count += 1
        return SelectedPages(page_ids, torch.full((page_ids.shape[1],), self._page_count, dtype=torch.int32))
