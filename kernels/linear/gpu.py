"""Products of one to eight rows with a matrix, with what comes before and after them fused in.

Reading the matrix from memory is the limit, so everything else must hide behind it. A program loads its first tile of
weights before it waits for the kernel before it (programmatic dependent launch: this kernel starts when all programs of
the one before run, and reads what that one writes only after a wait). While it works on a tile, the next one is being
loaded. The norm's factor is one for each row and is applied to the finished products. Packed weights are multiplied
with 16-bit inputs as integers (`kernels.gpu_tools.integer_tiles`), all else as floats
(`kernels.gpu_tools.matrix_tiles`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.contract import Matrix, PackedMatrix
from kernels.gpu_tools.checks import (
    FLOATING,
    multiprocessors,
    require,
    require_contiguous,
    require_few_rows,
    require_quantized,
)
from kernels.gpu_tools.dependent_launch import launches_dependently, let_next_kernel_start, wait_for_previous_kernel
from kernels.gpu_tools.integer_tiles import multiply_integers, prepare_integers
from kernels.gpu_tools.matrix_tiles import (
    UNSCALE_PACKED,
    MatrixShape,
    Tile,
    Weights,
    load_tile,
    load_vector,
    multiply_tile,
    prepare_inputs,
)


class Blocks(NamedTuple):
    """How a product is cut.

    Args:
        out: rows of a tile.
        runs: of 16 bytes, in a row of a tile.
        warps: of a program.
        programs: on each multiprocessor, which share all tiles if these hold whole rows. Otherwise, or if this is 0,
            there is a program for the rows of each tile, which goes along them.
        tail_runs: of a smaller tile for the rest at the end of the rows; 0 if there is no rest, or a large one.
    """

    out: int
    runs: int
    warps: int
    programs: int
    tail_runs: int = 0


# By the bits of a weight: (runs of a row up to which it applies, blocks). Measured on H100 and H200, see
# docs/kernels.md. The integers of `kernels.gpu_tools.integer_tiles` need more rows that share their preparation.
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
    """The blocks that measured fastest for rows of so many runs, with tiles small enough to occupy the whole GPU."""
    blocks = next(blocks for up_to, blocks in (INTEGER_BLOCKS if integers else BLOCKS)[bits] if runs <= up_to)
    rows = blocks.out
    while rows > LEAST_ROWS and triton.cdiv(out_channels, rows) < multiprocessors:
        rows //= 2
    main_runs, tail_runs = cut_row(runs, blocks.runs, bits < 16)
    return blocks._replace(out=rows, runs=main_runs, tail_runs=tail_runs)


def cut_row(runs: int, most_runs: int, packed: bool) -> tuple[int, int]:
    """Runs of the tiles along a row, and of a smaller tile at its end: 80 runs are 64 and 16, not padded to 128.

    A larger end measured slower, and so did any after several tiles of packed weights.
    """
    whole = triton.next_power_of_2(runs)
    tile_runs = min(most_runs, whole if whole == runs else whole // 2)
    rest = runs % tile_runs
    tail_runs = max(triton.next_power_of_2(rest), LEAST_TAIL_RUNS) if rest else 0
    if 4 * tail_runs <= tile_runs and (runs <= most_runs or not packed):
        return tile_runs, tail_runs
    return min(most_runs, whole), 0


class ProductShape(NamedTuple):
    """Constants of a product, beside those of its matrix.

    Args:
        form: "plain", "swiglu" of the halves of a product, or "add" to what the output holds.
        has_norm, has_bias: which of these there are.
        block_out, block_runs, tail_runs: as in `Blocks`.
        even: whether the rows are whole tiles.
        integers: whether inputs are multiplied as integers.
    """

    form: str
    has_norm: bool
    has_bias: bool
    block_out: int
    block_runs: int
    tail_runs: int
    even: bool
    integers: bool


class Output(NamedTuple):
    """Where a bias is, and where products go."""

    bias_ptr: tl.tensor
    product_ptr: tl.tensor


@triton.jit
def _prepare(hidden, gains, MATRIX: tl.constexpr, SHAPE: tl.constexpr):
    """`Inputs` and the squares of `hidden`."""
    if SHAPE.integers:
        return prepare_integers(hidden, gains, MATRIX.bits, SHAPE.has_norm)
    else:
        return prepare_inputs(hidden, gains, MATRIX.bits, SHAPE.has_norm)


@triton.jit
def _multiply(tile, inputs, MATRIX: tl.constexpr, SHAPE: tl.constexpr, INTERPRETED: tl.constexpr):
    """Multiply a `Tile` with `Inputs`; still to be summed over the runs."""
    if SHAPE.integers:
        return multiply_integers(tile, inputs, MATRIX.bits, INTERPRETED)
    else:
        return multiply_tile(tile, inputs, MATRIX.bits)


@triton.jit
def _store_product(product, tile, token, output, out_channels, SHAPE: tl.constexpr):
    """Finish the products of a tile's rows with one row of hidden, and write them."""
    BLOCK_OUT: tl.constexpr = SHAPE.block_out
    out = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    if SHAPE.form == "swiglu":
        gate, up = tl.split(tl.reshape(product, [BLOCK_OUT // 2, 2]))
        product = gate / (1.0 + tl.exp(-gate)) * up
        out = tile * (BLOCK_OUT // 2) + tl.arange(0, BLOCK_OUT // 2)
        out_channels //= 2
    if SHAPE.has_bias:
        product += tl.load(output.bias_ptr + out, out < out_channels, 0.0).to(tl.float32)
    addresses = output.product_ptr + token * out_channels + out
    if SHAPE.form == "add":
        product += tl.load(addresses, out < out_channels, 0.0).to(tl.float32)
    tl.store(addresses, product.to(output.product_ptr.dtype.element_ty), out < out_channels)


@triton.jit
def _load_main(matrix, tile, first_run, MATRIX: tl.constexpr, SHAPE: tl.constexpr):
    """A tile of whole runs."""
    # Unless the end of a row is a tile of its own, the last tile reaches beyond the row.
    WHOLE_ROWS: tl.constexpr = MATRIX.in_channels * MATRIX.bits % (128 * SHAPE.block_runs) == 0
    WHOLE: tl.constexpr = SHAPE.even and (SHAPE.tail_runs > 0 or WHOLE_ROWS)
    return load_tile(matrix, tile, first_run, MATRIX, SHAPE.block_out, SHAPE.block_runs, WHOLE)


@triton.jit
def _load_tail(matrix, tile, FIRST_RUN: tl.constexpr, MATRIX: tl.constexpr, SHAPE: tl.constexpr):
    """The end of a tile's rows; zeros where there is none."""
    if SHAPE.tail_runs == 0:
        return Tile(0.0, 0.0, 0.0)
    else:
        ENDS: tl.constexpr = MATRIX.in_channels * MATRIX.bits == 128 * (FIRST_RUN + SHAPE.tail_runs)
        WHOLE: tl.constexpr = SHAPE.even and ENDS
        return load_tile(matrix, tile, FIRST_RUN, MATRIX, SHAPE.block_out, SHAPE.tail_runs, WHOLE)


@triton.jit
def _decode_linear_kernel(
    hidden_ptr,
    norm_weight_ptr,
    weight_ptr,
    scale_ptr,
    minimum_ptr,
    bias_ptr,
    product_ptr,
    epsilon,
    rows,
    out_channels,
    MATRIX: tl.constexpr,
    SHAPE: tl.constexpr,
    DEPENDENT: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """The programs of one row of hidden share the tiles; those of other rows run at the same time and hit in L2."""
    IN_CHANNELS: tl.constexpr = MATRIX.in_channels
    BITS: tl.constexpr = MATRIX.bits
    HAS_NORM: tl.constexpr = SHAPE.has_norm
    BLOCK_RUNS: tl.constexpr = SHAPE.block_runs
    TAIL_RUNS: tl.constexpr = SHAPE.tail_runs
    RUNS: tl.constexpr = (IN_CHANNELS * BITS + 127) // 128
    TAIL_RUN: tl.constexpr = RUNS - RUNS % BLOCK_RUNS
    TILES_END: tl.constexpr = TAIL_RUN if TAIL_RUNS > 0 else RUNS
    UNSCALE: tl.constexpr = 1.0 if BITS >= 16 or SHAPE.integers else UNSCALE_PACKED
    matrix = Weights(weight_ptr, scale_ptr, minimum_ptr, out_channels)
    output = Output(bias_ptr, product_ptr)
    token = (tl.program_id(0) % rows).to(tl.int64)
    first_tile = tl.program_id(0) // rows
    programs = tl.num_programs(0) // rows

    run = tl.arange(0, BLOCK_RUNS)
    tile = _load_main(matrix, first_tile, 0, MATRIX, SHAPE)
    tail = _load_tail(matrix, first_tile, TAIL_RUN, MATRIX, SHAPE)
    gains, tail_gains = (), ()
    if HAS_NORM:
        gains = load_vector(norm_weight_ptr, run, IN_CHANNELS, BITS)
        if TAIL_RUNS > 0:
            tail_gains = load_vector(norm_weight_ptr, TAIL_RUN + tl.arange(0, TAIL_RUNS), IN_CHANNELS, BITS)
    wait_for_previous_kernel(DEPENDENT)
    let_next_kernel_start(DEPENDENT)
    hidden_ptr += token * IN_CHANNELS
    hidden = load_vector(hidden_ptr, run, IN_CHANNELS, BITS)
    inputs, squares = _prepare(hidden, gains, MATRIX, SHAPE)
    square = 0.0
    if TAIL_RUNS > 0:
        tail_hidden = load_vector(hidden_ptr, TAIL_RUN + tl.arange(0, TAIL_RUNS), IN_CHANNELS, BITS)
        tail_inputs, tail_squares = _prepare(tail_hidden, tail_gains, MATRIX, SHAPE)
        square = tl.sum(tail_squares, 0)

    if RUNS <= BLOCK_RUNS + TAIL_RUNS:
        tiles = tl.cdiv(out_channels, SHAPE.block_out)
        factor = UNSCALE
        if HAS_NORM:
            factor = tl.rsqrt((square + tl.sum(squares, 0)) / IN_CHANNELS + epsilon) * UNSCALE
        for this in range(first_tile, tiles, programs):
            next_tile, next_tail = tile, tail
            if this + programs < tiles:
                next_tile = _load_main(matrix, this + programs, 0, MATRIX, SHAPE)
                next_tail = _load_tail(matrix, this + programs, TAIL_RUN, MATRIX, SHAPE)
            product = tl.sum(_multiply(tile, inputs, MATRIX, SHAPE, INTERPRETED), 1)
            if TAIL_RUNS > 0:
                product += tl.sum(_multiply(tail, tail_inputs, MATRIX, SHAPE, INTERPRETED), 1)
            _store_product(product * factor, this, token, output, out_channels, SHAPE)
            tile, tail = next_tile, next_tail
    else:
        total = _multiply(tile, inputs, MATRIX, SHAPE, INTERPRETED)
        for first_run in range(BLOCK_RUNS, TILES_END, BLOCK_RUNS):
            run = first_run + tl.arange(0, BLOCK_RUNS)
            tile = _load_main(matrix, first_tile, first_run, MATRIX, SHAPE)
            if HAS_NORM:
                gains = load_vector(norm_weight_ptr, run, IN_CHANNELS, BITS)
            hidden = load_vector(hidden_ptr, run, IN_CHANNELS, BITS)
            inputs, more_squares = _prepare(hidden, gains, MATRIX, SHAPE)
            squares += more_squares
            total += _multiply(tile, inputs, MATRIX, SHAPE, INTERPRETED)
        product = tl.sum(total, 1)
        if TAIL_RUNS > 0:
            product += tl.sum(_multiply(tail, tail_inputs, MATRIX, SHAPE, INTERPRETED), 1)
        product *= UNSCALE
        if HAS_NORM:
            product *= tl.rsqrt((square + tl.sum(squares, 0)) / IN_CHANNELS + epsilon)
        _store_product(product, first_tile, token, output, out_channels, SHAPE)


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
    """Rows of a matrix."""
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
    """Write to `product`, [rows, out_channels] before the `form` of `ProductShape`."""
    require(hidden, "hidden", (None, None), FLOATING)
    require_contiguous(hidden, "hidden")
    rows, in_channels = require_few_rows(hidden, "hidden"), hidden.shape[1]
    if norm_weight is not None:
        require(norm_weight, "norm_weight", (in_channels,), FLOATING)
    if isinstance(matrix, PackedMatrix):
        weights, scales, minimums, bits = matrix
        group_runs = require_quantized(matrix, in_channels)
    else:
        require(matrix, "matrix", (None, in_channels), FLOATING)
        require_contiguous(matrix, "matrix")
        weights = scales = minimums = matrix
        bits, group_runs = matrix.element_size() * 8, 1
    out_channels = weights.shape[0]
    if bias is not None:
        require(bias, "bias", (out_channels,), FLOATING)
    # In 16-bit inputs integers lose less than rounding the largest of a run lost; float32 inputs stay floats.
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
        MATRIX=MatrixShape(in_channels, bits, group_runs, paired=form == "swiglu"),
        SHAPE=ProductShape(
            form=form,
            has_norm=norm_weight is not None,
            has_bias=bias is not None,
            block_out=blocks.out,
            block_runs=blocks.runs,
            tail_runs=blocks.tail_runs,
            even=out_channels % blocks.out == 0,
            integers=integers,
        ),
        DEPENDENT=dependent,
        INTERPRETED=triton.knobs.runtime.interpret,
        num_warps=blocks.warps,
        launch_pdl=dependent,
    )
