"""Programs of one launch meet: none goes on before all of a kv head have come, and each then reads what all wrote.

It takes as long as the end of one launch and the start of the next, less what these lose in between. It works only if
all programs run at the same time, or those that came would wait forever for places that they take themselves; and only
if launches follow one another in one stream. Triton's interpreter runs one program after the other: there none meet.

Each program counts itself in, one counter a head, which nobody sets back: every launch counts on by the same number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import multiprocessors

# A multiprocessor's, of compute capability 7.0 and later, and at most a thread's, as they are handed out.
MULTIPROCESSOR_REGISTERS, MOST_REGISTERS = 65536, 256
# Of a program's shared memory, kept by the driver.
RESERVED_SHARED_BYTES = 1024

# Whether the programs of a launch fit, by all that decides it.
_fits: dict[Hashable, bool] = {}


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
        "=r,l,l", [counter_ptr.to(tl.int64), meeting], tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@lru_cache
def counters(heads: int, programs: int, device: torch.device) -> torch.Tensor:
    """int64, one a head, that launches with so many programs for each count up."""
    return torch.zeros(heads, dtype=torch.int64, device=device)


def launch(kernel: triton.JITFunction, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a kernel with MEETS if all its programs run at the same time, without otherwise."""
    types = tuple(argument.dtype for argument in arguments if isinstance(argument, torch.Tensor))
    key = (kernel, grid, types, tuple(constants.items()), arguments[0].device)
    if key not in _fits:
        _fits[key] = programs_fit(kernel, grid, arguments, constants)
    kernel[grid](*arguments, MEETS=_fits[key], **constants)


def programs_fit(
    kernel: triton.JITFunction, grid: tuple[int, ...], arguments: tuple[Any, ...], constants: dict[str, Any]
) -> bool:
    """Whether a device has places for all programs; compiles the kernel, to know its shared memory."""
    if triton.knobs.runtime.interpret:
        return False
    device = arguments[0].device
    compiled = kernel.warmup(*arguments, MEETS=True, grid=grid, **constants)
    shared_bytes = torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor
    places = min(
        MULTIPROCESSOR_REGISTERS // (MOST_REGISTERS * 32 * constants["num_warps"]),
        shared_bytes // (compiled.metadata.shared + RESERVED_SHARED_BYTES),
    )
    return math.prod(grid) <= multiprocessors(device) * places
