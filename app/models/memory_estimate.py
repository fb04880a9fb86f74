"""What a model will take of this machine's memory, for people who have not loaded it yet, and whether that is there.

The figures are the engine's own (`quest_core.memory_plan`), for one window; what is free is asked of the machine at
the moment. On a CPU it is the main memory, and libraries that are loaded anyway do not count.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from app.models.device_memory import DeviceMemory
from app.settings import AppSettings
from quest_core.errors import ModelError

if TYPE_CHECKING:
    from quest_core.memory_plan import MemoryPlan, MemoryPlanner
    from quest_core.model.model_outline import ModelOutline

# The shortest window that is worth offering.
LEAST_TOKENS = 1024
# More than any machine has: what a model would take if nothing were in its way.
_AMPLE_BYTES = 1 << 60
# "beside": while the present model stays; "instead": once that is let go; "no": not even then.
Fit = Literal["beside", "instead", "no"]


@dataclass(frozen=True)
class MemoryEstimate:
    """What a model would take.

    Args:
        context_tokens: the window that it is reckoned for.
        weights_bytes: of the model, with the copies that a CPU decodes from.
        cache_bytes: of one conversation as long as the window.
        work_bytes: of what computing needs besides.
        total_bytes: all of these.
        pool_bytes: what all conversations together may take, `cache_bytes` included.
        fit: whether it fits.
        reason: why not, or what must go first; "" where it simply fits.
        fitting_tokens: a shorter window that fits, where this one does not; 0 if none does.
    """

    context_tokens: int
    weights_bytes: int
    cache_bytes: int
    work_bytes: int
    total_bytes: int
    pool_bytes: int
    fit: Fit = "beside"
    reason: str = ""
    fitting_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def estimate_memory(
    outline: ModelOutline, settings: AppSettings, context_tokens: int | None, memory: DeviceMemory
) -> MemoryEstimate:
    """What a model would take.

    Args:
        outline: of the model.
        settings: page size, precision and whatever else it is loaded with.
        context_tokens: the window wanted; None for the model's own.
        memory: of the device.

    Raises:
        ModelError: for a window that the model cannot read.
    """
    from quest_core.engine import choose_device, choose_dtype, choose_kv_dtype
    from quest_core.memory_plan import MemoryPlanner

    try:
        config = outline.config if context_tokens is None else outline.config.with_context(context_tokens)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(str(error)) from error
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    planner = MemoryPlanner(
        config,
        settings.engine_config(),
        device.type,
        dtype,
        choose_kv_dtype(settings.dtype, device, dtype),
        outline.qkv_bias,
        outline.output_bias,
        outline.layers_in_4_bits,
    )
    ample = planner.plan(_AMPLE_BYTES)
    figures = {
        "context_tokens": config.context_tokens,
        "weights_bytes": ample.weights + ample.copies,
        "cache_bytes": ample.window,
        "work_bytes": ample.tables + ample.work,
        "total_bytes": ample.with_one_window,
        "pool_bytes": ample.pool,
    }
    if plan := _fitting_plan(planner, memory.free_bytes):
        return MemoryEstimate(**figures | {"pool_bytes": plan.pool})
    free_bytes = memory.free_bytes + memory.held_bytes
    if plan := _fitting_plan(planner, free_bytes):
        reason = "The present model is let go first: there is no room for both."
        return MemoryEstimate(**figures | {"pool_bytes": plan.pool}, fit="instead", reason=reason)
    fitting = config.context_tokens // 2
    while fitting >= LEAST_TOKENS:
        if _fitting_plan(replace(planner, model=config.with_context(fitting)), free_bytes):
            break
        fitting //= 2
    reason = _too_large(ample.with_one_window, memory)
    return MemoryEstimate(**figures, fit="no", reason=reason, fitting_tokens=fitting if fitting >= LEAST_TOKENS else 0)


def _fitting_plan(planner: MemoryPlanner, free_bytes: int) -> MemoryPlan | None:
    """What a model takes of so much memory; None if it does not fit."""
    try:
        plan = planner.plan(free_bytes)
    except ModelError:
        return None
    return plan if plan.with_one_window <= free_bytes else None


def _too_large(needed_bytes: int, memory: DeviceMemory) -> str:
    free = memory.free_bytes + memory.held_bytes
    where = memory.name if memory.device == "cuda" else "this computer"
    return f"It needs about {needed_bytes / 2**30:.1f} GiB, and {where} has {free / 2**30:.1f} GiB free for it."
