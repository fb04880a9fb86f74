"""How long work on a device takes: recorded once, replayed many times, rivals in turn.

On a GPU work is recorded in a CUDA graph, so that the host's time is no part of the figure, and timed by events on the
device; elsewhere it is called and timed by the host's clock. Knows nothing of what the work is.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from app.errors import UserFacingError

# Read and written once by a copy: far more than any cache holds.
COPY_BYTES = {"cuda": 2**31, "cpu": 2**26}
COPY_ROUNDS = 9
# A measurement shorter than this is repeated until it is not, so that the clock's resolution does not show.
MIN_MEASUREMENT_S = 2e-3
MAX_REPLAYS = 200


def require_gpu(benchmark: str) -> torch.device:
    """The GPU that `benchmark` measures.

    Raises:
        UserFacingError: if torch sees none.
    """
    if not torch.cuda.is_available():
        raise UserFacingError(f"bench {benchmark} measures GPU kernels, and torch sees no CUDA GPU here.")
    return torch.device("cuda:0")


def record_rotation(call: Callable[[int], Any], layers: int, device: torch.device) -> Callable[[], None]:
    """Record one call for each layer, one after the other, each over its own cache.

    A real decoder never reads the same layer's cache twice in a row; a benchmark that did would read it from the
    processor's own cache.

    Args:
        call: runs one layer, given its index; must not wait for the device.
        layers: how many.
        device: a GPU records; elsewhere the calls are made anew each time.

    Returns:
        What runs the calls; on a GPU it queues them and returns.
    """

    def run() -> None:
        for layer in range(layers):
            call(layer)

    if device.type != "cuda":
        run()  # compiles what is compiled at the first call
        return run
    # On a stream of its own, as torch asks for before a capture; compiling and tuning end here too.
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        run()
        run()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return _Recording(graph, call)


class _Recording:
    """A graph, and what its calls read: it knows addresses only, which must stay theirs while it may be replayed."""

    def __init__(self, graph: torch.cuda.CUDAGraph, call: Callable[[int], Any]) -> None:
        self._graph = graph
        self._call = call

    def __call__(self) -> None:
        self._graph.replay()


def time_in_turn(contestants: dict[str, Callable[[], None]], device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of one run of each contestant: the median over rounds in which all of them run in turn.

    Args:
        contestants: name -> what to run.
        rounds: how often each is measured, after one round that warms up.
    """
    replays = {}
    for name, run in contestants.items():
        run()
        once_s = _measure_s(run, 1, device)
        replays[name] = min(MAX_REPLAYS, max(1, round(MIN_MEASUREMENT_S / max(once_s, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            run()  # whatever ran before has left its data in the processor's cache
            times[name].append(_measure_s(run, replays[name], device))
    return {name: statistics.median(measured) for name, measured in times.items()}


def measure_copy_bandwidth(device: torch.device, copy_bytes: int | None = None) -> float:
    """Bytes a second of a large copy on the device, read and written bytes both counted: what a byte bound divides by.

    Args:
        copy_bytes: read and written together; None takes what suits the device.
    """
    copy_bytes = copy_bytes or COPY_BYTES[device.type]
    source = torch.zeros(copy_bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = time_in_turn({"copy": lambda: target.copy_(source)}, device, COPY_ROUNDS)["copy"]
    return 2 * source.nbytes / seconds


def free_device_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more, cycles included, before the next contestant asks for memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory that tensors took since the last reset; None where torch does not count it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _measure_s(run: Callable[[], Any], replays: int, device: torch.device) -> float:
    """Seconds of one of `replays` runs in a row."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(replays):
            run()
        return (time.perf_counter() - start) / replays
    started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    started.record()
    for _ in range(replays):
        run()
    ended.record()
    ended.synchronize()
    return started.elapsed_time(ended) * 1e-3 / replays
