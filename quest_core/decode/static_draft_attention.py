"""What drafts attend to where steps are captured: a list of pages at a fixed address, made by a round's first draft.

The first draft of a round selects; the others read what it selected, as on the CPU (`draft_attention`): at 128K tokens
an H200 takes 34 us a layer to score, select and attend, of which attention is 5 (docs/kernels.md, the shape 32/8). The
pages that the drafts themselves begin are listed with them. Knows nothing of how drafts are verified.
"""

from __future__ import annotations

import torch

from kernels.contract import CacheLayout, Kernels, LayerCache, PageBudget, SelectedPages, SequenceView
from quest_core.config import QuestConfig
from quest_core.decode.attention import page_budget
from quest_core.decode.draft_length import MOST_DRAFTS


class DraftPages:
    """The pages that the drafts of a round read, of all layers that select.

    The list is as long as the budget, so that attention is cut as Quest's steps are: what the drafts may begin is taken
    off what the first of them selects, unless no more is left than is always read.

    Args:
        quest: what to read.
        layout: of the cache.
        num_layers: of the model.
        device: of the cache.

    Attributes:
        selected: how many pages the first draft selects.
        page_ids: int32 [selecting layers, kv_heads, pages], as in `SelectedPages`.
        page_counts: int32 [kv_heads], how many of them the next draft reads.

    Raises:
        ValueError: if the budget is smaller than what is always read.
    """

    def __init__(self, quest: QuestConfig, layout: CacheLayout, num_layers: int, device: torch.device) -> None:
        budget = page_budget(quest, layout.page_size)
        begun = -(-MOST_DRAFTS // layout.page_size)
        always_read = 1 + budget.sink_pages + budget.recent_pages
        self.selected: PageBudget = budget._replace(pages=max(budget.pages - begun, always_read))
        self._page_size = layout.page_size
        shape = (num_layers - quest.dense_layers, layout.kv_heads, self.selected.pages + begun)
        self.page_ids = torch.zeros(shape, dtype=torch.int32, device=device)
        self.page_counts = torch.zeros(layout.kv_heads, dtype=torch.int32, device=device)
        self._after_last = torch.arange(1, begun + 1, dtype=torch.int32, device=device)

    def hold(self, page_ids: list[torch.Tensor], sequence: SequenceView) -> None:
        """Take up what the first draft has selected, and list the pages that follow its token's."""
        self.page_ids[:, :, : self.selected.pages].copy_(torch.stack(page_ids))
        self.page_ids[:, :, self.selected.pages :].copy_(self._last_page(sequence) + self._after_last)

    def count(self, sequence: SequenceView) -> None:
        """Let the next draft read the listed pages up to its token's, which is the last of `sequence`."""
        begun = self._last_page(sequence) - self.page_ids[0, 0, self.selected.pages] + 1
        self.page_counts.copy_((begun + self.selected.pages).expand_as(self.page_counts))

    def _last_page(self, sequence: SequenceView) -> torch.Tensor:
        """int32 [1]"""
        return (sequence.length_tokens - 1).div(self._page_size, rounding_mode="floor")


class StaticDraftAttention:
    """Attention of a draft in every layer; an `Attention`.

    Args:
        kernels: the device's operators.
        scale: of the logits.
        dense_layers: the first layers, which read everything.
        pages: that the drafts of a round read.
        selects: whether it is a round's first draft.
    """

    def __init__(self, kernels: Kernels, scale: float, dense_layers: int, pages: DraftPages, selects: bool) -> None:
        self._kernels = kernels
        self._scale = scale
        self._dense_layers = dense_layers
        self._pages = pages
        self._selects = selects
        self._selected: list[torch.Tensor] = []

    def begin(self, sequence: SequenceView) -> None:
        """Before the step's layers."""
        self._selected = []
        if not self._selects:
            self._pages.count(sequence)

    def finish(self, sequence: SequenceView) -> None:
        """After the step's layers."""
        if self._selects:
            self._pages.hold(self._selected, sequence)
            self._selected = []

    def __call__(self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> torch.Tensor:
        """See `DecodeAttention.__call__`."""
        index = layer - self._dense_layers
        if index < 0:
            return self._kernels.dense_decode_attention(query, cache, sequence, self._scale)
        if not self._selects:
            listed = SelectedPages(self._pages.page_ids[index], self._pages.page_counts)
            return self._kernels.sparse_decode_attention(query, cache, sequence, listed, self._scale)
        budget = self._pages.selected
        attended, selected = self._kernels.choose_and_attend(query, cache, sequence, budget, self._scale)
        self._selected.append(selected.page_ids)
        return attended
