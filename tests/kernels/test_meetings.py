"""Programs of one launch that meet, and that do not."""

from __future__ import annotations

import pytest
import torch
import triton

from kernels import reference
from kernels.gpu_tools import grid_barrier as meetings
from tests.kernels.cases import of_gpu_kernels


def test_programs_meet_that_have_a_multiprocessor_each(monkeypatch):
    device = torch.device("cpu")
    monkeypatch.setattr(meetings, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    assert meetings.programs_meet((8, 16), device)
    assert not meetings.programs_meet((32, 8), device)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    assert not meetings.programs_meet((8, 16), device)


@pytest.mark.gpu
@of_gpu_kernels
@pytest.mark.parametrize(("group", "head_dim"), [(1, 128), (3, 80), (8, 256)])
def test_launches_with_and_without_meetings_follow_one_another(
    ops, make_case, assert_close, monkeypatch, group, head_dim
):
    case = make_case(ops.device, torch.float32, 1541, group=group, head_dim=head_dim)
    arguments = (case.query, case.cache, case.sequence, 0.125)
    expected = reference.naive_dense_decode_attention(*arguments)
    # They count on from one another.
    for meet in (True, False, False, True, True):
        monkeypatch.setattr("kernels.attend.gpu.programs_meet", lambda grid, device, meet=meet: meet)
        assert_close(ops.kernels.dense_decode_attention(*arguments), expected)
