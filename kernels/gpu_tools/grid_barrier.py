"""Programs of one launch meet: none goes on before all of a kv head have come, and each then reads what all wrote.

It works only if all programs run at the same time, or those that came would wait forever for the places that they take;
and only if launches follow one another in one stream. Triton's interpreter runs one program after the other: there none
meet.

Each program counts itself in, one counter a head, which nobody sets back: every launch counts on by the same number.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels.gpu_tools.checks import multiprocessors


@triton.jit
def find_meeting(counter_ptr, PROGRAMS: tl.constexpr):
    """The count, int64, of a meeting of so many programs, of which this one has not counted itself in."""
    return (tl.load(counter_ptr, volatile=True) // PROGRAMS + 1) * PROGRAMS


@triton.jit
def meet(counter_ptr, meeting):
    """Come to a meeting, and wait until the count says that all have come."""
    # All threads have stored before one of them counts this program in.
    tl.debug_barrier()
    tl.atomic_add(counter_ptr, tl.full([], 1, tl.int64), sem="release", scope="gpu")
    # Each thread sees for itself that all have come, and with it all that they wrote.
    tl.inline_asm_elementwise(
        "{ .reg .pred early; .reg .s64 count; "
        "AGAIN: ld.acquire.gpu.global.s64 count, [$1]; setp.lt.s64 early, count, $2; @early bra AGAIN; "
        "mov.u32 $0, 0; }",
        "=r,l,l",
        [counter_ptr.to(tl.int64), meeting],
        tl.int32,
        is_pure=False,
        pack=1,
    )


@lru_cache
def counters(heads: int, programs: int, device: torch.device) -> torch.Tensor:
    """int64, one a head, that launches with so many programs for each count up."""
    return torch.zeros(heads, dtype=torch.int64, device=device)


def programs_meet(grid: tuple[int, ...], device: torch.device) -> bool:
    """Whether the programs of a launch are to meet: those that have a multiprocessor each.

    They run at the same time whatever they need. Two on a multiprocessor would wait longer for the last of them than
    it takes to do the work of all (`docs/kernels.md`).
    """
    return not triton.knobs.runtime.interpret and math.prod(grid) <= multiprocessors(device)
