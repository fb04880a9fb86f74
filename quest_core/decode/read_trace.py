"""Which KV pages each decode step read.

Collects the selected pages of the layers on the device and brings them to the host once a step, as counts. Knows
nothing of what the pages contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.contract import CacheLayout, SelectedPages
from quest_core.cache.cache_layout import scored_bytes, vector_bytes
from quest_core.config import QuestConfig


@dataclass(frozen=True)
class StepReads:
    """What one step read.

    Args:
        page_reads: uint8 [layers, pages]: how many kv heads read the page, or any of its tokens, in that layer; dense
            layers read all.
        kv_heads: the most a count can be.
        always_read_pages: pages that every step reads whatever the query: sink, recent and current.
        dense_layers: the first layers, which read every page; all of them where no layer chose any.
        kv_bytes: of the keys and values that were read and, where pages were scored, of the summaries.
        missed_mass: the estimate by the summaries of the softmax mass that the step did not read, from 0 to 1, averaged
            over the layers that left anything out; None where none did, or where scores are no logits.
    """

    page_reads: np.ndarray
    kv_heads: int
    always_read_pages: tuple[int, ...]
    dense_layers: int
    kv_bytes: int
    missed_mass: float | None = None


@dataclass(frozen=True)
class PageCounts:
    """What the layers that selected pages read in one step, on the device.

    Args:
        layers: these layers.
        page_reads: uint8 [these layers, pages], as in `StepReads`.
        missed_mass: float32 [], as in `StepReads`, also where nothing was left out.
    """

    layers: list[int]
    page_reads: torch.Tensor
    missed_mass: torch.Tensor | None


class ReadTrace:
    """Notes the selection of each layer during a step; `finish_step` turns it into counts.

    Where the host must not wait, `count_pages` leaves the counts on the device and `describe` takes them up later.

    Args:
        quest: what is read.
        layout: of the cache.
        num_layers: of the model.
    """

    def __init__(self, quest: QuestConfig, layout: CacheLayout, num_layers: int) -> None:
        self._quest = quest
        self._layout = layout
        self._num_layers = num_layers
        self._selected: dict[int, SelectedPages] = {}

    def note(self, layer: int, selected: SelectedPages) -> None:
        self._selected[layer] = selected

    def finish_step(self, num_pages: int) -> StepReads:
        """The counts of the step that has just run over `num_pages` pages; starts the next."""
        counts = self.count_pages(num_pages)
        if counts is None:
            return self.describe(num_pages)
        missed_mass = None if counts.missed_mass is None else float(counts.missed_mass)
        return self.describe(num_pages, counts.layers, counts.page_reads.cpu().numpy(), missed_mass)

    def count_pages(self, num_pages: int) -> PageCounts | None:
        """The counts of the step that has just run, all below `num_pages`, on the device; starts the next.

        Returns:
            None where no layer selected pages.
        """
        noted, self._selected = self._selected, {}
        if not noted:
            return None
        missed = [selected.missed_mass for selected in noted.values() if selected.missed_mass is not None]
        # One scatter and one copy a step for all layers; -1 paddings land in a column that is cut off.
        page_ids = torch.stack([selected.page_ids for selected in noted.values()]).flatten(1).long()
        counts = torch.zeros((len(page_ids), num_pages + 1), dtype=torch.int32, device=page_ids.device)
        counts.scatter_add_(1, page_ids % (num_pages + 1), torch.ones_like(page_ids, dtype=torch.int32))
        page_reads = counts[:, :num_pages].clamp_(max=255).to(torch.uint8)
        return PageCounts(list(noted), page_reads, torch.stack(missed).mean() if missed else None)

    def describe(
        self,
        num_pages: int,
        layers: Sequence[int] = (),
        page_reads: np.ndarray | None = None,
        missed_mass: float | None = None,
    ) -> StepReads:
        """A step over `num_pages` pages of which `layers` read what `page_reads` counts, and the others all pages."""
        layout = self._layout
        all_reads = np.full((self._num_layers, num_pages), min(layout.kv_heads, 255), dtype=np.uint8)
        if page_reads is not None:
            all_reads[list(layers)] = page_reads[:, :num_pages]
        page_bytes = 2 * layout.page_size * vector_bytes(layout)
        summary_bytes = scored_bytes(layout, num_pages)
        kv_bytes = int(all_reads.sum(dtype=np.int64)) * page_bytes + len(layers) * layout.kv_heads * summary_bytes
        dense_layers = self._quest.dense_layers if layers else self._num_layers
        always_read = self._always_read(num_pages)
        return StepReads(all_reads, layout.kv_heads, always_read, dense_layers, kv_bytes, missed_mass)

    def _always_read(self, num_pages: int) -> tuple[int, ...]:
        recent_from = max(0, num_pages - 1 - self._quest.recent_pages)
        return tuple(sorted({*range(min(self._quest.sink_pages, num_pages)), *range(recent_from, num_pages)}))
