"""`bench prefill`: how fast a document is read, ours in chunks against Transformers in one go.

The tokens are random; what they say changes nothing. Each engine has the device to itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from app.measure.benchmarks.instruments.timing import free_device_memory, peak_memory_bytes, reset_peak_memory
from app.measure.benchmarks.rivals.transformers_rival import run_prefill
from app.measure.benchmarks.subjects.subjects import Subject
from app.measure.machine import describe_machine
from quest_core.engine import Cancellation, Engine
from quest_core.model.model_source import ModelError


def measure_prefill(
    subjects: list[Subject],
    *,
    contexts: Sequence[int],
    rounds: int,
    with_transformers: bool = True,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure seconds of a whole prefill: the median of `rounds`, after one that warms up.

    Returns:
        `rows`, `skipped` (what did not fit the memory) and `machine`.
    """
    device = subjects[0].device
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    measures = {"quest-chat": _measure_ours}
    if with_transformers:
        measures["transformers"] = _measure_transformers
    for subject in subjects:
        for context in contexts:
            for engine, measure in measures.items():
                on_progress(f"{subject.name}: {engine}, {context} tokens")
                row = {"engine": engine, "shape": subject.name, "context_tokens": context}
                try:
                    rows.append(row | measure(subject, context, rounds))
                except (torch.OutOfMemoryError, ModelError) as error:
                    skipped.append(row | {"reason": str(error).splitlines()[0]})
    free_device_memory(device)
    return {
        "benchmark": "prefill",
        "model": ",".join(subject.name for subject in subjects),
        "rounds": rounds,
        "machine": describe_machine(device),
        "skipped": skipped,
        "rows": rows,
    }


def _measure_ours(subject: Subject, context: int, rounds: int) -> dict[str, Any]:
    engine = subject.engine(context + 1)
    try:
        reset_peak_memory(engine.device)
        times = list(engine.submit(lambda _: _prefill_rounds(engine, context, rounds)))
        return _figures(context, engine.prefill_chunk_tokens, times, peak_memory_bytes(engine.device))
    finally:
        engine.close()


def _prefill_rounds(engine: Engine, context: int, rounds: int):
    session = engine.new_session()
    token_ids = _random_tokens(context, engine.model_config.vocab_size)
    for _ in range(1 + rounds):
        session.truncate(0)
        start = time.perf_counter()
        for _ in session.prefill(token_ids, Cancellation(), room_tokens=1):
            pass
        yield time.perf_counter() - start
    session.close()


def _measure_transformers(subject: Subject, context: int, rounds: int) -> dict[str, Any]:
    model = subject.transformers_model(context + 1)
    token_ids = _random_tokens(context, model.config.vocab_size)
    reset_peak_memory(subject.device)
    times = [run_prefill(model, token_ids)[1] for _ in range(1 + rounds)]
    return _figures(context, context, times, peak_memory_bytes(subject.device))


def _figures(context: int, chunk_tokens: int, times: list[float], peak: int | None) -> dict[str, Any]:
    """The rest of a row; the first of `times` warmed up."""
    seconds = statistics.median(times[1:])
    return {
        "chunk_tokens": min(chunk_tokens, context),
        "prefill_s": seconds,
        "tokens_per_s": context / seconds,
        "peak_memory_bytes": peak,
    }


def _random_tokens(length: int, vocab_size: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab_size, (length,), generator=generator).tolist()
