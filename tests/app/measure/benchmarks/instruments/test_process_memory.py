"""Memory accounts: what is held, what was held at the peak, and by whom."""

from __future__ import annotations

import gc
import time

import pytest
import torch

from app.measure.benchmarks.instruments import process_memory
from app.measure.benchmarks.instruments.process_memory import MemoryAccount

MIB = 1 << 20


def allocate(mebibytes: int) -> torch.Tensor:
    return torch.ones(mebibytes * MIB, dtype=torch.uint8)


@pytest.fixture(params=["kernel", "sampled"])
def hold(request, monkeypatch):
    """Takes a peak in either way; call it at the peak, so that a sampler sees it."""
    gc.collect()  # what earlier tests left would be freed in the middle of this one
    if request.param == "kernel":
        return lambda: None
    monkeypatch.setattr(process_memory, "_reset_kernel_peak", lambda: False)
    return lambda: time.sleep(30 * process_memory.SAMPLING_S)


def test_a_peak_outlives_what_caused_it(hold):
    account = MemoryAccount()
    with account.work():
        held = allocate(64)
        passing = allocate(128)
        hold()
        del passing
    assert len(held) == 64 * MIB
    assert 50 * MIB < account.held_bytes < 100 * MIB
    assert 180 * MIB < account.peak_bytes < 260 * MIB


def test_what_others_hold_is_not_charged(hold):
    first, second = MemoryAccount(), MemoryAccount()
    with first.work():
        of_first = allocate(96)
    with second.work():
        of_second = allocate(32)
    branch = first.copy()
    with branch.work():
        passing = allocate(64)
        hold()
        del passing
    assert len(of_first) > len(of_second)
    assert first.peak_bytes < 120 * MIB
    assert second.peak_bytes < 56 * MIB
    assert branch.peak_bytes > first.peak_bytes + 40 * MIB
