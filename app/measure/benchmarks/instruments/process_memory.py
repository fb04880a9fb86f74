"""How much memory a part of this process takes at its peak, where several share the process.

Resident memory, as the system counts it: tensors, mapped model files, the libraries' own buffers, and whatever the
allocator keeps. On Linux the kernel's own high-water mark (VmHWM) is set back before each stretch of work; elsewhere
the figure is sampled and may miss a peak shorter than the sampling. Pages that are shared or swapped out blur it, so
figures a few MiB apart mean nothing. Knows nothing of what the work is.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLING_S = 0.01
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
# Written to clear_refs it sets VmHWM back to what is resident now (proc(5)).
_RESET_PEAK = "5"


@dataclass
class MemoryAccount:
    """What one contestant holds, and the most that it held; only its own work may run inside `work`.

    Args:
        held_bytes: what is resident because of it now.
        peak_bytes: the most that was.
    """

    held_bytes: int = 0
    peak_bytes: int = 0

    @contextmanager
    def work(self) -> Iterator[None]:
        """Charge what happens inside to this account."""
        give_back_freed_memory()
        before_bytes = _resident_bytes()
        with _Peak() as peak:
            yield
        self.peak_bytes = max(self.peak_bytes, self.held_bytes + peak.bytes - before_bytes)
        give_back_freed_memory()
        self.held_bytes += _resident_bytes() - before_bytes

    def copy(self) -> MemoryAccount:
        """An account that goes on from here on its own."""
        return MemoryAccount(self.held_bytes, self.peak_bytes)


def give_back_freed_memory() -> None:
    """Return what was freed to the system, or the next contestant would take it over uncounted."""
    if _STATUS.exists():  # Linux; not every C library there has it
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class _Peak:
    """The most memory that was resident inside the `with`; read `bytes` afterwards."""

    def __init__(self) -> None:
        self.bytes = 0
        self._by_kernel = _reset_kernel_peak()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory-sampler", daemon=True)

    def __enter__(self) -> _Peak:
        self.bytes = _resident_bytes()
        if not self._by_kernel:
            self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._by_kernel:
            self.bytes = _kernel_peak_bytes()
        else:
            self._ended.set()
            self._sampler.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLING_S):
            self.bytes = max(self.bytes, _resident_bytes())


def _resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def _reset_kernel_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _kernel_peak_bytes() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
