"""Launches whose programs wait at a grid barrier, and launches without one."""

from __future__ import annotations

import pytest
import torch
import triton

from kernels import reference
from kernels.gpu_tools import grid_barrier
from tests.kernels.cases import of_gpu_kernels


def test_programs_with_a_multiprocessor_each_use_the_barrier(monkeypatch):
    device = torch.device("cpu")
    monkeypatch.setattr(grid_barrier, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    assert grid_barrier.uses_grid_barrier((8, 16), device)
    assert not grid_barrier.uses_grid_barrier((32, 8), device)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    assert not grid_barrier.uses_grid_barrier((8, 16), device)


@pytest.mark.gpu
@of_gpu_kernels
@pytest.mark.parametrize(("group", "head_dim"), [(1, 128), (3, 80), (8, 256)])
def test_launches_with_and_without_a_barrier_follow_one_another(
    ops, make_case, assert_close, monkeypatch, group, head_dim
):
    case = make_case(ops.device, torch.float32, 1541, group=group, head_dim=head_dim)
    arguments = (case.query, case.cache, case.sequence, 0.125)
    expected = reference.naive_dense_decode_attention(*arguments)
    # They count on from one another.
    for waits in (True, False, False, True, True):
        monkeypatch.setattr("kernels.attend.gpu.uses_grid_barrier", lambda grid, device, waits=waits: waits)
        assert_close(ops.kernels.dense_decode_attention(*arguments), expected)
