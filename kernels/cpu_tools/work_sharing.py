"""Threads that share the items of a step's phases, without a pool that spins between steps.

A step is a sequence of phases, and a phase a number of items. Every thread that runs the step claims one item after the
other, and goes on to the next phase when all items are done, no matter by which thread. A single thread can run the
whole step, so one that comes late delays nobody.

Nor does one that the system interrupts, for its whole time slice on a busy machine: a thread that finds nothing left to
claim waits about as long as an item takes, and then computes those of the others once more. An item is computed into
the thread's own workspace. The first that has it done writes the results to where all see them; whoever comes later
throws his away, even if what he has read was overwritten meanwhile. Only an interruption while writing delays the
others, and that is a small part of an item's time. Results do not depend on which thread did what.
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

# Bytes of a phase's counters: of items claimed; in another cache line, of those done and one for each that is written.
CLAIMED, DONE, WRITTEN = 0, 64, 72
LINE_BYTES = 64
SPINS_BEFORE_TAKEOVER = 100000

_i8, _i64 = ir.IntType(8), ir.IntType(64)
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
def _set_flag(typingctx, address):
    """Set a byte to one; returns what it was."""

    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _i8.as_pointer())
        return builder.zext(builder.atomic_rmw("xchg", pointer, _i8(1), "acq_rel"), _i64)

    return types.int64(types.int64), codegen


def _make_read(integer, alignment):
    @intrinsic
    def read(typingctx, address):
        def codegen(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], integer.as_pointer())
            value = builder.load_atomic(pointer, "acquire", alignment)
            return value if integer is _i64 else builder.zext(value, _i64)

        return types.int64(types.int64), codegen

    return read


_read_counter, _read_flag = _make_read(_i64, 8), _make_read(_i8, 1)


def new_progress(phases: int, items: int) -> np.ndarray:
    """Counters of one run of a step with at most so many `items` in a phase.

    Each run has its own, so that a thread that comes too late does no harm.
    """
    lines = -(-(WRITTEN + items) // LINE_BYTES)
    return np.zeros((phases, lines * LINE_BYTES), dtype=np.uint8)


@compiled
def claim(progress, phase, items):
    """The index of an item of `phase` to compute, or `items` when all are done.

    At first items that nobody has claimed; when none is left, after a wait, those that nobody has written yet.
    """
    counters = address_of(progress) + phase * progress.shape[1]
    item = _count_up(counters + CLAIMED)
    return item if item < items else _take_over(counters, items)


@compiled
def _take_over(counters, items):
    spins = 0
    while _read_counter(counters + DONE) < items:
        spins += 1
        if spins == SPINS_BEFORE_TAKEOVER:
            for item in range(items):
                if _read_flag(counters + WRITTEN + item) == 0:
                    return item
            _yield_processor()
            spins = 0
    return items


@compiled
def begin_write(progress, phase, item):
    """Whether this thread is to write the item's results; the first that asks is, and has to call `finish` then."""
    return _set_flag(address_of(progress) + phase * progress.shape[1] + WRITTEN + item) == 0


@compiled
def finish(progress, phase):
    """Mark an item as done, its results written."""
    _count_up(address_of(progress) + phase * progress.shape[1] + DONE)


@compiled
def wait(progress, phase, items):
    """Return when so many items of `phase` are done, which other threads are writing."""
    address = address_of(progress) + phase * progress.shape[1] + DONE
    spins = 0
    while _read_counter(address) < items:
        spins += 1
        if spins == SPINS_BEFORE_TAKEOVER:
            _yield_processor()
            spins = 0


class StepThreads:
    """Runs compiled functions on the calling thread and on helpers, which sleep in between.

    Args:
        threads: that share a step, the caller among them.
    """

    def __init__(self, threads: int) -> None:
        self._calls: list[queue.SimpleQueue] = [queue.SimpleQueue() for _ in range(threads - 1)]
        self._helpers = [
            threading.Thread(target=_help, args=(calls,), name="decode-step", daemon=True) for calls in self._calls
        ]
        for helper in self._helpers:
            helper.start()

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function(*arguments)` here and on the helpers; returns when it does so here.

        It must not hold the GIL, and must share its work as this module says.
        """
        for calls in self._calls:
            calls.put((function, arguments))
        function(*arguments)

    def close(self) -> None:
        """End the helpers; returns when they have ended.

        One that came late may still compute what nobody waits for: the interpreter must not end under it.
        """
        for calls in self._calls:
            calls.put(None)
        for helper in self._helpers:
            helper.join()


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
