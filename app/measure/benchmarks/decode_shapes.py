"""Decoding speed of well-known shapes with random weights over a random cache: ours, and Transformers.

Ours is dense, Quest and Exact. Each engine has the device to itself, so that a long context fits, and its peak memory
is its own. Times are per token, on the host's clock, from one token id to the next; of Exact, whose tokens come some at
a time, their mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.benchmarks.cpu_contender import DraftCount, decode_exact, decode_ours
from app.measure.benchmarks.decode import WARM_UP_STEPS, tokens_before_steps
from app.measure.benchmarks.exact_rounds import ACCEPTED_BY_EMBEDDED_AT_16K, RoundTimes, time_rounds
from app.measure.benchmarks.instruments.byte_bounds import dense_attention_bytes, step_kv_bytes
from app.measure.benchmarks.instruments.timing import (
    free_device_memory,
    measure_copy_bandwidth,
    peak_memory_bytes,
    reset_peak_memory,
)
from app.measure.benchmarks.rivals.transformers_rival import (
    random_dynamic_cache,
    random_static_cache,
    time_decode_steps,
)
from app.measure.benchmarks.subjects.random_model import fill_session
from app.measure.benchmarks.subjects.shapes import ModelShape
from app.measure.benchmarks.subjects.subjects import RandomSubject, transformers_weight_bytes_read
from app.measure.machine import describe_machine
from app.settings import AppSettings
from quest_core.config import QuestConfig
from quest_core.engine import Engine, choose_device
from quest_core.model.model_source import ModelError


def measure_decode_shapes(
    settings: AppSettings,
    *,
    shapes: list[ModelShape],
    contexts: Sequence[int],
    budgets: Sequence[int],
    weight_bits: list[int],
    steps: int,
    rounds: int,
    rivals: tuple[str, ...],
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure milliseconds a token of each shape at each context length.

    Args:
        rivals: of "transformers" (a dynamic cache) and "transformers-compiled" (a static one).

    Returns:
        `rows`, `exact_rounds` (what the parts of Exact's rounds take on a GPU, and the tokens a second computed from
        it), `skipped` (what was left out, and why), `copy_bytes_per_s` and `machine`.

    Raises:
        UserFacingError: if this version has no weights of these bits.
    """
    device = choose_device(settings.device)
    bandwidth = measure_copy_bandwidth(device)
    rows: list[dict[str, Any]] = []
    exact_rounds: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []

    def attempt(row: dict[str, Any], measure: Callable[..., None], *arguments: Any) -> None:
        on_progress(", ".join(str(part) for part in row.values()))
        try:
            measure(*arguments)
        except UserFacingError:
            raise
        except Exception as error:  # whatever a rival raises; ours may only lack the memory
            if row["engine"] == "quest-chat" and not isinstance(error, (torch.OutOfMemoryError, ModelError)):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            skipped.append({**row, "reason": reason})

    for shape in shapes:
        for bits in weight_bits:
            subject = RandomSubject(shape, settings, bits)
            for context in contexts:
                row = {"engine": "quest-chat", "shape": shape.name, "weight_bits": bits, "context_tokens": context}
                attempt(row, _measure_ours, subject, context, budgets, steps, rounds, bandwidth, rows, exact_rounds)
            subject.release()
        for engine in rivals:
            for context in contexts:
                row = {"engine": engine, "shape": shape.name, "weight_bits": 16, "context_tokens": context}
                rival = RandomSubject(shape, settings)
                attempt(row, _measure_rival, engine, rival, context, steps, rounds, bandwidth, rows, skipped)
    free_device_memory(device)
    return {
        "benchmark": "decode",
        "model": ",".join(shape.name for shape in shapes),
        "dtype": str(RandomSubject(shapes[0], settings).dtype).removeprefix("torch."),
        "page_size": settings.page_size,
        "kv_bits": settings.kv_bits,
        "selection": settings.selection,
        "steps": steps,
        "rounds": rounds,
        "copy_bytes_per_s": bandwidth,
        "machine": describe_machine(device),
        "skipped": skipped,
        "rows": rows,
        "exact_rounds": exact_rounds,
    }


def _measure_ours(
    subject: RandomSubject,
    context: int,
    budgets: Sequence[int],
    steps: int,
    rounds: int,
    bandwidth: float,
    rows: list[dict[str, Any]],
    exact_rounds: list[dict[str, Any]],
) -> None:
    """Append a row for dense attention, and one of Quest and one of Exact for each budget."""
    engine = subject.engine(context)
    try:
        job = engine.submit(lambda _: iter([_decode_in_turn(engine, context, budgets, steps, rounds)]))
        measured = next(job)
    finally:
        engine.close()
    for quest, of_setting in measured.items():
        bound_s = None
        if of_setting.kv_bytes is not None:
            bound_s = (subject.weight_bytes_read() + of_setting.kv_bytes) / bandwidth
        budget = quest.token_budget if quest.attention != "dense" else None
        named = ("quest-chat", subject.name, quest.attention, subject.weight_bits, context, budget)
        row = _row(*named, of_setting.seconds, bound_s, of_setting.peak_bytes)
        if quest.attention == "exact":
            row |= {"drafted": of_setting.drafts.drafted, "accepted": of_setting.drafts.accepted}
        rows.append(row)
        if of_setting.round_times is not None:
            columns = of_setting.round_times.columns(ACCEPTED_BY_EMBEDDED_AT_16K)
            exact_rounds.append(
                {"shape": subject.name, "weight_bits": subject.weight_bits, "context_tokens": context}
                | {"token_budget": budget}
                | columns
            )


