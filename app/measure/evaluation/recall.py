"""How much of the true attention the selected pages hold, and how well the policy's own estimate of the rest is.

A book's last tokens are fed one by one through dense attention; beside it each policy selects its pages from the same
queries and the same cache, so that no error of one step reaches the next. Knows no kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.errors import UserFacingError
from app.measure.machine import describe_machine
from app.measure.policies.page_policies import OraclePages, PagePolicy
from app.measure.policies.rivals import PAGE_POLICIES, engine_config
from app.measure.sample_text import read_text_tokens
from app.settings import AppSettings
from kernels.contract import LayerCache, SelectedPages, SequenceView
from quest_core.config import SELECTIONS, QuestConfig
from quest_core.decode.attention import DecodeAttention, page_budget
from quest_core.engine import Cancellation, Engine

DENSE = QuestConfig(attention="dense")


def measure_recall(
    settings: AppSettings,
    *,
    settings_of_quest: list[QuestConfig],
    scored_tokens: int,
    text: Path | None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Compare what `settings.selection` would read with what dense attention looks at.

    Returns:
        `rows` (selection, page_size, token_budget, context_tokens; mass, the attention mass of the selected pages;
        oracle_mass, the same of the best pages of an equal budget; page_recall, the share of those pages that were
        selected; missed and estimated_missed, what the policy itself thinks; calibration_slope, the factor by which
        the estimate falls short, and correlation, over steps and layers; by_layer, `mass` [layers][kv_heads]) and
        `machine`. Means are over the layers that Quest reads sparsely.

    Raises:
        UserFacingError: if the text is too short, or the policy does not choose pages anew in each step.
    """
    if settings.selection not in COMPARED:
        raise UserFacingError(
            f"eval recall measures what chooses pages anew in each step: {', '.join(COMPARED)}; not "
            f"{settings.selection}."
        )
    context_tokens = settings.context_tokens
    if not 0 < scored_tokens < context_tokens:
        raise UserFacingError(f"--scored-tokens must be between 1 and {context_tokens - 1}, not {scored_tokens}.")
    engine = Engine.load(settings.model, engine_config(settings, context_tokens), on_progress)
    probe = _Probe(COMPARED[settings.selection], settings_of_quest)

    def work(cancellation: Cancellation):
        from transformers import AutoTokenizer

        tokens = read_text_tokens(AutoTokenizer.from_pretrained(engine.model_folder), text, context_tokens)
        session = engine.new_session()
        for progress in session.prefill(tokens[:-scored_tokens], cancellation, scored_tokens):
            on_progress(f"prefill: {progress.done_tokens} of {progress.total_tokens} tokens")
        on_progress(f"recall: {scored_tokens} tokens")
        yield from session.score(tokens[-scored_tokens:], DENSE, cancellation, probe.watch)

    try:
        list(engine.submit(work))
    finally:
        engine.close()
    rows = [
        {
            "selection": settings.selection,
            "page_size": engine.page_size,
            "token_budget": quest.token_budget,
            "context_tokens": context_tokens,
            **probe.summarise(quest),
        }
        for quest in settings_of_quest
    ]
    return {
        "evaluation": "recall",
        "model": engine.model_name,
        "scored_tokens": scored_tokens,
        "machine": describe_machine(engine.device),
        "rows": rows,
    }


class QuestPages(PagePolicy):
    """What Quest itself chooses, without attending."""

    def select(self, query, cache, sequence, scale):
        return self._kernels.choose_pages(query, cache, sequence, self._budget, scale)


# What chooses anew in each step, from nothing but its query.
COMPARED = dict.fromkeys(SELECTIONS, QuestPages) | {
    name: policy for name, policy in PAGE_POLICIES.items() if not policy.sees_every_step
}


class _Probe:
    """Attends dense, and notes what each budget's selection would have read.

    Samples are [kv_heads, 4]: mass, oracle mass, page recall, estimated missed mass (NaN where there is none).
    """

    def __init__(self, policy: type[PagePolicy], settings_of_quest: list[QuestConfig]) -> None:
        self._policy = policy
        self._samples: dict[QuestConfig, dict[int, list[np.ndarray]]] = {quest: {} for quest in settings_of_quest}
        self._attention: DecodeAttention | None = None

    def watch(self, attention: DecodeAttention) -> _Probe:
        self._attention = attention
        return self

    def __call__(self, layer: int, query: torch.Tensor, cache: LayerCache, sequence: SequenceView) -> torch.Tensor:
        for quest, by_layer in self._samples.items():
            if layer < quest.dense_layers:
                continue
            arguments = (page_budget(quest, cache.layout.page_size), self._attention.kernels)
            oracle, read = OraclePages(*arguments), (query, cache, sequence, self._attention.scale)
            mass = oracle.score(*read).softmax(dim=2).mean(dim=1)
            selected, best = self._policy(*arguments).select(*read), oracle.select(*read)
            by_layer.setdefault(layer, []).append(_compare(mass, selected, best))
        return self._attention(layer, query, cache, sequence)

    def summarise(self, quest: QuestConfig) -> dict[str, Any]:
        """The row of one budget."""
        samples = np.stack([np.stack(steps) for steps in self._samples[quest].values()])  # [layers, steps, heads, 4]
        mass, oracle_mass, page_recall, estimated = (samples[..., column] for column in range(4))
        missed, guessed = 1.0 - mass.mean(axis=2), estimated.mean(axis=2)  # [layers, steps]
        knows = bool(np.isfinite(guessed).all())
        varies = knows and guessed.std() > 0 and missed.std() > 0
        return {
            "mass": float(mass.mean()),
            "oracle_mass": float(oracle_mass.mean()),
            "page_recall": float(page_recall.mean()),
            "missed": float(missed.mean()),
            "estimated_missed": float(guessed.mean()) if knows else None,
            "calibration_slope": float((missed * guessed).sum() / (guessed**2).sum()) if varies else None,
            "correlation": float(np.corrcoef(missed.ravel(), guessed.ravel())[0, 1]) if varies else None,
            "by_layer": mass.mean(axis=1).round(4).tolist(),
        }


def _compare(of_pages: torch.Tensor, selected: SelectedPages, best: SelectedPages) -> np.ndarray:
    """One sample from the true softmax mass of pages, [kv_heads, pages], and the two sets of pages."""
    chosen, ideal = (_as_mask(pages, of_pages.shape[1]) for pages in (selected, best))
    mass, oracle_mass = ((of_pages * mask).sum(dim=1) for mask in (chosen, ideal))
    page_recall = (chosen & ideal).sum(dim=1) / ideal.sum(dim=1)
    nothing = torch.tensor(float("nan"), device=of_pages.device)
    estimated = nothing if selected.missed_mass is None else selected.missed_mass
    return torch.stack((mass, oracle_mass, page_recall, estimated.expand_as(mass)), dim=1).cpu().numpy()


def _as_mask(selected: SelectedPages, num_pages: int) -> torch.Tensor:
    """bool [kv_heads, pages]; the padding lands in a column that is cut off."""
    mask = torch.zeros((len(selected.page_ids), num_pages + 1), dtype=torch.bool, device=selected.page_ids.device)
    return mask.scatter_(1, (selected.page_ids % (num_pages + 1)).long(), True)[:, :num_pages]
