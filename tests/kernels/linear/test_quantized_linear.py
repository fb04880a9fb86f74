"""Products with quantised matrices against the specification, and the layout it states."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kernels import reference
from kernels.contract import PackedMatrix
from kernels.linear.cpu_products import multiply
from tests.kernels.cases import cases, product

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(ops, dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(ops.device, dtype)


def draw_matrix(ops, bits, group_size, in_channels, out_channels, scale_dtype=torch.float16):
    """Random words, scales and minimums."""
    groups = -(-in_channels // group_size)
    generator = torch.Generator().manual_seed(in_channels + out_channels)
    words = groups * group_size * bits // 32
    packed = torch.randint(-(2**31), 2**31, (out_channels, words), generator=generator, dtype=torch.int32)
    scales = torch.rand((out_channels, groups), generator=generator) / 2**bits
    minimums = torch.rand((out_channels, groups), generator=generator) - 1.0
    scales, minimums = (each.to(ops.device, scale_dtype) for each in (scales, minimums))
    return PackedMatrix(packed.to(ops.device), scales, minimums, bits)


@cases(
    "in_channels out_channels bits tokens dtype",
    # One program or several, an odd number of runs, padding, the copy for many rows.
    [
        (576, 49, 4, 1),
        (576, 49, 8, 1),
        (80, 48, 4, 1),
        (80, 48, 8, 3),
        (48, 72, 4, 9),
        (48, 72, 8, 1),
        (4160, 8, 4, 1),
    ],
    compiled=[(576, 960, 4, 1), (576, 49, 8, 40)],
    full=product(
        [(576, 49), (48, 72), (80, 48), (576, 960), (1536, 576), (4160, 8)], [4, 8], [1, 2, 3, 8, 9, 40], DTYPES
    ),
    cpu_dtypes=[torch.float32],
)
def test_quantized_linear(ops, assert_close, in_channels, out_channels, bits, tokens, dtype):
    hidden = draw(ops, dtype, tokens, in_channels)
    matrix = draw_matrix(ops, bits, 32, in_channels, out_channels)
    expected = reference.naive_quantized_linear(hidden.float(), matrix)
    assert_close(ops.kernels.quantized_linear(hidden, matrix), expected)


@cases(
    "in_channels group_size bits tokens",
    [(576, 64, 4, 1), (576, 128, 8, 9), (640, 128, 4, 9), (640, 64, 8, 1)],
    full=product([576, 640], [64, 128], [4, 8], [1, 9]),
)
def test_wider_groups_and_a_bias(ops, assert_close, in_channels, group_size, tokens, bits):
    hidden, bias = draw(ops, torch.float32, tokens, in_channels), draw(ops, torch.float32, 49)
    matrix = draw_matrix(ops, bits, group_size, in_channels, 49)
    expected = reference.naive_quantized_linear(hidden, matrix, bias)
    assert_close(ops.kernels.quantized_linear(hidden, matrix, bias), expected)


@cases(
    "in_channels bits dtype",
    [(80, 4), (576, 8), (576, 4), (80, 8)],
    full=product([80, 576], [4, 8], DTYPES),
)
def test_dequantize(ops, assert_close, in_channels, bits, dtype):
    matrix = draw_matrix(ops, bits, 32, in_channels, 49)
    expected = reference.naive_dequantize(matrix, in_channels, torch.float32)
    assert_close(ops.kernels.dequantize(matrix, in_channels, dtype), expected)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("in_channels", "group_size", "scale_dtype"),
    [(80, 32, torch.float16), (576, 32, torch.float16), (1536, 32, torch.float32), (640, 64, torch.float16)],
    ids=str,
)
def test_rows_on_the_cpu_get_the_bits_that_they_get_alone(assert_close, bits, in_channels, group_size, scale_dtype):
    on_cpu = SimpleNamespace(device=torch.device("cpu"))
    hidden = draw(on_cpu, torch.float32, 7, in_channels)
    matrix = draw_matrix(on_cpu, bits, group_size, in_channels, 49, scale_dtype)
    together = multiply(hidden, matrix)
    assert_close(together, reference.naive_quantized_linear(hidden, matrix))
    assert torch.equal(together, torch.cat([multiply(row.view(1, -1), matrix) for row in hidden]))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_word_holds_every_fourth_channel_of_its_run(bits):
    fields = 32 // bits
    for channel in (0, 1, 4, 4 * fields - 1, 4 * fields + 6):
        run, in_run = divmod(channel, 4 * fields)
        packed = torch.zeros((1, 64 * bits // 32), dtype=torch.int32)
        packed[0, run * 4 + in_run % 4] = 5 << in_run // 4 * bits
        matrix = PackedMatrix(packed, torch.ones(1, 2), torch.zeros(1, 2), bits)
        unpacked = reference.naive_dequantize(matrix, 64, torch.float32)
        assert unpacked[0].nonzero().flatten().tolist() == [channel]
        assert unpacked[0, channel] == 5


def test_wrong_tensors_are_refused(ops):
    hidden = draw(ops, torch.float32, 1, 576)
    matrix = draw_matrix(ops, 4, 32, 576, 49)
    wrong = {
        "packed": (hidden, matrix._replace(packed=matrix.packed.long())),
        "scales": (hidden, matrix._replace(scales=matrix.scales.int())),
        "minimums": (hidden, matrix._replace(minimums=matrix.minimums.double())),
        "bits": (hidden, matrix._replace(bits=3)),
        "500 input channels": (hidden[:, :500].contiguous(), matrix),
    }
    for name, arguments in wrong.items():
        with pytest.raises(ValueError, match=name):
            ops.kernels.quantized_linear(*arguments)
