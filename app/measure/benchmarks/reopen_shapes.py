"""`bench reopen --shape`: what a restored prefix costs against computing it anew, for a model of random weights.

The engine alone: a prompt of random tokens of which all but a question's worth is a document. A GPU computes fast and
its keys and values are many, so disk and bus decide here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from app.measure.benchmarks.instruments.file_cache import drop_from_file_cache
from app.measure.benchmarks.instruments.timing import free_device_memory
from app.measure.benchmarks.subjects.shapes import ModelShape
from app.measure.benchmarks.subjects.subjects import RandomSubject
from app.measure.machine import describe_machine
from app.settings import AppSettings
from quest_core.cache.prefixes import Prefix
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.jobs import Cancellation
from quest_core.model.model_source import ModelError

_QUESTION_TOKENS = 32
_WRITING_TIMEOUT_S = 300.0
_OWNER = "document"


def measure_reopen_shapes(
    settings: AppSettings,
    *,
    shapes: list[ModelShape],
    contexts: Sequence[int],
    weight_bits: int,
    rounds: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure the time to the first token fresh, from another conversation's pages, and from the disk.

    The snapshots lie below the data folder while this runs. `after_restart` reads them once from the disk itself, with
    the system's file cache dropped, and `after_restart_cached` from that cache.

    Returns:
        `rows` {path, shape, document_tokens, time_to_first_token_s, prefilled_tokens, restored_bytes, written_s},
        `skipped` (what did not fit the memory) and `machine`.
    """
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for shape in shapes:
        subject = RandomSubject(shape, settings, weight_bits)
        for context in contexts:
            on_progress(f"{shape.name}: {context} tokens")
            row = {"shape": shape.name, "weight_bits": weight_bits, "document_tokens": context - _QUESTION_TOKENS}
            try:
                measured = _measure(subject, context, rounds, settings.data_dir)
                rows += [{"path": path, **row, **figures} for path, figures in measured]
            except (torch.OutOfMemoryError, ModelError) as error:
                skipped.append(row | {"reason": str(error).splitlines()[0]})
        subject.release()
    free_device_memory(subject.device)
    return {
        "benchmark": "reopen",
        "model": ",".join(shape.name for shape in shapes),
        "rounds": rounds,
        "machine": describe_machine(subject.device),
        "skipped": skipped,
        "rows": rows,
    }


def _measure(subject: RandomSubject, context: int, rounds: int, data_dir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    data_dir.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(subject.vocab_size, (context,), generator=generator).tolist()
    measured: dict[str, list[dict[str, Any]]] = {}
    written_s = 0.0
    with tempfile.TemporaryDirectory(prefix="quest-chat-reopen-", dir=data_dir) as folder:
        for number in range(1 + rounds):
            engine = subject.engine(context + 1, snapshot_dir=Path(folder))
            try:
                # The first round warms up, and leaves what the others read back.
                fresh = _first_token(engine, prompt, forget=True)
                other = _first_token(engine, _other_question(prompt))
                start = time.perf_counter()
                engine.snapshots.flush(_WRITING_TIMEOUT_S)
                written_s = max(written_s, time.perf_counter() - start)
            finally:
                engine.close()
            drop_from_file_cache(Path(folder))
            restarts = {}
            for path in ("after_restart", "after_restart_cached"):
                engine = subject.engine(context + 1, snapshot_dir=Path(folder))
                try:
                    _warm_up(engine)
                    restarts[path] = _first_token(engine, prompt)
                finally:
                    engine.close()
            if number:
                for path, figures in {"fresh": fresh, "other_conversation": other, **restarts}.items():
                    measured.setdefault(path, []).append(figures)
    for path, all_figures in measured.items():
        medians = {name: statistics.median(figures[name] for figures in all_figures) for name in all_figures[0]}
        yield path, medians | {"written_s": written_s if path == "fresh" else None}


def _first_token(engine: Engine, prompt: list[int], forget: bool = False) -> dict[str, Any]:
    """Ask in a session of its own, and give the figures of the prefill up to the first token."""
    if forget:
        engine.forget(_OWNER)
    prefixes = (Prefix(len(prompt) - _QUESTION_TOKENS, (_OWNER,)),)
    quest, sampling = QuestConfig(attention="dense"), SamplingConfig(max_new_tokens=1)

    def work(cancellation: Cancellation) -> Iterator[dict[str, Any]]:
        session = engine.new_session()
        start = time.perf_counter()
        for progress in session.prefill(prompt, cancellation, room_tokens=1, prefixes=prefixes):
            last = progress
        for _ in session.decode(quest, sampling, cancellation, trace_reads=False):
            pass
        yield {
            "time_to_first_token_s": time.perf_counter() - start,
            "prefilled_tokens": len(prompt) - last.reused_tokens,
            "restored_bytes": last.restored_bytes,
        }
        session.close()

    return next(engine.submit(work))


def _warm_up(engine: Engine) -> None:
    """Let the engine read something else, as one does that has been running: its first prefill compiles and tunes."""
    _first_token(engine, list(range(4 * _QUESTION_TOKENS)))


def _other_question(prompt: list[int]) -> list[int]:
    """The same document, and a question whose every token differs."""
    return prompt[:-_QUESTION_TOKENS] + [token ^ 1 for token in prompt[-_QUESTION_TOKENS:]]
