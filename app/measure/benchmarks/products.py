"""`bench products`: a weight matrix times one token's vector, in 16, 8 and 4 bits, beside torch's own 4-bit product.

Every product is checked against plain torch in float32 on the same weights before it is timed. Several matrices in
rotation keep the processor's own cache out of the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from app.errors import UserFacingError
from app.measure.benchmarks.instruments.timing import (
    free_device_memory,
    measure_copy_bandwidth,
    record_rotation,
    require_gpu,
    time_in_turn,
)
from app.measure.benchmarks.kernels import relative_error
from app.measure.machine import describe_machine
from kernels.contract import PackedMatrix
from quest_core.decode.attention import kernels_for
from quest_core.model.quantization import quantize

# (out_channels, in_channels): the projections of Llama-3.1-8B.
SHAPES = ((14336, 4096), (28672, 4096), (4096, 14336), (6144, 4096), (4096, 4096))
GROUP_SIZES = (32, 128)
# Bytes of all matrices of a rotation; well over any cache.
ROTATION_BYTES = 1 << 29
MIN_MATRICES, MAX_MATRICES = 4, 32
MAX_ERROR = 2e-2  # relative root mean square, of bfloat16
# torch's 4-bit product takes its weights in tiles of this many rows of k.
TORCH_INNER_K_TILES = 8


def measure_products(
    *,
    rounds: int,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure microseconds of one product.

    Args:
        rounds: of all contestants in turn; the median counts.
        shapes: (out_channels, in_channels).
        device: for tests; None takes the GPU.

    Returns:
        `rows` (engine, out_channels, in_channels, weight_bits, group_size, us, bytes, bytes_per_s, bandwidth_share of
        a copy's, max_relative_error), `skipped`, `copy_bytes_per_s` and `machine`.

    Raises:
        UserFacingError: without a GPU, or if a result is wrong.
    """
    device = device or require_gpu("products")
    bandwidth = measure_copy_bandwidth(device)
    rows, skipped = [], []
    for out_channels, in_channels in shapes:
        on_progress(f"{out_channels} x {in_channels}")
        with torch.inference_mode():
            rows += _measure_shape(out_channels, in_channels, rounds, dtype, device, bandwidth, skipped)
        free_device_memory(device)
    return {
        "benchmark": "products",
        "dtype": str(dtype).removeprefix("torch."),
        "rounds": rounds,
        "copy_bytes_per_s": bandwidth,
        "machine": describe_machine(device),
        "skipped": skipped,
        "rows": rows,
    }


def _measure_shape(out_channels, in_channels, rounds, dtype, device, bandwidth, skipped) -> list[dict[str, Any]]:
    generator = torch.Generator(device).manual_seed(0)
    weights = torch.randn((out_channels, in_channels), generator=generator, device=device) * 0.02
    hidden = torch.randn((1, in_channels), generator=generator, device=device).to(dtype)
    rows, runs = [], {}
    for name, build in _contestants(device).items():
        row = {"engine": name[0], "out_channels": out_channels, "in_channels": in_channels}
        row |= {"weight_bits": name[1], "group_size": name[2]}
        try:
            call, expected, matrix_bytes = build(weights, hidden)
            error = relative_error(call(0), expected)
            if not error <= MAX_ERROR:  # NaN is no smaller
                raise UserFacingError(f"{row} differs from plain torch by {error:.3g} (relative). It was not timed.")
            runs[name] = record_rotation(call, call.matrices, device)
        except UserFacingError:
            raise
        except Exception as reason:  # a rival that cannot run here, whatever it raises; ours must
            if name[0] == "quest-chat":
                raise
            skipped.append({**row, "reason": (str(reason).strip() or type(reason).__name__).splitlines()[0]})
            continue
        rows.append({**row, "bytes": matrix_bytes, "matrices": call.matrices, "max_relative_error": error})
    seconds = time_in_turn(runs, device, rounds)
    for row, (name, each) in zip(rows, seconds.items(), strict=True):
        seconds_each = each / row.pop("matrices")
        assert name[1] == row["weight_bits"]
        row |= {"us": seconds_each * 1e6, "bytes_per_s": row["bytes"] / seconds_each}
        row["bandwidth_share"] = row["bytes_per_s"] / bandwidth
    return rows


class _Rotation:
    """One product with each of several copies of a matrix in turn."""

    def __init__(self, product: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...]) -> None:
        matrix_bytes = sum(tensor.nbytes for tensor in tensors)
        self.matrices = min(MAX_MATRICES, max(MIN_MATRICES, ROTATION_BYTES // matrix_bytes))
        self._product = product
        self._copies = [tuple(tensor.clone() for tensor in tensors) for _ in range(self.matrices)]

    def __call__(self, matrix: int) -> torch.Tensor:
        return self._product(*self._copies[matrix])


def _contestants(device: torch.device) -> dict[tuple[str, int, int | None], Callable]:
    """(engine, bits, group) -> builds, from float32 weights and a token's vector, what to call, the result expected of
    it, and the bytes of its matrix.
    """
    kernels = kernels_for(device)

    def plain(weights, hidden):
        matrix = weights.to(hidden.dtype)
        expected = linear(hidden.float(), matrix.float())
        return _Rotation(lambda copy: linear(hidden, copy), (matrix,)), expected, matrix.nbytes

    def ours(bits, group_size):
        def build(weights, hidden):
            matrix = quantize(weights, bits, group_size, (1.0,))
            tensors = (matrix.packed.data, matrix.scales.data, matrix.minimums.data)
            stands_for = kernels.dequantize(matrix.packed_matrix, weights.shape[1], torch.float32)
            call = _Rotation(lambda *copy: kernels.quantized_linear(hidden, PackedMatrix(*copy, bits)), tensors)
            return call, linear(hidden.float(), stands_for), sum(tensor.nbytes for tensor in tensors)

        return build

    def torchs(group_size):
        def build(weights, hidden):
            out_channels, in_channels = weights.shape
            values = torch.randint(0, 16, weights.shape, device=device, dtype=torch.int32)
            # Two values a byte, the even channel in the high half; torch tiles them itself.
            packed = torch._convert_weight_to_int4pack(
                (values[:, ::2] << 4 | values[:, 1::2]).to(torch.uint8), TORCH_INNER_K_TILES
            )
            scales_and_zeros = torch.stack(
                (torch.full((in_channels // group_size, out_channels), 0.01, device=device),
                 torch.zeros((in_channels // group_size, out_channels), device=device)), dim=2,
            ).to(hidden.dtype)  # fmt: skip
            # Of w = (q - 8) * scale + zero.
            expected = linear(hidden.float(), (values - 8).float() * float(scales_and_zeros[0, 0, 0]))
            tensors = (packed, scales_and_zeros)
            call = _Rotation(lambda copy, scales: torch._weight_int4pack_mm(hidden, copy, group_size, scales), tensors)
            return call, expected, sum(tensor.nbytes for tensor in tensors)

        return build

    contestants = {("torch", 16, None): plain, ("torch", 4, 128): torchs(128)}
    for bits in (8, 4):
        for group_size in GROUP_SIZES:
            contestants["quest-chat", bits, group_size] = ours(bits, group_size)
    return contestants
