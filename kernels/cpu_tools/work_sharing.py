"""Threads that share the items of a step's phases, without a pool that spins between steps.

A step is a sequence of phases, and a phase a number of items. Every thread that runs the step claims one item after the
other, and goes on to the next phase when all items are done, no matter by which thread. So a thread that comes late, or
that the system interrupts, delays the others only if it has claimed an item; a single thread can run the whole step.
Results do not depend on which thread did what.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.vectors import address_of

# A phase's two counters stand in different cache lines.
COUNTERS, CLAIMED, DONE = 16, 0, 8
SPINS_BEFORE_YIELD = 2000

_i64 = ir.IntType(64)
_yield_processor = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


@intrinsic
def _count_up(typingctx, address):
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _i64.as_pointer())
        return builder.atomic_rmw("add", pointer, _i64(1), "acq_rel")

    return types.int64(types.int64), codegen


@intrinsic
def _read_counter(typingctx, address):
    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _i64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


def new_progress(phases: int) -> np.ndarray:
    """Counters of one run of a step; each run has its own, so that a thread that comes too late does no harm."""
    return np.zeros((phases, COUNTERS), dtype=np.int64)


@compiled
def claim(progress, phase):
    """The index of the next item of `phase`; too large when none is left."""
    return _count_up(address_of(progress) + (phase * COUNTERS + CLAIMED) * 8)


@compiled
def finish(progress, phase):
    """Mark a claimed item as done."""
    _count_up(address_of(progress) + (phase * COUNTERS + DONE) * 8)


@compiled
def wait(progress, phase, items):
    """Return when all items of `phase` are done."""
    address = address_of(progress) + (phase * COUNTERS + DONE) * 8
    spins = 0
    while _read_counter(address) < items:
        spins += 1
        if spins == SPINS_BEFORE_YIELD:
            _yield_processor()
            spins = 0


class StepThreads:
    """Runs compiled functions on the calling thread and on helpers, which sleep in between.

    Args:
        threads: that share a step, the caller among them.
    """

    def __init__(self, threads: int) -> None:
        self._calls: list[queue.SimpleQueue] = [queue.SimpleQueue() for _ in range(threads - 1)]
        for calls in self._calls:
            threading.Thread(target=_help, args=(calls,), name="decode-step", daemon=True).start()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` here and on the helpers; returns when it does so here.

        It must not hold the GIL, and must share its work as this module says.
        """
        for calls in self._calls:
            calls.put((function, arguments))
        function(*arguments)

    def close(self) -> None:
        """Let the helpers end."""
        for calls in self._calls:
            calls.put(None)


def _help(calls: queue.SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        # A helper that missed several steps joins only the last.
        while not calls.empty():
            newer = calls.get()
            if newer is None:
                return
            call = newer
        function, arguments = call
        function(*arguments)
        del call, function, arguments  # or the step's memory would live until the next
