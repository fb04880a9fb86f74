"""Perplexity of a book's tokens when they are fed through sparse decoding, against dense.

A dense prefill, then the last tokens one by one (teacher-forced), as in the paper's PG-19 experiment (arXiv 2406.10774,
section 4.2). The same prefill serves every setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from app.measure.machine import describe_machine
from app.measure.policies.rivals import engine_config, open_session
from app.measure.sample_text import read_text_tokens
from app.settings import AppSettings
from quest_core.config import QuestConfig
from quest_core.engine import Cancellation, Engine
from quest_core.session import Session


def measure_perplexity(
    settings: AppSettings,
    *,
    settings_of_quest: list[QuestConfig],
    scored_tokens: int,
    text: Path | None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Score the last tokens of `settings.context_tokens` tokens of `text`, dense and with each of `settings_of_quest`.

    Returns:
        `rows` (selection, page_size, always_read (sink + recent pages), dense_layers, token_budget, context_tokens,
        perplexity, dense_perplexity, ratio, kv_bytes_per_token) and `machine`.

    Raises:
        UserFacingError: if the text is too short, or nothing would be left to prefill.
    """
    context_tokens = settings.context_tokens
    if not 0 < scored_tokens < context_tokens:
        raise UserFacingError(f"--scored-tokens must be between 1 and {context_tokens - 1}, not {scored_tokens}.")
    engine = Engine.load(settings.model, engine_config(settings, context_tokens), on_progress)

    def work(cancellation: Cancellation):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(engine.model_folder)
        tokens = read_text_tokens(tokenizer, text, context_tokens)
        session = open_session(engine, settings.selection)
        for progress in session.prefill(tokens[:-scored_tokens], cancellation, scored_tokens):
            on_progress(f"prefill: {progress.done_tokens} of {progress.total_tokens} tokens")
        for quest in [QuestConfig(attention="dense"), *settings_of_quest]:
            on_progress(f"{quest.attention}, budget {quest.token_budget}: {scored_tokens} tokens")
            yield quest, *score_text(session, tokens[-scored_tokens:], quest, cancellation)

    try:
        (_, dense, _), *sparse = engine.submit(work)
    finally:
        engine.close()
    rows = [
        {
            "selection": settings.selection,
            "page_size": engine.page_size,
            "always_read": f"{quest.sink_pages}+{quest.recent_pages}",
            "dense_layers": quest.dense_layers,
            "token_budget": quest.token_budget,
            "context_tokens": context_tokens,
            "perplexity": perplexity,
            "dense_perplexity": dense,
            "ratio": perplexity / dense,
            "kv_bytes_per_token": bytes_read,
        }
        for quest, perplexity, bytes_read in sparse
    ]
    return {
        "evaluation": "perplexity",
        "model": engine.model_name,
        "scored_tokens": scored_tokens,
        "machine": describe_machine(engine.device),
        "rows": rows,
    }


def score_text(
    session: Session, token_ids: list[int], quest: QuestConfig, cancellation: Cancellation
) -> tuple[float, int]:
    """Perplexity of `token_ids` after what the session holds, which stays as it is, and bytes of the cache read a step.

    Raises:
        ValueError: if the session has no prefill, or the budget is smaller than what is always read.
    """
    fork = session.fork()
    scored = list(fork.score(token_ids, quest, cancellation))
    fork.close()
    loss = -sum(token.log_probability for token in scored) / len(scored)
    return math.exp(loss), round(sum(token.kv_bytes_read for token in scored) / len(scored))