@dataclass
class _Measured:
    """What a setting took.

    Args:
        seconds: a token.
        kv_bytes: that a step reads of the cache; None of Exact, whose steps are of two kinds.
        peak_bytes: of memory.
        drafts: of Exact.
        round_times: of Exact on a GPU.
    """

    seconds: float
    kv_bytes: int | None
    peak_bytes: int | None
    drafts: DraftCount
    round_times: RoundTimes | None = None


def _decode_in_turn(
    engine: Engine, context: int, budgets: Sequence[int], steps: int, rounds: int
) -> dict[QuestConfig, _Measured]:
    """Each setting's."""
    session = engine.new_session()
    fill_session(session, tokens_before_steps(context, steps), engine.model_config.vocab_size)
    settings = [QuestConfig(attention="dense")]
    settings += [QuestConfig(attention, budget) for budget in budgets for attention in ("quest", "exact")]
    times: dict[QuestConfig, list[float]] = {quest: [] for quest in settings}
    peaks: dict[QuestConfig, int | None] = {}
    drafts = {quest: DraftCount() for quest in settings}
    for _ in range(rounds):
        for quest in settings:
            reset_peak_memory(engine.device)
            decode = partial(decode_exact, drafts=drafts[quest]) if quest.attention == "exact" else decode_ours
            times[quest] += decode(session, quest, steps=steps)
            peaks[quest] = peak_memory_bytes(engine.device)
    model, layout = engine.model_config, session.cache.pool.layout
    measured = {}
    for quest in settings:
        exact = quest.attention == "exact"
        kv_bytes = None if exact else step_kv_bytes(model, quest, context, layout)
        round_times = time_rounds(engine, session, quest, steps) if exact else None
        measured[quest] = _Measured(
            statistics.median(times[quest]), kv_bytes, peaks[quest], drafts[quest], round_times
        )
    session.close()
    return measured


def _measure_rival(
    engine: str,
    subject: RandomSubject,
    context: int,
    steps: int,
    rounds: int,
    bandwidth: float,
    rows: list[dict[str, Any]],
    skipped: list[dict[str, Any]],
) -> None:
    """Append a row for Transformers, with a dynamic cache or compiled with a static one."""
    all_steps = rounds * (WARM_UP_STEPS + steps)
    model = subject.transformers_model(context + all_steps)
    token = torch.zeros((1, 1), dtype=torch.long, device=subject.device)
    reset_peak_memory(subject.device)
    if engine == "transformers":
        with torch.inference_mode():
            times = _time_rounds(model, random_dynamic_cache(model, context), token, steps, rounds)
    else:
        # Under no_grad: inference mode makes tensors that compiled code may not update in place.
        skips_before = _cuda_graph_skips()
        try:
            with torch.no_grad():
                cache = random_static_cache(model, context, all_steps)
                compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)
                times = _time_rounds(compiled, cache, token, steps, rounds)
            skipped_graphs = _cuda_graph_skips() > skips_before
        finally:
            # Else the code for this length would be tried first at the next, and its graphs keep their memory.
            torch.compiler.reset()
        if skipped_graphs:
            note = "timed, but torch.compile made no CUDA graphs"
            skipped.append({"engine": engine, "shape": subject.name, "context_tokens": context, "reason": note})
    config = model.config
    kv_bytes = config.num_hidden_layers * dense_attention_bytes(
        config.num_key_value_heads, config.head_dim * model.dtype.itemsize, context
    )
    bound_s = (transformers_weight_bytes_read(model) + kv_bytes) / bandwidth
    row = (engine, subject.name, "sdpa", 16, context, None)
    rows.append(_row(*row, statistics.median(times), bound_s, peak_memory_bytes(subject.device)))


def _time_rounds(model: Any, cache: Any, token: torch.Tensor, steps: int, rounds: int) -> list[float]:
    times: list[float] = []
    for _ in range(rounds):
        times += time_decode_steps(model, cache, token, WARM_UP_STEPS + steps)[WARM_UP_STEPS:]
    return times


def _cuda_graph_skips() -> int:
    from torch._dynamo.utils import counters

    return counters["inductor"]["cudagraph_skips"]


def _row(
    engine: str,
    shape: str,
    attention: str,
    weight_bits: int,
    context: int,
    budget: int | None,
    seconds: float,
    bound_s: float | None,
    peak: int | None,
) -> dict[str, Any]:
    return {
        "engine": engine,
        "shape": shape,
        "attention": attention,
        "weight_bits": weight_bits,
        "context_tokens": context,
        "token_budget": budget,
        "ms_per_token": seconds * 1e3,
        "tokens_per_s": 1 / seconds,
        "byte_bound_ms": None if bound_s is None else bound_s * 1e3,
        "bound_fraction": None if bound_s is None else bound_s / seconds,
        "peak_memory_bytes": peak,
    }
