"""Which KV pages each decode step read.

Collects the selected pages, or the kept tokens, of the layers on the device and brings them to the host once a step, as
counts. Knows nothing of what the pages contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.contract import SelectedPages
from quest_core.config import ModelConfig, QuestConfig
from quest_core.eviction import KeptTokens


@dataclass(frozen=True)
class StepReads:
    """What one step read.

    Args:
        page_reads: uint8 [layers, pages]: how many kv heads read the page, or any of its tokens, in that layer; dense
            layers read all.
        kv_heads: the most a count can be.
        always_read_pages: pages that every step reads whatever the query: sink, recent and current.
        dense_layers: the first layers, which read every page.
        scored_layers: layers that read the summaries of all pages.
        kept_tokens: tokens that each kv head read in the layers after `dense_layers`, with a policy that keeps tokens;
            None with one that reads whole pages.
        missed_mass: the policy's estimate of the softmax mass that the step did not read, from 0 to 1, averaged over
            the layers that left anything out; None where none did, or where scores are no logits.
    """

    page_reads: np.ndarray
    kv_heads: int
    always_read_pages: tuple[int, ...]
    dense_layers: int
    scored_layers: int = 0
    kept_tokens: int | None = None
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
    """

    def __init__(self, model: ModelConfig, quest: QuestConfig, page_size: int) -> None:
        self._model = model
        self._quest = quest
        self._page_size = page_size
        self._selected: dict[int, SelectedPages] = {}
        self._kept: dict[int, KeptTokens] = {}

    def note(self, layer: int, selected: SelectedPages) -> None:
        self._selected[layer] = selected

    def note_tokens(self, layer: int, kept: KeptTokens) -> None:
        self._kept[layer] = kept

    def finish_step(self, num_pages: int) -> StepReads:
        """The counts of the step that has just run over `num_pages` pages; starts the next."""
        if self._kept:
            return self._finish_kept(num_pages)
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
        kv_heads = self._model.num_kv_heads
        all_reads = self._all_read(num_pages)
        if page_reads is not None:
            all_reads[list(layers)] = page_reads[:, :num_pages]
        return StepReads(
            all_reads,
            kv_heads,
            self._always_read(num_pages),
            self._quest.dense_layers,
            len(layers),
            missed_mass=missed_mass,
        )

    def _all_read(self, num_pages: int) -> np.ndarray:
        return np.full((self._model.num_layers, num_pages), min(self._model.num_kv_heads, 255), dtype=np.uint8)

    def _finish_kept(self, num_pages: int) -> StepReads:
        page_reads = self._all_read(num_pages)
        kept = list(self._kept.values())
        page_ids = torch.stack([layer.token_ids for layer in kept]) // self._page_size  # [layers, rows, kept]
        _, rows, kept_tokens = page_ids.shape
        read = torch.zeros((*page_ids.shape[:2], page_reads.shape[1]), dtype=torch.int32, device=page_ids.device)
        counts = read.scatter_(2, page_ids, 1).sum(dim=1) * (self._model.num_kv_heads // rows)
        page_reads[list(self._kept)] = counts.clamp_(max=255).to(torch.uint8).cpu().numpy()
        always_read = tuple(range(kept[0].recent_from // self._page_size, page_reads.shape[1]))
        self._kept = {}
        return StepReads(
            page_reads, self._model.num_kv_heads, always_read, self._quest.dense_layers, kept_tokens=kept_tokens
        )

    def _always_read(self, num_pages: int) -> tuple[int, ...]:
        recent_from = max(0, num_pages - 1 - self._quest.recent_pages)
        return tuple(sorted({*range(min(self._quest.sink_pages, num_pages)), *range(recent_from, num_pages)}))

    def kv_bytes_read(
        self, reads: StepReads | None, num_pages: int, vector_bytes: int, scored_bytes: int
    ) -> int:
        """Bytes of keys, values and, where pages were scored, summaries that a step read.

        Args:
            reads: of the step; None means dense.
            num_pages: pages of the context.
            vector_bytes: of one token's key, or value, of one kv head.
            scored_bytes: of the summaries that one kv head reads where it selects.
        """
        model = self._model
        page_bytes = 2 * self._page_size * vector_bytes
        if reads is None:
            return model.num_layers * model.num_kv_heads * num_pages * page_bytes
        if reads.kept_tokens is not None:
            dense_layers = min(reads.dense_layers, model.num_layers)
            tokens = dense_layers * num_pages * self._page_size + (model.num_layers - dense_layers) * reads.kept_tokens
            return model.num_kv_heads * tokens * 2 * vector_bytes
        read_bytes = int(reads.page_reads.sum(dtype=np.int64)) * page_bytes
        return read_bytes + reads.scored_layers * model.num_kv_heads * scored_bytes
