"""`bench kernels`: attention of one token in one layer, Quest against the best dense kernels here.

Everything is checked against plain torch in float32 before it is timed, and timed as CUDA graphs over the caches of
several layers, so that neither the host nor the processor's own cache flatters anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.benchmarks.instruments.byte_bounds import quest_attention_bytes
from app.measure.benchmarks.instruments.timing import (
    free_device_memory,
    measure_copy_bandwidth,
    record_rotation,
    require_gpu,
    time_in_turn,
)
from app.measure.benchmarks.quest_step import QuestStep
from app.measure.benchmarks.rivals.dense_rivals import dense_builders
from app.measure.benchmarks.subjects.kernel_cases import (
    PAPER_LAYOUT,
    SHAPES,
    AttentionShape,
    KernelCase,
    PageLayout,
    build_case,
    choose_layers,
)
from app.measure.machine import describe_machine
from kernels.contract import Kernels
from kernels.reference import naive_dense_decode_attention, naive_sparse_decode_attention
from quest_core.decode.attention import kernels_for
from quest_core.model.weights import free_memory_bytes

MAX_ERROR = 2e-2  # relative root mean square, of results in bfloat16


def measure_kernels(
    *,
    contexts: Sequence[int],
    budgets: Sequence[int],
    rounds: int,
    layout: PageLayout = PAPER_LAYOUT,
    shapes: Sequence[AttentionShape] = SHAPES,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    kernels: Kernels | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure microseconds a layer.

    Args:
        rounds: of all contestants in turn; the median counts.
        device, kernels: for tests; None takes the GPU and its kernels.

    Returns:
        `rows`, `skipped` (what was left out, and why), `copy_bytes_per_s` and `machine`.

    Raises:
        UserFacingError: without a GPU, or if a result is wrong.
    """
    device = device or require_gpu("kernels")
    kernels = kernels or kernels_for(device)
    bandwidth = measure_copy_bandwidth(device)
    rows, skipped = [], []
    for shape in shapes:
        for context in contexts:
            name = f"{shape.q_heads}/{shape.kv_heads} heads, {context} tokens"
            fitting = [budget for budget in budgets if budget < context]
            free_bytes = free_memory_bytes(device)
            layers = choose_layers(
                shape, layout, context, min(fitting, default=context), dtype, _cache_bytes(device), free_bytes
            )
            if not fitting or layers < 2:
                reason = f"{free_bytes / 2**30:.0f} GiB of memory hold no two layers" if fitting else "no budget below"
                skipped.append(_skip(shape, context, "all", reason))
                continue
            on_progress(f"{name}: {layers} layers")
            try:
                with torch.inference_mode():
                    case = build_case(shape, layout, context, layers, dtype, device, kernels)
                    rows += _measure_case(case, context, fitting, rounds, bandwidth, kernels, skipped)
            except torch.cuda.OutOfMemoryError as error:
                skipped.append(_skip(shape, context, "all", _first_line(error)))
            case = None
            free_device_memory(device)
    return {
        "benchmark": "kernels",
        "selection": layout.selection,
        "summary_bits": layout.summary_bits,
        "kv_bits": layout.kv_bits,
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": rounds,
        "copy_bytes_per_s": bandwidth,
        "machine": describe_machine(device),
        "skipped": skipped,
        "rows": rows,
    }


def _measure_case(
    case: KernelCase,
    context: int,
    budgets: Sequence[int],
    rounds: int,
    bandwidth: float,
    kernels: Kernels,
    skipped: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """One row for each budget."""
    layers, device = len(case.layers), case.queries.device
    runs: dict[tuple, Callable[[], None]] = {}
    dense_errors, quest_errors = {}, {}
    for name, build in dense_builders(case, kernels).items():
        try:
            call = build()
            error = _dense_error(case, call(0))
            _refuse_error(case.shape, context, f"dense attention ({name})", error)
            runs["dense", name] = record_rotation(call, layers, device)
            dense_errors[name] = error
        except Exception as reason:  # a rival that cannot run here, whatever it raises; ours must
            if name == "ours":
                raise
            skipped.append(_skip(case.shape, context, name, _first_line(reason)))
    for budget in budgets:
        step = QuestStep(case, budget, kernels)
        quest_errors[budget] = _quest_error(case, step)
        _refuse_error(case.shape, context, f"Quest with a budget of {budget}", quest_errors[budget])
        for name, call in step.calls().items():
            runs[budget, name] = record_rotation(call, layers, device)
    seconds = time_in_turn(runs, device, rounds)
    us = {key: each / layers * 1e6 for key, each in seconds.items()}
    dense_us = {name: us["dense", name] for name in dense_errors}
    rows = []
    for budget in budgets:
        quest_us = {name: each for (of, name), each in us.items() if of == budget}
        bound_us = quest_attention_bytes(case.pool.layout, context, budget) / bandwidth * 1e6
        rows.append(
            {
                "q_heads": case.shape.q_heads,
                "kv_heads": case.shape.kv_heads,
                "head_dim": case.shape.head_dim,
                "context_tokens": context,
                "token_budget": budget,
                "page_size": case.layout.page_size,
                "dense_us": dense_us,
                "quest_us": quest_us,
                "speedup": min(dense_us.values()) / quest_us["total"],
                "byte_bound_us": bound_us,
                "bound_fraction": bound_us / quest_us["total"],
                "max_relative_error": max(dense_errors["ours"], quest_errors[budget]),
            }
        )
    return rows


def _dense_error(case: KernelCase, attended: torch.Tensor) -> float:
    query = case.queries[0].float()
    return relative_error(attended, naive_dense_decode_attention(query, case.layers[0], case.sequence, case.scale))


def _quest_error(case: KernelCase, step: QuestStep) -> float:
    attended, selected = step.run(0)
    query = case.queries[0].float()
    expected = naive_sparse_decode_attention(query, case.layers[0], case.sequence, selected, case.scale)
    return relative_error(attended, expected)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of what was expected."""
    return float((actual.float() - expected).norm() / expected.norm())


def _refuse_error(shape: AttentionShape, context: int, who: str, error: float) -> None:
    if not error <= MAX_ERROR:  # NaN is no smaller
        raise UserFacingError(
            f"With {shape.q_heads}/{shape.kv_heads} heads at {context} tokens, {who} differs from plain torch by "
            f"{error:.3g} (relative), more than {MAX_ERROR}. It was not timed."
        )


def _cache_bytes(device: torch.device) -> int:
    """Of the GPU's own cache; 0 where nothing is meant to be timed."""
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 0


def _skip(shape: AttentionShape, context: int, name: str, reason: str) -> dict[str, Any]:
    heads = {"q_heads": shape.q_heads, "kv_heads": shape.kv_heads}
    return {**heads, "context_tokens": context, "name": name, "reason": reason}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
