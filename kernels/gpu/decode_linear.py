"""Products of one to eight rows with a matrix, with what comes before and after them fused in.

Bound by the memory that holds the matrix, so all else must hide behind reading it. A program asks for its first tile of
weights before it waits for the kernel before it (programmatic dependent launch: this kernel starts when all programs of
the one before work, and reads what that one writes only after a wait). While it works on a tile, the next one is on its
way. The norm's factor is one number for a row and is applied to the finished products. Packed weights meet 16-bit
inputs as integers (`kernels.gpu.integer_tiles`), all else as floats (`kernels.gpu.matrix_tiles`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.gpu.checks import (
    FLOATING,
    multiprocessors,
    require,
    require_contiguous,
    require_quantized,
)
from kernels.gpu.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu.integer_tiles import multiply_integers, prepare_integers
from kernels.gpu.matrix_tiles import UNSCALE_PACKED, load_tile, load_vector, multiply_tile, prepare_inputs
from kernels.reference import Matrix, PackedMatrix

# Up to here reading packed weights again for each row costs less than writing and reading a 16-bit copy.
FEW_ROWS = 8


class Blocks(NamedTuple):
    """How a product is cut.

    Args:
        out: rows of a tile.
        runs: of 16 bytes, in a row of a tile.
        warps: of a program.
        programs: on each multiprocessor, which share all tiles if these hold whole rows. Otherwise, or where this is
            0, there is a program for each tile's rows, which goes along them.
        tail_runs: of a smaller tile that holds what is left at the end of the rows; 0 where nothing is, or too much.
    """

    out: int
    runs: int
    warps: int
    programs: int
    tail_runs: int = 0


# By the bits of a weight: (runs of a row up to which it applies, blocks). Measured on H100 and H200, see
# kernels/NOTES.md. The integers of `kernels.gpu.integer_tiles` want more rows that share their preparation.
BLOCKS = {
    4: ((128, Blocks(4, 128, 4, 4)), (1 << 31, Blocks(8, 64, 2, 0))),
    8: ((256, Blocks(4, 256, 4, 3)), (1 << 31, Blocks(4, 128, 4, 0))),
    16: ((512, Blocks(4, 256, 4, 0)), (1 << 31, Blocks(8, 256, 4, 0))),
    32: ((1 << 31, Blocks(8, 256, 4, 0)),),
}
INTEGER_BLOCKS = {
    4: ((128, Blocks(16, 128, 4, 2)), (1 << 31, Blocks(8, 128, 4, 0))),
    8: ((256, Blocks(8, 256, 8, 2)), (1 << 31, Blocks(4, 512, 8, 0))),
}
LEAST_ROWS, LEAST_TAIL_RUNS = 4, 16


def choose_blocks(runs: int, bits: int, integers: bool, out_channels: int, multiprocessors: int) -> Blocks:
    """What measured fastest for matrices with rows of this many runs, in tiles small enough to busy all of a GPU."""
    blocks = next(blocks for up_to, blocks in (INTEGER_BLOCKS if integers else BLOCKS)[bits] if runs <= up_to)
    rows = blocks.out
    while rows > LEAST_ROWS and triton.cdiv(out_channels, rows) < multiprocessors:
        rows //= 2
    main_runs, tail_runs = cut_row(runs, blocks.runs, bits < 16)
    return blocks._replace(out=rows, runs=main_runs, tail_runs=tail_runs)


def cut_row(runs: int, most_runs: int, packed: bool) -> tuple[int, int]:
    """Runs of the tiles that go along a row, and of a smaller one at its end: 80 runs are 64 and 16, not 80 of 128.

    A larger end measured slower, and so did any after several tiles of packed weights.
    """
    whole = triton.next_power_of_2(runs)
    tile_runs = min(most_runs, whole if whole == runs else whole // 2)
    rest = runs % tile_runs
    tail_runs = max(triton.next_power_of_2(rest), LEAST_TAIL_RUNS) if rest else 0
    if 4 * tail_runs <= tile_runs and (runs <= most_runs or not packed):
        return tile_runs, tail_runs
    return min(most_runs, whole), 0


@triton.jit
def _prepare(hidden, gains, BITS: tl.constexpr, HAS_GAINS: tl.constexpr, INTEGERS: tl.constexpr):
    """Inputs, their sums and steps, and the squares of `hidden`, as `_multiply` takes them."""
    if INTEGERS:
        return prepare_integers(hidden, gains, BITS, HAS_GAINS)
    else:
        inputs, sums, squares = prepare_inputs(hidden, gains, BITS, HAS_GAINS)
        return inputs, sums, sums, squares  # floats have no steps


@triton.jit
def _multiply(
    weights, scales, minimums, inputs, sums, steps,
    BITS: tl.constexpr, INTEGERS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    if INTEGERS:
        return multiply_integers(weights, scales, minimums, inputs, sums, steps, BITS, INTERPRETED)
    else:
        return multiply_tile(weights, scales, minimums, inputs, sums, BITS)


@triton.jit
def _store_product(
    product, tile, token, bias_ptr, product_ptr, out_channels,
    FORM: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    out = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    if FORM == "swiglu":
        gate, up = tl.split(tl.reshape(product, [BLOCK_OUT // 2, 2]))
        product = gate / (1.0 + tl.exp(-gate)) * up
        out = tile * (BLOCK_OUT // 2) + tl.arange(0, BLOCK_OUT // 2)
        out_channels //= 2
    if HAS_BIAS:
        product += tl.load(bias_ptr + out, out < out_channels, 0.0).to(tl.float32)
    addresses = product_ptr + token * out_channels + out
    if FORM == "add":
        product += tl.load(addresses, out < out_channels, 0.0).to(tl.float32)
    tl.store(addresses, product.to(product_ptr.dtype.element_ty), out < out_channels)


@triton.jit
def _load_tail(
    weight_ptr, scale_ptr, minimum_ptr, tile, out_channels,
    IN_CHANNELS: tl.constexpr, BITS: tl.constexpr, GROUP_RUNS: tl.constexpr, PAIRED: tl.constexpr,
    BLOCK_OUT: tl.constexpr, FIRST_RUN: tl.constexpr, TAIL_RUNS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """The end of a tile's rows, as `load_tile` returns it; zeros where there is none."""
    if TAIL_RUNS == 0:
        return 0.0, 0.0, 0.0
    else:
        return load_tile(
            weight_ptr, scale_ptr, minimum_ptr, tile, FIRST_RUN, out_channels, IN_CHANNELS, BITS, GROUP_RUNS, PAIRED,
            BLOCK_OUT, TAIL_RUNS, EVEN and IN_CHANNELS * BITS == 128 * (FIRST_RUN + TAIL_RUNS),
        )  # fmt: skip


