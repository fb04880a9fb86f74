"""One Quest step as `bench kernels` measures it: the whole as a decoder runs it, and its parts, each on its own.

The whole may do in one launch what are launches of their own here, so that it can take less than the parts together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from app.measure.benchmarks.subjects.kernel_cases import KernelCase
from kernels.contract import Kernels, SelectedPages
from quest_core.config import QuestConfig
from quest_core.decode.attention import page_budget


class QuestStep:
    """Quest's attention of one token in each of a case's layers."""

    def __init__(self, case: KernelCase, token_budget: int, kernels: Kernels) -> None:
        self._case = case
        self._kernels = kernels
        self._budget = page_budget(QuestConfig(token_budget=token_budget), case.layout.page_size)

    def run(self, layer: int) -> tuple[torch.Tensor, SelectedPages]:
        """The whole step of one layer: what is attended, [query_heads, head_dim], and the pages read."""
        case = self._case
        return self._kernels.choose_and_attend(
            case.queries[layer], case.layers[layer], case.sequence, self._budget, case.scale
        )

    def calls(self) -> dict[str, Callable[[int], Any]]:
        """Part name -> a call that runs that part alone, on inputs computed here; and `total`, the whole step."""
        layers = range(len(self._case.layers))
        scores = [self._score(layer) for layer in layers]
        selected = [self._select(scores[layer]) for layer in layers]
        return {
            "score": self._score,
            "select": lambda layer: self._select(scores[layer]),
            "attend": lambda layer: self._attend(layer, selected[layer]),
            "total": self.run,
        }

    def _score(self, layer: int) -> torch.Tensor:
        case = self._case
        return self._kernels.page_scores(case.queries[layer], case.layers[layer], case.sequence, case.scale)

    def _select(self, scores: torch.Tensor) -> SelectedPages:
        layout, length_tokens = self._case.pool.layout, self._case.sequence.length_tokens
        logits = layout.summary.scores_are_logits
        return self._kernels.select_pages(scores, length_tokens, layout.page_size, self._budget, logits)

    def _attend(self, layer: int, selected: SelectedPages) -> torch.Tensor:
        case = self._case
        return self._kernels.sparse_decode_attention(
            case.queries[layer], case.layers[layer], case.sequence, selected, case.scale
        )
