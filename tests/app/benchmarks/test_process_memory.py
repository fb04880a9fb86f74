"""Memory accounts: what is held, what was held at the peak, and by whom."""

from __future__ import annotations

import pytest
import torch

from app.benchmarks import process_memory
from app.benchmarks.process_memory import MemoryAccount

MIB = 1 << 20


def allocate(mebibytes: int) -> torch.Tensor:
    return torch.ones(mebibytes * MIB, dtype=torch.uint8)


@pytest.fixture(params=["kernel", "sampled"])
def either_way(request, monkeypatch):
    if request.param == "sampled":
        monkeypatch.setattr(process_memory, "_reset_kernel_peak", lambda: False)


def test_a_peak_outlives_what_caused_it(either_way):
    account = MemoryAccount()
    with account.work():
        held = allocate(64)
        passing = allocate(128)
        torch.cumsum(passing[: 16 * MIB], 0, dtype=torch.uint8)  # so that a sampler sees it
        del passing
    assert len(held) == 64 * MIB
    assert 50 * MIB < account.held_bytes < 100 * MIB
    assert 180 * MIB < account.peak_bytes < 260 * MIB


def test_what_others_hold_is_not_charged(either_way):
    first, second = MemoryAccount(), MemoryAccount()
    with first.work():
        of_first = allocate(96)
    with second.work():
        of_second = allocate(32)
    branch = first.copy()
    with branch.work():
        passing = allocate(64)
        del passing
    assert len(of_first) > len(of_second)
    assert first.peak_bytes < 120 * MIB
    assert second.peak_bytes < 56 * MIB
    assert branch.peak_bytes > first.peak_bytes + 40 * MIB
