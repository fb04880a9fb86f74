"""`bench trace`: what it costs a Quest step to bring the pages it read to the host, for the live panel.

With and without, in turn, over a random cache. The policy's own estimate of the missed attention is part of both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.measure.benchmarks.decode import decode_fork, tokens_before_steps
from app.measure.benchmarks.instruments.timing import free_device_memory
from app.measure.benchmarks.subjects.random_model import fill_session
from app.measure.benchmarks.subjects.subjects import Subject
from app.measure.machine import describe_machine
from quest_core.config import QuestConfig
from quest_core.engine import Engine


def measure_trace(
    subject: Subject,
    *,
    contexts: Sequence[int],
    budgets: Sequence[int],
    steps: int,
    rounds: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure milliseconds a token with and without the trace.

    Returns:
        `rows` (`overhead` is the share that the trace adds) and `machine`.
    """
    rows: list[dict[str, Any]] = []
    for context in contexts:
        on_progress(f"{subject.name}: {context} tokens")
        rows += _measure_context(subject, context, budgets, steps, rounds)
    free_device_memory(subject.device)
    return {
        "benchmark": "trace",
        "model": subject.name,
        "steps": steps,
        "rounds": rounds,
        "machine": describe_machine(subject.device),
        "rows": rows,
    }


def _measure_context(
    subject: Subject, context: int, budgets: Sequence[int], steps: int, rounds: int
) -> list[dict[str, Any]]:
    engine = subject.engine(context)
    try:
        return list(engine.submit(lambda _: _decode_in_turn(engine, context, budgets, steps, rounds)))
    finally:
        engine.close()


def _decode_in_turn(
    engine: Engine, context: int, budgets: Sequence[int], steps: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """A row for each budget."""
    session = engine.new_session()
    fill_session(session, tokens_before_steps(context, steps), engine.model_config.vocab_size)
    for budget in budgets:
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds):
            for trace_reads, measured in times.items():
                drawn = decode_fork(session, QuestConfig(token_budget=budget), steps, trace_reads)
                measured += [step.step_s for step in drawn]
        traced_s, untraced_s = statistics.median(times[True]), statistics.median(times[False])
        yield {
            "context_tokens": context,
            "token_budget": budget,
            "ms_per_token": traced_s * 1e3,
            "ms_per_token_without_trace": untraced_s * 1e3,
            "overhead": traced_s / untraced_s - 1,
        }
    session.close()
