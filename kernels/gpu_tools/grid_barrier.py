"""A grid barrier: the programs of a kv head wait for each other, and each can then read what all of them wrote.

It works only if all programs run at the same time: otherwise those that wait would hold the multiprocessors that the
others need, forever. It also needs launches to follow one another in one stream. Triton's interpreter runs one program
after the other, so there is no barrier there.

Each kv head has a counter, which every program increments on arrival. It is never reset: every launch adds the same
number to it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu_tools.checks import multiprocessors


@triton.jit
def barrier_target(counter_ptr, PROGRAMS: tl.constexpr):
    """The count, int64, at which all PROGRAMS have arrived; to be read before this program arrives."""
    return (tl.load(counter_ptr, volatile=True) // PROGRAMS + 1) * PROGRAMS


@triton.jit
def wait_at_barrier(counter_ptr, target):
    """Arrive at the barrier, and wait until the count has reached its `target`."""
    # All threads have stored before one of them increments the counter.
    tl.debug_barrier()
    tl.atomic_add(counter_ptr, tl.full([], 1, tl.int64), sem="release", scope="gpu")
    # Each thread sees for itself that all programs have arrived, and with that all that they wrote.
    tl.inline_asm_elementwise(
        "{ .reg .pred early; .reg .s64 count; "
        "AGAIN: ld.acquire.gpu.global.s64 count, [$1]; setp.lt.s64 early, count, $2; @early bra AGAIN; "
        "mov.u32 $0, 0; }",
        "=r,l,l",
        [counter_ptr.to(tl.int64), target],
        tl.int32,
        is_pure=False,
        pack=1,
    )


@lru_cache
def counters(heads: int, programs: int, device: torch.device) -> torch.Tensor:
    """Counters, int64 [heads], of the launches with so many programs for each head."""
    return torch.zeros(heads, dtype=torch.int64, device=device)


def uses_grid_barrier(grid: tuple[int, ...], device: torch.device) -> bool:
    """Whether the programs of a launch wait at a grid barrier: if there is a multiprocessor for each.

    Then they run at the same time whatever resources they need. With two programs on a multiprocessor, waiting for the
    last of them takes longer than the work that the barrier spreads (`docs/kernels.md`).
    """
    return not triton.knobs.runtime.interpret and math.prod(grid) <= multiprocessors(device)
