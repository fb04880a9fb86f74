"""Operators on each token alone against the specification: norm, rotation, SwiGLU."""

from __future__ import annotations

import pytest
import torch

from kernels import reference
from kernels.contract import RopeTables
from tests.kernels.cases import cases, of_gpu_kernels, product

TOKENS = [1, 5, 130]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(ops, dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(ops.device, dtype)


@cases(
    "shape with_residual dtype",
    [([1, 576], False), ([5, 576], True), ([130, 48], True), ([3, 9, 64], False), ([2, 4096], True)],
    full=product([[1, 576], [5, 576], [130, 48], [3, 9, 64], [2, 4096]], [False, True], DTYPES),
)
def test_rms_norm(ops, assert_close, shape, dtype, with_residual):
    hidden, weight = draw(ops, dtype, *shape), draw(ops, dtype, shape[-1])
    residual = draw(ops, dtype, *shape[::-1]).reshape(shape).clone() if with_residual else None
    expected_residual = None if residual is None else residual.clone()
    expected = reference.naive_rms_norm(hidden.clone(), weight, 1e-5, expected_residual)
    assert_close(ops.kernels.rms_norm(hidden, weight, 1e-5, residual), expected)
    if with_residual:
        assert_close(residual, expected_residual)


@cases(
    "tokens head_dim dtype",
    [(1, 64), (5, 80), (130, 128), (5, 64)],
    full=product(TOKENS, [64, 80, 128], DTYPES),
)
def test_apply_rope_on_views_of_one_projection(ops, assert_close, tokens, head_dim, dtype):
    fused = draw(ops, dtype, tokens, 13, head_dim)
    expected = fused.clone()
    angles = torch.rand((300, head_dim // 2), generator=torch.Generator().manual_seed(1)).to(ops.device) * 6
    positions = torch.arange(tokens, device=ops.device, dtype=torch.int32) + 100
    rope = RopeTables(angles.cos(), angles.sin())
    ops.kernels.apply_rope(fused[:, :9], fused[:, 9:12], rope, positions)
    reference.naive_apply_rope(expected[:, :9], expected[:, 9:12], rope, positions)
    assert_close(fused, expected)
    assert torch.equal(fused[:, 12], expected[:, 12])


@cases("tokens dtype", [(1,), (5,), (130,)], full=product(TOKENS, DTYPES))
def test_swiglu(ops, assert_close, tokens, dtype):
    gate_up = draw(ops, dtype, tokens, 2 * 1536)
    assert_close(ops.kernels.swiglu(gate_up), reference.naive_swiglu(gate_up))


@of_gpu_kernels
def test_wrong_tensors_are_refused_by_the_gpu_launchers(ops):
    tables = torch.rand((300, 64), device=ops.device)
    positions = torch.arange(2, device=ops.device, dtype=torch.int32)
    with pytest.raises(ValueError, match="cosines must be contiguous"):
        queries, keys = draw(ops, torch.float32, 2, 4, 64), draw(ops, torch.float32, 2, 1, 64)
        ops.kernels.apply_rope(queries, keys, RopeTables(tables[:, :32], tables[:, 32:]), positions)
    with pytest.raises(ValueError, match="even head_dim, got 63"):
        odd = draw(ops, torch.float32, 2, 4, 63)
        ops.kernels.apply_rope(odd, odd, RopeTables(tables, tables), positions)
    with pytest.raises(ValueError, match="hidden must be contiguous"):
        ops.kernels.rms_norm(draw(ops, torch.float32, 4, 128)[:, :64], tables[0], 1e-5)
    with pytest.raises(ValueError, match="even width, got 7"):
        ops.kernels.swiglu(draw(ops, torch.float32, 2, 7))
