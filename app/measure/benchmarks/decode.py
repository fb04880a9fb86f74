"""Decoding speed of one loaded model: ours dense, ours Quest, and Transformers, in turn in one process.

Before anything is timed, ours is checked against Transformers: the prefill must give its logits. Times are per token,
on the host's clock, from one token id to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.benchmarks.rivals.logits_check import STRETCH_TOKENS, STRETCHES, check_logits, check_rounding
from app.measure.benchmarks.rivals.transformers_rival import load_transformers, run_prefill, time_steps_after
from app.measure.machine import describe_machine
from app.measure.sample_text import read_text_tokens
from app.settings import AppSettings
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.engine import Cancellation, Engine
from quest_core.session import Session
from quest_core.session_events import DecodeStep

WARM_UP_STEPS = 4


def measure_decode(
    settings: AppSettings,
    *,
    contexts: Sequence[int],
    budgets: Sequence[int],
    steps: int,
    rounds: int,
    text: Path | None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure milliseconds a token at each context length.

    Returns:
        `rows` (engine, attention, context_tokens, token_budget, ms_per_token, tokens_per_s, speedup over Transformers,
        kv_bytes_per_token), `checks` and `machine`.

    Raises:
        UserFacingError: if ours does not give Transformers' logits.
    """
    window = max(contexts) + WARM_UP_STEPS + steps + 1
    engine = Engine.load(settings.model, settings.engine_config(max(window, settings.context_tokens or 0)), on_progress)
    try:
        # On the engine's thread: it alone uses the device, and torch keeps a pool of threads for each caller.
        job = engine.submit(lambda _: iter([_measure(engine, contexts, budgets, steps, rounds, text, on_progress)]))
        rows, checks = next(job)
    finally:
        engine.close()
    return {
        "benchmark": "decode",
        "model": engine.model_name,
        "dtype": str(engine.dtype).removeprefix("torch."),
        "page_size": engine.page_size,
        "steps": steps,
        "rounds": rounds,
        "machine": describe_machine(engine.device),
        "checks": checks,
        "rows": rows,
    }


def _measure(engine, contexts, budgets, steps, rounds, text, on_progress) -> tuple[list[dict], list[dict]]:
    from transformers import AutoTokenizer

    rival, rope = None, None
    tokenizer = AutoTokenizer.from_pretrained(engine.model_folder)
    tokens = read_text_tokens(tokenizer, text, max(*contexts, STRETCH_TOKENS), repeat=True)
    settings = [QuestConfig(attention="dense"), *(QuestConfig(token_budget=budget) for budget in budgets)]
    settings.append(QuestConfig(attention="auto"))
    on_progress("checking ours against Transformers")
    rounding = check_rounding(engine, tokens)
    rows, checks = [], [rounding.to_json(STRETCH_TOKENS, STRETCHES)]
    session = engine.new_session()
    for context in contexts:
        on_progress(f"{context} tokens: prefill")
        room_tokens = WARM_UP_STEPS + steps + 1
        list(session.prefill(tokens[:context], Cancellation(), room_tokens))
        of_length = engine.model_config.with_context(context + room_tokens)
        if rope != of_length.rope:
            # Longer sequences may be stretched further; Transformers' model stretches all alike.
            rope = of_length.rope
            rival = load_transformers(engine.model_folder, of_length, engine.device, engine.dtype)
        output, _ = run_prefill(rival, tokens[:context])
        theirs = output.logits[0, -1].float()
        checks.append(check_logits(session.logits, theirs, context, rounding.limit))
        on_progress(f"{context} tokens: decode")
        times: dict[QuestConfig | str, list[float]] = {}
        bytes_read: dict[QuestConfig, int] = {}
        for _ in range(rounds):
            times.setdefault("transformers", []).extend(decode_transformers(rival, output, steps))
            for quest in settings:
                drawn = decode_fork(session, quest, steps)
                times.setdefault(quest, []).extend(step.step_s for step in drawn)
                bytes_read[quest] = drawn[-1].kv_bytes_read
        rival_s = statistics.median(times["transformers"])
        rows.append(_row("transformers", "sdpa", context, None, rival_s, rival_s, None))
        for quest in settings:
            budget = quest.token_budget if quest.attention == "quest" else None
            seconds = statistics.median(times[quest])
            rows.append(_row("quest-chat", quest.attention, context, budget, seconds, rival_s, bytes_read[quest]))
    session.close()
    return rows, checks


def _row(engine, attention, context, budget, seconds, rival_s, bytes_read) -> dict[str, Any]:
    return {
        "engine": engine,
        "attention": attention,
        "context_tokens": context,
        "token_budget": budget,
        "ms_per_token": seconds * 1e3,
        "tokens_per_s": 1 / seconds,
        "speedup": rival_s / seconds,
        "kv_bytes_per_token": bytes_read,
    }


def decode_transformers(model: torch.nn.Module, prefill: Any, steps: int) -> list[float]:
    """Seconds of `steps` greedy steps after a prefill, which stays as it is; those that warm up are left out."""
    return time_steps_after(model, prefill, WARM_UP_STEPS + steps)[WARM_UP_STEPS:]


def tokens_before_steps(context_tokens: int, steps: int) -> int:
    """How many tokens precede the steps of `decode_fork` so that the last one fills a window of `context_tokens`.

    Raises:
        UserFacingError: if the steps alone fill it.
    """
    before = context_tokens - (1 + WARM_UP_STEPS + steps)
    if before < 1:
        raise UserFacingError(
            f"A context of {context_tokens} tokens has no room for {steps} steps and {WARM_UP_STEPS} to warm up."
        )
    return before


def decode_fork(session: Session, quest: QuestConfig, steps: int, trace_reads: bool = True) -> list[DecodeStep]:
    """`steps` greedy steps of a fork, which is closed afterwards; those that warm up are left out."""
    fork = session.fork()
    # Step 0 draws from the prefill's logits; it runs no attention.
    sampling = SamplingConfig(max_new_tokens=1 + WARM_UP_STEPS + steps)
    drawn = list(fork.decode(quest, sampling, Cancellation(), trace_reads))
    fork.close()
    return drawn[1 + WARM_UP_STEPS :]
