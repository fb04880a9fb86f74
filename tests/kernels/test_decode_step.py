"""The fused operators of one decode step against the specification."""

from __future__ import annotations

import pytest
import torch
import triton

from kernels import reference
from kernels.contract import SUMMARIES, HeadNorms, PackedMatrix, RopeTables
from kernels.linear import gpu as decode_linear
from quest_core.model.quantization import quantize
from tests.kernels.cases import GPU_KERNELS, cases, of_gpu_kernels, product

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPSILON = 1e-5
BITS = [16, 8, 4]


def draw(ops, dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(ops.device, dtype)


def draw_matrix(ops, dtype, bits, out_channels, in_channels):
    weights = draw(ops, dtype, out_channels, in_channels) * in_channels**-0.5
    return weights if bits == 16 else quantize(weights, bits).packed_matrix


# The CPU composes these of `quantized_linear` and torch's product, in float32.
CPU_DTYPES = [torch.float32]
SHAPES = [(576, 49), (80, 24), (2560, 20), (4160, 20)]
# 80 channels are an odd number of runs, and 4160 are several tiles; ends of rows have a test of their own.
LINEAR_CASES = cases(
    "rows in_channels out_channels bias bits dtype",
    [
        (1, 576, 21, True, 16),
        (1, 576, 21, False, 16),
        (1, 576, 21, True, 8),
        (1, 576, 21, False, 8),
        (1, 576, 21, True, 4),
        (3, 80, 24, False, 4),
        (1, 80, 24, True, 4),
        (1, 4160, 20, True, 16),
        (1, 4160, 20, False, 4),
        (3, 80, 24, True, 16),
    ],
    full=product([1, 3, 8], SHAPES, [False, True], BITS, DTYPES),
    cpu_dtypes=CPU_DTYPES,
)


@LINEAR_CASES
def test_norm_linear(ops, assert_close, rows, in_channels, out_channels, bias, bits, dtype):
    hidden, weight = draw(ops, dtype, rows, in_channels), draw(ops, dtype, in_channels)
    matrix = draw_matrix(ops, dtype, bits, out_channels, in_channels)
    bias = draw(ops, dtype, out_channels) if bias else None
    expected = reference.naive_norm_linear(hidden, weight, EPSILON, matrix, bias)
    assert_close(ops.kernels.norm_linear(hidden, weight, EPSILON, matrix, bias), expected)


@cases(
    "rows in_channels intermediate bits dtype",
    [(1, 576, 11, 16), (1, 576, 11, 8), (1, 576, 11, 4), (1, 80, 24, 4), (3, 80, 24, 16), (1, 4160, 20, 8)],
    full=product([1, 3, 8], SHAPES, BITS, DTYPES),
    cpu_dtypes=CPU_DTYPES,
)
def test_norm_swiglu(ops, assert_close, rows, in_channels, intermediate, bits, dtype):
    hidden, weight = draw(ops, dtype, rows, in_channels), draw(ops, dtype, in_channels)
    gate_up = draw_matrix(ops, dtype, bits, 2 * intermediate, in_channels)
    expected = reference.naive_norm_swiglu(hidden, weight, EPSILON, gate_up)
    assert_close(ops.kernels.norm_swiglu(hidden, weight, EPSILON, gate_up), expected)


@LINEAR_CASES
def test_linear_add(ops, assert_close, rows, in_channels, out_channels, bias, bits, dtype):
    hidden, residual = draw(ops, dtype, rows, in_channels), draw(ops, dtype, rows, out_channels)
    matrix = draw_matrix(ops, dtype, bits, out_channels, in_channels)
    bias = draw(ops, dtype, out_channels) if bias else None
    expected = residual.clone()
    reference.naive_linear_add(hidden, matrix, expected, bias)
    ops.kernels.linear_add(hidden, matrix, residual, bias)
    assert_close(residual, expected)


@cases(
    "rows in_channels bits dtype",
    [(3, 576, 16, torch.float32), (3, 80, 4, torch.float16), (8, 352, 8, torch.float32), (2, 4160, 4, torch.float16)],
    full=product([2, 3, 5, 7, 8], [576, 80, 352, 2560, 4160], BITS, DTYPES),
    implementations=GPU_KERNELS,
)
def test_rows_of_a_product_get_the_bits_that_they_get_alone(ops, assert_close, rows, in_channels, bits, dtype):
    hidden, weight = draw(ops, dtype, rows, in_channels), draw(ops, dtype, in_channels)
    matrix = draw_matrix(ops, dtype, bits, 24, in_channels)
    residual = draw(ops, dtype, rows, 24)

    def products(taken):
        added = residual[taken].clone()
        ops.kernels.linear_add(hidden[taken], matrix, added)
        normed = (hidden[taken], weight, EPSILON, matrix)
        return ops.kernels.norm_linear(*normed), ops.kernels.norm_swiglu(*normed), added

    of_rows = [products(slice(row, row + 1)) for row in range(rows)]
    alone = [torch.cat(each) for each in zip(*of_rows, strict=True)]
    for together, expected in zip(products(slice(None)), alone, strict=True):
        assert torch.equal(together, expected)
    expected = reference.naive_norm_linear(hidden, weight, EPSILON, matrix)
    assert_close(alone[0], expected)


# Packed weights are multiplied with 16-bit inputs as integers; their tiles are shared like others.
FLOATING = [torch.float32, torch.float16]


@cases(
    "in_channels out_channels bits dtype",
    [
        (80, 32, 16, torch.float32),
        (80, 26, 4, torch.float16),
        (80, 26, 8, torch.float32),
        (320, 16, 4, torch.float32),
        (320, 16, 16, torch.float16),
    ],
    full=product([(80, 32), (80, 26), (320, 16)], BITS, FLOATING),
    implementations=GPU_KERNELS,
)
def test_programs_share_tiles(ops, assert_close, monkeypatch, in_channels, out_channels, bits, dtype):
    """With more tiles than programs, full ones and not, and with rows in one piece and in several."""
    monkeypatch.setattr(decode_linear, "choose_blocks", lambda *shape: decode_linear.Blocks(4, 8, 1, 1))
    monkeypatch.setattr(decode_linear, "multiprocessors", lambda device: 3)
    hidden, weight = draw(ops, dtype, 2, in_channels), draw(ops, dtype, in_channels)
    matrix = draw_matrix(ops, dtype, bits, out_channels, in_channels)
    for name in ("norm_linear", "norm_swiglu"):
        expected = getattr(reference, f"naive_{name}")(hidden, weight, EPSILON, matrix)
        assert_close(getattr(ops.kernels, name)(hidden, weight, EPSILON, matrix), expected)


@cases(
    "in_channels out_channels programs tiles_of_a_row bits dtype",
    [
        (320, 16, 1, 1, 16, torch.float32),
        (320, 16, 1, 2, 8, torch.float32),
        (320, 16, 1, 1, 4, torch.float16),
        (352, 14, 0, 2, 16, torch.float16),
        (352, 14, 0, 1, 4, torch.float32),
    ],
    full=product([(320, 32, 1), (352, 26, 0)], [1, 2], BITS, FLOATING),
    implementations=GPU_KERNELS,
)
def test_the_end_of_a_row_is_a_tile_of_its_own(
    ops, assert_close, monkeypatch, in_channels, out_channels, programs, tiles_of_a_row, bits, dtype
):
    """After one tile and after several, filled by the row and not."""

    def cut(runs, *shape):
        tile_runs = triton.next_power_of_2(runs) // 2 // tiles_of_a_row
        tail_runs = triton.next_power_of_2(runs % tile_runs)
        return decode_linear.Blocks(4, tile_runs, 1, programs, tail_runs)

    monkeypatch.setattr(decode_linear, "choose_blocks", cut)
    monkeypatch.setattr(decode_linear, "multiprocessors", lambda device: 3)
    hidden, weight = draw(ops, dtype, 2, in_channels), draw(ops, dtype, in_channels)
    matrix = draw_matrix(ops, dtype, bits, out_channels, in_channels)
    for name in ("norm_linear", "norm_swiglu"):
        expected = getattr(reference, f"naive_{name}")(hidden, weight, EPSILON, matrix)
        assert_close(getattr(ops.kernels, name)(hidden, weight, EPSILON, matrix), expected)


@of_gpu_kernels
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", ["normal", "an outlier in each run", "zeros", "tiny", "large"])
def test_integers_lose_no_more_than_the_result_does(ops, bits, case):
    """Of 16-bit inputs; against float64, in units of what rounding the result to float16 loses."""
    hidden = draw(ops, torch.float16, 1, 320)
    if case == "an outlier in each run":
        hidden[:, ::32] *= 200
    hidden *= {"zeros": 0.0, "tiny": 2.0**-12, "large": 2.0**9}.get(case, 1.0)
    matrix = draw_matrix(ops, torch.float16, bits, 64, 320)
    exact = hidden.double() @ reference.naive_dequantize(matrix, 320, torch.float32).double().T
    product = torch.zeros((1, 64), dtype=torch.float16, device=ops.device)
    ops.kernels.linear_add(hidden, matrix, product)
    assert (product.double() - exact).norm() <= 1.5 * (exact.half().double() - exact).norm()


def test_tiles_are_small_enough_for_all_multiprocessors():
    for out_channels, rows in ((14336, 16), (2112, 16), (1500, 8), (576, 4), (10, 4)):
        assert decode_linear.choose_blocks(128, 4, True, out_channels, 132).out == rows
    assert decode_linear.choose_blocks(18, 4, True, 576, 132).runs == 32


@pytest.mark.parametrize(
    ("runs", "most_runs", "packed", "cut"),
    [
        (128, 128, True, (128, 0)),
        (80, 128, True, (64, 16)),
        (96, 128, True, (128, 0)),
        (18, 128, True, (32, 0)),
        (304, 128, True, (128, 0)),
        (320, 256, False, (256, 64)),
        (384, 256, False, (256, 0)),
        (2368, 256, False, (256, 64)),
    ],
)
def test_rows_are_cut_where_their_end_is_small(runs, most_runs, packed, cut):
    assert decode_linear.cut_row(runs, most_runs, packed) == cut


def test_a_quantised_matrix_has_a_packed_matrix(ops):
    matrix = quantize(draw(ops, torch.float32, 8, 64), 4)
    assert isinstance(matrix.packed_matrix, PackedMatrix)
    assert matrix.packed_matrix.bits == 4


@cases(
    "tokens group head_dim page_size qk_norm int8 summary",
    [
        (1, 1, 64, 4, False, False, "bounds"),
        (16, 3, 64, 16, True, True, "mean"),
        (16, 3, 64, 16, False, False, "mean"),
        (17, 8, 128, 16, False, True, "bounds"),
        (17, 8, 128, 16, True, False, "mean"),
        (30, 4, 80, 8, True, False, "bounds"),
        (30, 4, 80, 8, False, True, "bounds"),
        (30, 4, 80, 8, True, True, "mean"),
    ],
    full=product(
        [(1, 1, 64, 4), (16, 3, 64, 16), (17, 8, 128, 16), (30, 4, 80, 8)], [False, True], [False, True], SUMMARIES
    ),
)
def test_rotate_and_append(ops, make_case, assert_close, tokens, group, head_dim, page_size, qk_norm, int8, summary):
    dtype, kv_heads = ops.dtypes[0], 2
    shape = {"group": group, "head_dim": head_dim, "page_size": page_size, "summary": summary, "int8": int8}
    projected = draw(ops, dtype, 1, (group + 2) * kv_heads * head_dim)
    norms = HeadNorms(*(draw(ops, dtype, head_dim) for _ in range(2)), EPSILON) if qk_norm else None
    angles = draw(ops, torch.float32, 40, head_dim // 2)
    rope = RopeTables(angles.cos(), angles.sin())
    outcomes = []
    for append in (reference.naive_rotate_and_append, ops.kernels.rotate_and_append):
        case = make_case(ops.device, dtype, tokens, **shape)
        queries = append(projected.clone(), norms, rope, case.cache, case.sequence)
        page = case.physical_pages[-1]
        filled = slice(0, (tokens - 1) % page_size + 1)
        keys, values = (pages[page, :, filled] for pages in (case.cache.key_pages, case.cache.value_pages))
        outcomes.append((queries, keys, values, case.kept_summaries()[-1]))
    for actual, expected in zip(outcomes[1], outcomes[0], strict=True):
        assert actual.dtype == expected.dtype
        assert_close(actual, expected, 1e-2 if int8 else {torch.float32: 1e-5}.get(dtype, 4e-3))


@cases(
    "tokens rows group head_dim page_size qk_norm int8 summary",
    [
        (2, 2, 3, 64, 4, True, True, "mean"),
        (16, 3, 1, 64, 16, False, False, "mean"),
        (17, 4, 4, 64, 16, True, False, "bounds"),
        (29, 8, 8, 80, 4, True, True, "mean"),
        (28, 8, 3, 80, 4, False, True, "bounds"),
        (32, 5, 3, 128, 8, False, True, "mean"),
    ],
    full=product(
        [(2, 2, 3, 64, 4), (16, 3, 1, 64, 16), (17, 4, 4, 64, 16), (29, 8, 8, 80, 4), (28, 8, 3, 80, 4)],
        [False, True],
        [False, True],
        SUMMARIES,
    ),
)
def test_rows_are_rotated_and_appended_as_one_after_the_other(
    ops, make_case, assert_close, tokens, rows, group, head_dim, page_size, qk_norm, int8, summary
):
    """To the bit, the summaries of the pages that the rows fill and begin too; within a page and across several."""
    dtype, kv_heads = ops.dtypes[0], 2
    shape = {"group": group, "head_dim": head_dim, "page_size": page_size, "summary": summary, "int8": int8}
    projected = draw(ops, dtype, rows, (group + 2) * kv_heads * head_dim)
    norms = HeadNorms(*(draw(ops, dtype, head_dim) for _ in range(2)), EPSILON) if qk_norm else None
    angles = draw(ops, torch.float32, 40, head_dim // 2)
    rope = RopeTables(angles.cos(), angles.sin())
    together, alone, expected = (make_case(ops.device, dtype, tokens, **shape) for _ in range(3))
    for case in (together, alone, expected):
        new = case.physical_pages[(tokens - rows) // page_size :]
        # What rows that were refused before have left there.
        case.cache.summaries[new] = 7
        for pages in (case.cache.key_pages, case.cache.value_pages):
            pages[new[1:]] = float("nan")
            pages[new[0], :, (tokens - rows) % page_size :] = float("nan")
    queries = ops.kernels.rotate_and_append(projected.clone(), norms, rope, together.cache, together.sequence)
    of_rows = projected.clone().split(1)
    one_by_one = [
        ops.kernels.rotate_and_append(of_rows[row], norms, rope, alone.cache, alone.first(tokens - last))
        for row, last in enumerate(reversed(range(rows)))
    ]
    assert queries.shape == (rows, group * kv_heads, head_dim)
    assert torch.equal(queries, torch.cat(one_by_one))
    for ours, theirs in zip(together.cache.tensors, alone.cache.tensors, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    naive = reference.naive_rotate_and_append(projected, norms, rope, expected.cache, expected.sequence)
    assert_close(queries, naive, {torch.float32: 1e-5}.get(dtype, 4e-3))
    assert_close(together.kept_summaries(), expected.kept_summaries(), 1e-2 if int8 else 4e-3)


def test_more_rows_than_a_step_takes_are_refused(ops, make_case):
    if ops.name == "cpu":
        pytest.skip("its loops know no limit")
    case = make_case(ops.device, torch.float32, 40)
    angles = draw(ops, torch.float32, 40, 32)
    rope = RopeTables(angles, angles)
    with pytest.raises(ValueError, match="projected must have from 1 to 8 rows, got 9"):
        ops.kernels.rotate_and_append(draw(ops, torch.float32, 9, 6 * 64), None, rope, case.cache, case.sequence)
    with pytest.raises(ValueError, match="query must have from 1 to 8 rows, got 9"):
        ops.kernels.dense_decode_attention(case.query.expand(9, 2, 64), case.cache, case.sequence, 1.0)
