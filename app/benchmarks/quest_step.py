"""One Quest step as `bench kernels` measures it: its parts by name, in order.

To measure other kernels, change `quest_parts`: the names become the columns. Scoring and selecting go together, since
selection goes on with what scoring has summed up. Each part takes the layer and what the part before it returned. The
last returns the attended values; the one before it the page ids and counts that they are checked on.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from app.benchmarks.kernel_cases import KernelCase
from quest_core.config import QuestConfig
from quest_core.page_selection import POLICIES

Part = Callable[..., tuple[torch.Tensor, ...]]


def quest_parts(case: KernelCase, token_budget: int, kernels: ModuleType) -> dict[str, Part]:
    """The parts of a step with this budget: name -> (layer, *outputs of the part before) -> outputs."""
    config, page_size = QuestConfig(token_budget=token_budget), case.layout.page_size
    policy = POLICIES[case.layout.selection](config, page_size, kernels)

    def choose(layer: int) -> tuple[torch.Tensor, ...]:
        selected = policy.select(case.queries[layer], case.layers[layer], case.page_table, case.context_tokens)
        return selected.page_ids, selected.page_counts

    def attend(layer: int, page_ids: torch.Tensor, page_counts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pages = case.layers[layer]
        attended = kernels.sparse_decode_attention(
            case.queries[layer],
            pages.key_pages,
            pages.value_pages,
            case.page_table,
            page_ids,
            page_counts,
            case.context_tokens,
            case.scale,
            pages.kv_scales,
        )
        return (attended,)

    return {"choose": choose, "attend": attend}


class QuestStep:
    """The parts, run together or each on its own."""

    def __init__(self, case: KernelCase, token_budget: int, kernels: ModuleType) -> None:
        self._parts = quest_parts(case, token_budget, kernels)
        self._layers = len(case.layers)

    def run(self, layer: int) -> torch.Tensor:
        """The whole step of one layer; returns what it attended, [query_heads, head_dim]."""
        return self.run_noting_pages(layer)[0]

    def run_noting_pages(self, layer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a step attended, and the page ids and counts it read."""
        outputs: tuple[torch.Tensor, ...] = ()
        for part in self._parts.values():
            inputs, outputs = outputs, part(layer, *outputs)
        return (*outputs, *inputs)

    def calls(self) -> dict[str, Callable[[int], Any]]:
        """Part name -> a call that runs that part alone, on inputs computed here; and `total`, the whole step."""
        calls: dict[str, Callable[[int], Any]] = {}
        inputs: list[tuple[torch.Tensor, ...]] = [() for _ in range(self._layers)]
        for name, part in self._parts.items():
            calls[name] = lambda layer, part=part, inputs=inputs: part(layer, *inputs[layer])
            inputs = [part(layer, *inputs[layer]) for layer in range(self._layers)]
        return {**calls, "total": self.run}
