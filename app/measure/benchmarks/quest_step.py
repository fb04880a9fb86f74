"""One Quest step as `bench kernels` measures it: the whole as a decoder runs it, and its parts, each on its own.

The whole may do in one launch what are launches of their own here, so that it can take less than the parts together.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from app.measure.benchmarks.kernel_cases import KernelCase
from kernels.reference import narrows
from quest_core.config import QuestConfig
from quest_core.page_selection import POLICIES, SelectedPages


class QuestStep:
    """Quest's attention of one token in each of a case's layers."""

    def __init__(self, case: KernelCase, token_budget: int, kernels: ModuleType) -> None:
        self._case = case
        self._kernels = kernels
        self._config = QuestConfig(token_budget=token_budget)
        self._policy = POLICIES[case.layout.selection](self._config, case.layout.page_size, kernels)

    def run(self, layer: int) -> tuple[torch.Tensor, SelectedPages]:
        """The whole step of one layer: what is attended, [query_heads, head_dim], and the pages read."""
        return self._policy.attend(*self._inputs(layer), self._case.scale)

    def calls(self) -> dict[str, Callable[[int], Any]]:
        """Part name -> a call that runs that part alone, on inputs computed here; and `total`, the whole step.

        Where superpages are scored first, scoring and selecting are no parts that could run alone.
        """
        if self._narrows:
            chosen = [self.run(layer)[1] for layer in range(len(self._case.layers))]
            return {
                "attend": lambda layer: self._attend(layer, chosen[layer].page_ids, chosen[layer].page_counts),
                "total": self.run,
            }
        layers = range(len(self._case.layers))
        scores = [self._score(layer) for layer in layers]
        selected = [self._select(scores[layer]) for layer in layers]
        return {
            "score": self._score,
            "select": lambda layer: self._select(scores[layer]),
            "attend": lambda layer: self._attend(layer, *selected[layer][:2]),
            "total": self.run,
        }

    @property
    def _narrows(self) -> bool:
        budget_pages = self._config.budget_pages(self._case.layout.page_size)
        return narrows(self._case.layout.summary_levels, len(self._case.page_table), budget_pages)

    def _inputs(self, layer: int) -> tuple[Any, ...]:
        case = self._case
        return case.queries[layer], case.layers[layer], case.page_table, case.context_tokens

    def _score(self, layer: int) -> torch.Tensor:
        return self._policy.score(*self._inputs(layer))

    def _select(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        page_size = self._case.layout.page_size
        return self._kernels.select_pages(
            scores,
            self._case.context_tokens,
            page_size,
            self._config.budget_pages(page_size),
            self._config.sink_pages,
            self._config.recent_pages,
            self._policy.scores_are_logits,
        )

    def _attend(self, layer: int, page_ids: torch.Tensor, page_counts: torch.Tensor) -> torch.Tensor:
        query, pages, page_table, context_tokens = self._inputs(layer)
        return self._kernels.sparse_decode_attention(
            query,
            pages.key_pages,
            pages.value_pages,
            page_table,
            page_ids,
            page_counts,
            context_tokens,
            self._case.scale,
            pages.kv_scales,
        )