@triton.jit
def _decode_linear_kernel(
    hidden_ptr, norm_weight_ptr, weight_ptr, scale_ptr, minimum_ptr, bias_ptr, product_ptr,
    epsilon, rows, out_channels,
    IN_CHANNELS: tl.constexpr, BITS: tl.constexpr, GROUP_RUNS: tl.constexpr, FORM: tl.constexpr,
    HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr, DEPENDENT: tl.constexpr,
    BLOCK_OUT: tl.constexpr, BLOCK_RUNS: tl.constexpr, TAIL_RUNS: tl.constexpr, EVEN: tl.constexpr,
    INTEGERS: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Programs of one row of hidden share the tiles; those of its other rows run beside them and find L2 filled."""
    RUNS: tl.constexpr = (IN_CHANNELS * BITS + 127) // 128
    TAIL_RUN: tl.constexpr = RUNS - RUNS % BLOCK_RUNS
    TILES_END: tl.constexpr = TAIL_RUN if TAIL_RUNS > 0 else RUNS
    WHOLE: tl.constexpr = EVEN and (TAIL_RUNS > 0 or IN_CHANNELS * BITS % (128 * BLOCK_RUNS) == 0)
    PAIRED: tl.constexpr = FORM == "swiglu"
    UNSCALE: tl.constexpr = 1.0 if BITS >= 16 or INTEGERS else UNSCALE_PACKED
    token = (tl.program_id(0) % rows).to(tl.int64)
    tile = tl.program_id(0) // rows
    programs = tl.num_programs(0) // rows

    run = tl.arange(0, BLOCK_RUNS)
    weights, scales, minimums = load_tile(
        weight_ptr, scale_ptr, minimum_ptr, tile, 0, out_channels,
        IN_CHANNELS, BITS, GROUP_RUNS, PAIRED, BLOCK_OUT, BLOCK_RUNS, WHOLE,
    )  # fmt: skip
    tail_weights, tail_scales, tail_minimums = _load_tail(
        weight_ptr, scale_ptr, minimum_ptr, tile, out_channels,
        IN_CHANNELS, BITS, GROUP_RUNS, PAIRED, BLOCK_OUT, TAIL_RUN, TAIL_RUNS, EVEN,
    )  # fmt: skip
    gains, tail_gains = (), ()
    if HAS_NORM:
        gains = load_vector(norm_weight_ptr, run, IN_CHANNELS, BITS)
        if TAIL_RUNS > 0:
            tail_gains = load_vector(norm_weight_ptr, TAIL_RUN + tl.arange(0, TAIL_RUNS), IN_CHANNELS, BITS)
    wait_for_previous_kernel(DEPENDENT)
    let_next_kernel_start(DEPENDENT)
    hidden_ptr += token * IN_CHANNELS
    hidden = load_vector(hidden_ptr, run, IN_CHANNELS, BITS)
    inputs, sums, steps, squares = _prepare(hidden, gains, BITS, HAS_NORM, INTEGERS)
    square = 0.0
    if TAIL_RUNS > 0:
        tail_hidden = load_vector(hidden_ptr, TAIL_RUN + tl.arange(0, TAIL_RUNS), IN_CHANNELS, BITS)
        tail_inputs, tail_sums, tail_steps, tail_squares = _prepare(tail_hidden, tail_gains, BITS, HAS_NORM, INTEGERS)
        square = tl.sum(tail_squares, 0)

    if RUNS <= BLOCK_RUNS + TAIL_RUNS:
        tiles = tl.cdiv(out_channels, BLOCK_OUT)
        factor = UNSCALE
        if HAS_NORM:
            factor = tl.rsqrt((square + tl.sum(squares, 0)) / IN_CHANNELS + epsilon) * UNSCALE
        for this_tile in range(tile, tiles, programs):
            next_weights, next_scales, next_minimums = weights, scales, minimums
            next_tail_weights, next_tail_scales, next_tail_minimums = tail_weights, tail_scales, tail_minimums
            if this_tile + programs < tiles:
                next_weights, next_scales, next_minimums = load_tile(
                    weight_ptr, scale_ptr, minimum_ptr, this_tile + programs, 0, out_channels,
                    IN_CHANNELS, BITS, GROUP_RUNS, PAIRED, BLOCK_OUT, BLOCK_RUNS, WHOLE,
                )  # fmt: skip
                next_tail_weights, next_tail_scales, next_tail_minimums = _load_tail(
                    weight_ptr, scale_ptr, minimum_ptr, this_tile + programs, out_channels,
                    IN_CHANNELS, BITS, GROUP_RUNS, PAIRED, BLOCK_OUT, TAIL_RUN, TAIL_RUNS, EVEN,
                )  # fmt: skip
            products = _multiply(weights, scales, minimums, inputs, sums, steps, BITS, INTEGERS, INTERPRETED)
            product = tl.sum(products, 1)
            if TAIL_RUNS > 0:
                products = _multiply(
                    tail_weights, tail_scales, tail_minimums, tail_inputs, tail_sums, tail_steps,
                    BITS, INTEGERS, INTERPRETED,
                )  # fmt: skip
                product += tl.sum(products, 1)
            _store_product(
                product * factor, this_tile, token, bias_ptr, product_ptr, out_channels, FORM, HAS_BIAS, BLOCK_OUT
            )
            weights, scales, minimums = next_weights, next_scales, next_minimums
            tail_weights, tail_scales, tail_minimums = next_tail_weights, next_tail_scales, next_tail_minimums
    else:
        total = _multiply(weights, scales, minimums, inputs, sums, steps, BITS, INTEGERS, INTERPRETED)
        for first_run in range(BLOCK_RUNS, TILES_END, BLOCK_RUNS):
            run = first_run + tl.arange(0, BLOCK_RUNS)
            weights, scales, minimums = load_tile(
                weight_ptr, scale_ptr, minimum_ptr, tile, first_run, out_channels,
                IN_CHANNELS, BITS, GROUP_RUNS, PAIRED, BLOCK_OUT, BLOCK_RUNS, WHOLE,
            )  # fmt: skip
            if HAS_NORM:
                gains = load_vector(norm_weight_ptr, run, IN_CHANNELS, BITS)
            hidden = load_vector(hidden_ptr, run, IN_CHANNELS, BITS)
            inputs, sums, steps, more_squares = _prepare(hidden, gains, BITS, HAS_NORM, INTEGERS)
            squares += more_squares
            total += _multiply(weights, scales, minimums, inputs, sums, steps, BITS, INTEGERS, INTERPRETED)
        product = tl.sum(total, 1)
        if TAIL_RUNS > 0:
            products = _multiply(
                tail_weights, tail_scales, tail_minimums, tail_inputs, tail_sums, tail_steps,
                BITS, INTEGERS, INTERPRETED,
            )  # fmt: skip
            product += tl.sum(products, 1)
        product *= UNSCALE
        if HAS_NORM:
            product *= tl.rsqrt((square + tl.sum(squares, 0)) / IN_CHANNELS + epsilon)
        _store_product(product, tile, token, bias_ptr, product_ptr, out_channels, FORM, HAS_BIAS, BLOCK_OUT)


def linear_of_few_rows(hidden: torch.Tensor, matrix: Matrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Multiply up to FEW_ROWS rows [rows, in_channels] with a matrix; [rows, out_channels] in the dtype of `hidden`."""
    product = torch.empty((hidden.shape[0], _out_channels(matrix)), dtype=hidden.dtype, device=hidden.device)
    _launch(hidden, None, 0.0, matrix, bias, product, "plain")
    return product


def norm_linear(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `kernels.reference.naive_norm_linear`, for up to FEW_ROWS rows.

    Raises:
        ValueError: if a tensor is not contiguous, on a GPU, or of a matching shape and dtype.
    """
    product = torch.empty((hidden.shape[0], _out_channels(matrix)), dtype=hidden.dtype, device=hidden.device)
    _launch(hidden, norm_weight, epsilon, matrix, bias, product, "plain")
    return product


def norm_swiglu(hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix) -> torch.Tensor:
    """As `kernels.reference.naive_norm_swiglu`, for up to FEW_ROWS rows.

    Raises:
        ValueError: if a tensor is not contiguous, on a GPU, or of a matching shape and dtype; for an odd gate_up.
    """
    intermediate_size, odd = divmod(_out_channels(gate_up), 2)
    if odd:
        raise ValueError(f"gate_up must have an even number of rows, got {_out_channels(gate_up)}")
    product = torch.empty((hidden.shape[0], intermediate_size), dtype=hidden.dtype, device=hidden.device)
    _launch(hidden, norm_weight, epsilon, gate_up, None, product, "swiglu")
    return product


def linear_add(
    hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
) -> None:
    """As `kernels.reference.naive_linear_add`, for up to FEW_ROWS rows.

    Raises:
        ValueError: if a tensor is not contiguous, on a GPU, or of a matching shape and dtype.
    """
    require(residual, "residual", (hidden.shape[0], _out_channels(matrix)), FLOATING)
    require_contiguous(residual, "residual")
    _launch(hidden, None, 0.0, matrix, bias, residual, "add")


def _out_channels(matrix: Matrix) -> int:
    return (matrix.packed if isinstance(matrix, PackedMatrix) else matrix).shape[0]


def _launch(
    hidden: torch.Tensor,
    norm_weight: torch.Tensor | None,
    epsilon: float,
    matrix: Matrix,
    bias: torch.Tensor | None,
    product: torch.Tensor,
    form: str,
) -> None:
    require(hidden, "hidden", (None, None), FLOATING)
    require_contiguous(hidden, "hidden")
    rows, in_channels = hidden.shape
    if rows > FEW_ROWS:
        raise ValueError(f"hidden must have at most {FEW_ROWS} rows, got {rows}")
    if norm_weight is not None:
        require(norm_weight, "norm_weight", (in_channels,), FLOATING)
    if isinstance(matrix, PackedMatrix):
        weights, scales, minimums, bits = matrix
        group_runs = require_quantized(weights, scales, minimums, bits, in_channels)
    else:
        require(matrix, "matrix", (None, in_channels), FLOATING)
        require_contiguous(matrix, "matrix")
        weights = scales = minimums = matrix
        bits, group_runs = matrix.element_size() * 8, 1
    out_channels = weights.shape[0]
    if bias is not None:
        require(bias, "bias", (out_channels,), FLOATING)
    # 16-bit inputs lose less in integers than the largest of a run lost when it was rounded; float32 keeps to floats.
    integers = bits < 16 and hidden.element_size() == 2
    width = multiprocessors(hidden.device)
    blocks = choose_blocks(triton.cdiv(in_channels * bits, 128), bits, integers, out_channels, width)
    tiles = triton.cdiv(out_channels, blocks.out)
    if blocks.programs and in_channels * bits <= 128 * (blocks.runs + blocks.tail_runs):
        tiles = min(tiles, blocks.programs * width)
    dependent = launches_dependently(hidden.device)
    _decode_linear_kernel[(rows * tiles,)](
        hidden,
        hidden if norm_weight is None else norm_weight,
        weights,
        scales,
        minimums,
        hidden if bias is None else bias,
        product,
        epsilon,
        rows,
        out_channels,
        IN_CHANNELS=in_channels,
        BITS=bits,
        GROUP_RUNS=group_runs,
        FORM=form,
        HAS_NORM=norm_weight is not None,
        HAS_BIAS=bias is not None,
        DEPENDENT=dependent,
        BLOCK_OUT=blocks.out,
        BLOCK_RUNS=blocks.runs,
        TAIL_RUNS=blocks.tail_runs,
        EVEN=out_channels % blocks.out == 0,
        INTEGERS=integers,
        INTERPRETED=triton.knobs.runtime.interpret,
        num_warps=blocks.warps,
        launch_pdl=dependent,
    )
