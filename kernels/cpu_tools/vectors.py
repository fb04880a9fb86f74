"""Loops over vectors written in LLVM's intermediate representation, where Numba's own code would be slow.

Each function takes addresses, and lengths in elements: passing an array would count its references, which costs more
than a short loop. The dtype of an array gives the kind of its elements. Lanes, and the order in which they are added
up, are fixed here and not left to the compiler, so that every processor computes the same; LLVM maps the lanes to the
registers that there are (SSE, AVX, NEON).
"""

from __future__ import annotations

import platform
from typing import NamedTuple

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 8
# Kinds of elements. Numba has no 16-bit floats on a CPU: the types that stand for their bits are a convention.
FLOAT32, BFLOAT16, FLOAT16, INT8 = 0, 1, 2, 3
ELEMENT_BYTES = {FLOAT32: 4, BFLOAT16: 2, FLOAT16: 2, INT8: 1}
KINDS = {types.float32: FLOAT32, types.uint16: BFLOAT16, types.int16: FLOAT16, types.int8: INT8}

_f32, _i8, _i16, _i32, _i64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
# A float16's bits, moved to where a float32 has its own, stand for a number that is too small by this factor.
FLOAT16_REBIAS = 2.0**112
FLOAT16_LARGEST = 65504.0
BFLOAT16_NAN = 0x7FC0


def _vector(element, lanes):
    return element if lanes == 1 else ir.VectorType(element, lanes)


def splat(element, lanes, value):
    return ir.Constant(_vector(element, lanes), value if lanes == 1 else [value] * lanes)


def _shuffle(builder, vector, order):
    undefined = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_i32, len(order)), order))


def broadcast(builder, scalar, lanes):
    if lanes == 1:
        return scalar
    vector = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined), scalar, _i32(0))
    return _shuffle(builder, vector, [0] * lanes)


def _pointer(builder, address, value_type, element_bytes, offset):
    address = builder.add(address, builder.mul(offset, _i64(element_bytes)))
    return builder.inttoptr(address, value_type.as_pointer())


def load(builder, address, element, lanes, offset):
    """`lanes` elements from the one at `offset`; no alignment is assumed."""
    element_bytes = 4 if element is _f32 else element.width // 8
    return builder.load(_pointer(builder, address, _vector(element, lanes), element_bytes, offset), align=1)


def store(builder, value, address, offset):
    """float32, one or a vector."""
    builder.store(value, _pointer(builder, address, value.type, 4, offset), align=1)


def _has_float16_conversions() -> bool:
    """Whether Numba compiles for a processor that widens float16 by an instruction."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    if config.CPU_NAME is None and config.CPU_FEATURES is None:
        return bool(binding.get_host_cpu_features().get("f16c"))
    return "+f16c" in (config.CPU_FEATURES or "")


def _has_512_bit_registers() -> bool:
    """Whether Numba compiles for a processor that has 32 registers of 16 float32."""
    if config.CPU_NAME is None and config.CPU_FEATURES is None:
        return bool(binding.get_host_cpu_features().get("avx512f"))
    return "+avx512f" in (config.CPU_FEATURES or "")


HAS_FLOAT16_CONVERSIONS, HAS_512_BIT_REGISTERS = _has_float16_conversions(), _has_512_bit_registers()
# How far ahead memory is prefetched: for longer than it takes to answer, and no more than a part of the nearest cache.
AHEAD_BYTES, LINE_BYTES = 4096, 64
# A packed row's runs, four words each, that are multiplied at once where groups have 32 channels: what one register
# holds. Of them a row has whole blocks of eight groups; what is left is multiplied STEP_RUNS at once.
STEP_RUNS = 2
BLOCK_STEP_RUNS = 4 if HAS_512_BIT_REGISTERS else STEP_RUNS


def _widen_float16(builder, halves, lanes):
    """int16 bits of float16 -> float32; by bit operations, infinities and NaN are not kept."""
    if HAS_FLOAT16_CONVERSIONS:
        return builder.fpext(builder.bitcast(halves, _vector(ir.HalfType(), lanes)), _vector(_f32, lanes))
    bits = builder.shl(builder.sext(halves, _vector(_i32, lanes)), splat(_i32, lanes, 13))
    bits = builder.and_(bits, splat(_i32, lanes, 0x8FFFFFFF - (1 << 32)))
    return builder.fmul(builder.bitcast(bits, _vector(_f32, lanes)), splat(_f32, lanes, FLOAT16_REBIAS))


def load_widened(builder, kind, address, lanes, offset):
    if kind == FLOAT32:
        return load(builder, address, _f32, lanes, offset)
    if kind == INT8:
        return builder.sitofp(load(builder, address, _i8, lanes, offset), _vector(_f32, lanes))
    bits = load(builder, address, _i16, lanes, offset)
    if kind == FLOAT16:
        return _widen_float16(builder, bits, lanes)
    bits = builder.shl(builder.zext(bits, _vector(_i32, lanes)), splat(_i32, lanes, 16))
    return builder.bitcast(bits, _vector(_f32, lanes))


def _round_bits(builder, bits, dropped):
    """int32, one or a vector, without its lowest `dropped` bits, to the nearest, of two the even one."""
    lanes = bits.type.count if isinstance(bits.type, ir.VectorType) else 1

    def constant(value):
        return splat(_i32, lanes, value)

    odd = builder.and_(builder.lshr(bits, constant(dropped)), constant(1))
    half = builder.add(bits, constant((1 << dropped - 1) - 1))
    return builder.lshr(builder.add(half, odd), constant(dropped))


def multiply_add(builder, a, b, c):
    suffix = "f32" if isinstance(a.type, ir.FloatType) else f"v{a.type.count}f32"
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fmuladd.{suffix}")
    return builder.call(function, (a, b, c))


def _combine_lanes(builder, vector, combine):
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        halves = [_shuffle(builder, vector, [first + lane for lane in range(lanes)]) for first in (0, lanes)]
        vector = combine(*halves)
    return builder.extract_element(vector, _i32(0))


def _sum_lanes(builder, vector):
    return _combine_lanes(builder, vector, builder.fadd)


def _emit_dots(builder, kind, rows, vector, queries, stride, dims, store_product):
    """Products of one vector with `rows` queries, `stride` elements apart; calls `store_product(row, product)`."""
    row_starts = [builder.mul(stride, _i64(row)) for row in range(rows)]
    # Two sums a row, so that neither waits for the other.
    cells = [cgutils.alloca_once(builder, _vector(_f32, LANES)) for _ in range(2 * rows)]
    totals = [cgutils.alloca_once(builder, _f32) for _ in range(rows)]
    for cell in cells:
        builder.store(splat(_f32, LANES, 0.0), cell)

    def add(d, lanes, sums):
        element = load_widened(builder, kind, vector, lanes, d)
        for start, cell in zip(row_starts, sums, strict=True):
            query = load(builder, queries, _f32, lanes, builder.add(d, start))
            builder.store(multiply_add(builder, element, query, builder.load(cell)), cell)

    pairs = builder.and_(dims, _i64(-2 * LANES))
    whole = builder.and_(dims, _i64(-LANES))
    with cgutils.for_range_slice(builder, _i64(0), pairs, _i64(2 * LANES)) as (d, _):
        add(d, LANES, cells[:rows])
        add(builder.add(d, _i64(LANES)), LANES, cells[rows:])
    with builder.if_then(builder.icmp_signed("<", pairs, whole)):
        add(pairs, LANES, cells[:rows])
    for row, total in enumerate(totals):
        both = builder.fadd(builder.load(cells[row]), builder.load(cells[rows + row]))
        builder.store(_sum_lanes(builder, both), total)
    with cgutils.for_range_slice(builder, whole, dims, _i64(1)) as (d, _):
        add(d, 1, totals)
    for row, total in enumerate(totals):
        store_product(row, builder.load(total))


def make_dots(kind: int, rows: int):
    """Function (vector, inputs, dims, stride, products, product_stride): products of a vector of `kind` with float32.

    Row r of the inputs begins `r * stride` elements from `inputs`; its product is written to
    `products + r * product_stride`. A row's product has the same bits whatever the number of rows.
    """

    @intrinsic
    def dots(typingctx, vector, inputs, dims, stride, products, product_stride):
        def codegen(context, builder, signature, arguments):
            vector, inputs, dims, stride, products, product_stride = arguments

            def store_product(row, product):
                store(builder, product, products, builder.mul(product_stride, _i64(row)))

            _emit_dots(builder, kind, rows, vector, inputs, stride, dims, store_product)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return dots


def make_page_dots(rows: int):
    """Function (dtype, vectors, count, dims, queries, stride, products): a page's vectors with several queries.

    The product of vector v with query r is written to `products + r * stride + v`, float32. Vectors and float32 queries
    follow each other without a gap.
    """

    @intrinsic
    def page_dots(typingctx, dtype, vectors, count, dims, queries, stride, products):
        kind = KINDS[dtype.dtype]

        def codegen(context, builder, signature, arguments):
            _, vectors, count, dims, queries, stride, products = arguments
            with cgutils.for_range_slice(builder, _i64(0), count, _i64(1)) as (v, _):
                size = _i64(ELEMENT_BYTES[kind])
                vector = builder.add(vectors, builder.mul(builder.mul(v, dims), size))

                def store_product(row, product):
                    store(builder, product, products, builder.add(v, builder.mul(stride, _i64(row))))

                _emit_dots(builder, kind, rows, vector, queries, dims, dims, store_product)
            return context.get_dummy_value()

        return types.void(dtype, *[types.int64] * 6), codegen

    return page_dots


class SummaryRun(NamedTuple):
    """The summaries of a kv head's logical pages `first` to `end`, as addresses and lengths in bytes.

    Args:
        summaries: of the head in physical page 0; those of the next page lie `summary_bytes` further on.
        scales: likewise, `scale_bytes` apart; 0 where there are none.
        table: int32, from logical to physical.
    """

    summaries: int
    summary_bytes: int
    scales: int
    scale_bytes: int
    table: int
    first: int
    end: int


class QueryVectors(NamedTuple):
    """What summaries are multiplied with: float32 [vectors, rows, dims] from `address` on.

    `address` may be that of a later row; `rows` is what lies between two vectors.
    """

    address: int
    vectors: int
    rows: int
    dims: int


def make_page_scores(rows: int):
    """Function (dtype, run, queries, scores, stride): score a `SummaryRun` for some rows of `QueryVectors`.

    The dot products of a page's summary vectors with the query vectors, times the summary vectors' scales, added up:
    one score for each row, to `scores + row * stride + page`, float32.
    """

    @intrinsic
    def page_scores(typingctx, dtype, run, queries, scores, stride):
        kind = KINDS[dtype.dtype]

        def codegen(context, builder, signature, arguments):
            _, run, queries, scores, stride = arguments
            summary_run = SummaryRun(*cgutils.unpack_tuple(builder, run))
            query_address, vectors, query_rows, dims = cgutils.unpack_tuple(builder, queries)
            totals = [cgutils.alloca_once(builder, _f32) for _ in range(rows)]
            step = cgutils.alloca_once(builder, _f32)
            has_scales = builder.icmp_signed("!=", summary_run.scales, _i64(0))
            with cgutils.for_range_slice(builder, summary_run.first, summary_run.end, _i64(1)) as (logical, _):
                page = builder.sext(load(builder, summary_run.table, _i32, 1, logical), _i64)
                page_summaries = builder.add(
                    summary_run.summaries, builder.mul(page, summary_run.summary_bytes)
                )
                for total in totals:
                    builder.store(_f32(0.0), total)
                with cgutils.for_range_slice(builder, _i64(0), vectors, _i64(1)) as (v, _):
                    vector = builder.add(
                        page_summaries, builder.mul(builder.mul(v, dims), _i64(ELEMENT_BYTES[kind]))
                    )
                    query = builder.add(
                        query_address, builder.mul(builder.mul(builder.mul(v, query_rows), dims), _i64(4))
                    )
                    builder.store(_f32(1.0), step)
                    with builder.if_then(has_scales):
                        page_scales = builder.add(summary_run.scales, builder.mul(page, summary_run.scale_bytes))
                        builder.store(load(builder, page_scales, _f32, 1, v), step)

                    def add_product(row, product):
                        total = multiply_add(builder, product, builder.load(step), builder.load(totals[row]))
                        builder.store(total, totals[row])

                    _emit_dots(builder, kind, rows, vector, query, dims, dims, add_product)
                for row, total in enumerate(totals):
                    store(builder, builder.load(total), scores, builder.add(logical, builder.mul(stride, _i64(row))))
            return context.get_dummy_value()

        return types.void(dtype, run, queries, types.int64, types.int64), codegen

    return page_scores


def make_weighted_sums(rows: int):
    """Function (dtype, vectors, count, dims, weights, stride, sums): add weighted vectors of a page to float32 sums.

    `count` vectors of `dims` elements follow each other; row r weighs them by the float32 from `weights + r * stride`
    on and adds to `sums + r * dims`.
    """

    @intrinsic
    def weighted_sums(typingctx, dtype, vectors, count, dims, weights, stride, sums):
        kind = KINDS[dtype.dtype]

        def codegen(context, builder, signature, arguments):
            _, vectors, count, dims, weights, stride, sums = arguments

            def add(d, lanes, blocks):
                cells_at = [
                    (block, row, builder.add(d, builder.add(_i64(block * lanes), builder.mul(dims, _i64(row)))))
                    for block in range(blocks)
                    for row in range(rows)
                ]
                cells = [cgutils.alloca_once(builder, _vector(_f32, lanes)) for _ in cells_at]
                for cell, (_, _, offset) in zip(cells, cells_at, strict=True):
                    builder.store(load(builder, sums, _f32, lanes, offset), cell)
                with cgutils.for_range_slice(builder, _i64(0), count, _i64(1)) as (token, _):
                    first = builder.add(d, builder.mul(dims, token))
                    values = [
                        load_widened(builder, kind, vectors, lanes, builder.add(first, _i64(block * lanes)))
                        for block in range(blocks)
                    ]
                    factors = [
                        broadcast(
                            builder,
                            load(builder, weights, _f32, 1, builder.add(token, builder.mul(stride, _i64(row)))),
                            lanes,
                        )
                        for row in range(rows)
                    ]
                    for cell, (block, row, _) in zip(cells, cells_at, strict=True):
                        total = multiply_add(builder, values[block], factors[row], builder.load(cell))
                        builder.store(total, cell)
                for cell, (_, _, offset) in zip(cells, cells_at, strict=True):
                    store(builder, builder.load(cell), sums, offset)

            pairs = builder.and_(dims, _i64(-2 * LANES))
            with cgutils.for_range_slice(builder, _i64(0), pairs, _i64(2 * LANES)) as (d, _):
                add(d, LANES, 2)
            with cgutils.for_range_slice(builder, pairs, dims, _i64(1)) as (d, _):
                add(d, 1, 1)
            return context.get_dummy_value()

        return types.void(dtype, *[types.int64] * 6), codegen

    return weighted_sums


@intrinsic
def load_element(typingctx, dtype, address, index):
    """The element at `index` from `address`, widened to float32."""

    def codegen(context, builder, signature, arguments):
        return load_widened(builder, KINDS[dtype.dtype], arguments[1], 1, arguments[2])

    return types.float32(dtype, types.int64, types.int64), codegen


def _emit_reduction(builder, address, count, combine, start):
    """All floats from `address` on, combined in a fixed order."""
    lanes = cgutils.alloca_once(builder, _vector(_f32, LANES))
    builder.store(splat(_f32, LANES, start), lanes)
    result = cgutils.alloca_once(builder, _f32)
    whole = builder.and_(count, _i64(-LANES))
    with cgutils.for_range_slice(builder, _i64(0), whole, _i64(LANES)) as (i, _):
        builder.store(combine(builder.load(lanes), load(builder, address, _f32, LANES, i)), lanes)
    builder.store(_combine_lanes(builder, builder.load(lanes), combine), result)
    with cgutils.for_range_slice(builder, whole, count, _i64(1)) as (i, _):
        builder.store(combine(builder.load(result), load(builder, address, _f32, 1, i)), result)
    return builder.load(result)


@intrinsic
def sum_of(typingctx, address, count):
    """The sum of `count` float32."""

    def codegen(context, builder, signature, arguments):
        return _emit_reduction(builder, *arguments, builder.fadd, 0.0)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def largest_of(typingctx, address, count):
    """The largest of `count` float32; minus infinity of none."""

    def codegen(context, builder, signature, arguments):
        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", b, a), b, a)

        return _emit_reduction(builder, *arguments, larger, float("-inf"))

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def store_element(typingctx, dtype, address, index, value):
    """Write a float32 in the kind of `dtype`, rounded to the nearest."""
    kind = KINDS[dtype.dtype]

    def codegen(context, builder, signature, arguments):
        _, address, index, value = arguments
        if kind == FLOAT32:
            store(builder, value, address, index)
            return context.get_dummy_value()
        if kind == FLOAT16:
            largest = _f32(FLOAT16_LARGEST)
            value = builder.select(builder.fcmp_ordered(">", value, largest), largest, value)
            lowest = _f32(-FLOAT16_LARGEST)
            value = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
            bits = builder.bitcast(builder.fmul(value, _f32(1 / FLOAT16_REBIAS)), _i32)
            magnitude = _round_bits(builder, builder.and_(bits, _i32(0x7FFFFFFF)), 13)
            sign = builder.and_(builder.lshr(bits, _i32(16)), _i32(0x8000))
            bits = builder.or_(sign, magnitude)
        else:
            bits = _round_bits(builder, builder.bitcast(value, _i32), 16)
        builder.store(builder.trunc(bits, _i16), _pointer(builder, address, _i16, 2, index), align=1)
        return context.get_dummy_value()

    return types.void(dtype, types.int64, types.int64, types.float32), codegen


@intrinsic
def copy_elements(typingctx, source_dtype, source, target_dtype, target, count):
    """Copy `count` elements: of one kind as they are, else to float32 or, rounded to the nearest, to bfloat16."""
    source_kind, target_kind = KINDS[source_dtype.dtype], KINDS[target_dtype.dtype]
    same = source_kind == target_kind
    if not same and target_kind not in (FLOAT32, BFLOAT16):
        return None

    def codegen(context, builder, signature, arguments):
        _, source, _, target, count = arguments

        def copy(offset, lanes):
            if same and source_kind != FLOAT32:
                value = load(builder, source, _i16, lanes, offset)
            else:
                value = load_widened(builder, source_kind, source, lanes, offset)
            if not same and target_kind == BFLOAT16:
                bits = builder.bitcast(value, _vector(_i32, lanes))
                rounded = builder.trunc(_round_bits(builder, bits, 16), _vector(_i16, lanes))
                # Rounding the bits of a NaN might carry into its sign.
                value = builder.select(
                    builder.fcmp_unordered("uno", value, value), splat(_i16, lanes, BFLOAT16_NAN), rounded
                )
            element_bytes = ELEMENT_BYTES[target_kind]
            builder.store(value, _pointer(builder, target, value.type, element_bytes, offset), align=1)

        whole = builder.and_(count, _i64(-2 * LANES))
        with cgutils.for_range_slice(builder, _i64(0), whole, _i64(2 * LANES)) as (i, _):
            copy(i, 2 * LANES)
        with cgutils.for_range_slice(builder, whole, count, _i64(1)) as (i, _):
            copy(i, 1)
        return context.get_dummy_value()

    return types.void(source_dtype, types.int64, target_dtype, types.int64, types.int64), codegen


def make_packed_dots(bits: int, scale_kind: int, rows: int):
    """Function (words, scales, minimums, shape, inputs, stride, products, product_stride): a matrix row times inputs.

    It takes two runs of a row (see `PackedMatrix`) at a time, eight words, or BLOCK_STEP_RUNS: a field is masked where
    it is and converted, which makes it too large by a power of two; inputs are scaled down by as much. Scales and
    minimums are of `scale_kind`. `shape` is (runs, block_end, groups, group_shift, sums): of the row, how many of them
    are in blocks of eight groups of 32 channels, the base-2 logarithm of the runs of a group, and where in a row of
    inputs their sums by group begin. Row r of the inputs begins `r * stride` elements from `inputs`, float32
    [runs / 2, fields, 8] and the sums, as `order_inputs` makes them; its product is written to
    `products + r * product_stride`. With an odd number of runs, the last one is taken alone. A row's product has the
    same bits whatever the number of rows, or of runs that are taken at once.
    """
    fields = 32 // bits
    step_groups = 2 if bits == 4 else 1  # of 32 channels, in STEP_RUNS
    usual_shift = 0 if bits == 4 else 1
    steps = BLOCK_STEP_RUNS // STEP_RUNS

    @intrinsic
    def packed_dots(typingctx, words, scales, minimums, shape, inputs, stride, products, product_stride):
        def codegen(context, builder, signature, arguments):
            words, scales, minimums, shape, inputs, stride, products, product_stride = arguments
            runs, block_end, groups, group_shift, sums = cgutils.unpack_tuple(builder, shape)
            row_starts = [builder.mul(stride, _i64(row)) for row in range(rows)]
            cells = [cgutils.alloca_once(builder, _vector(_f32, LANES)) for _ in range(2 * rows)]
            totals, offsets = cells[:rows], cells[rows:]
            for cell in cells:
                builder.store(splat(_f32, LANES, 0.0), cell)

            def multiply(run, lanes):
                """For each row of inputs, the products with the fields of `lanes` words, summed up over the fields."""
                row_words = load(builder, words, _i32, lanes, builder.mul(run, _i64(4)))
                first_input = builder.mul(run, _i64(4 * fields))
                parts = [[None, None] for _ in range(rows)]  # two chains of sums: one need not wait for the other
                for field in range(fields):
                    if field == fields - 1:
                        value = builder.lshr(row_words, splat(_i32, lanes, bits * field))
                    else:
                        value = builder.and_(row_words, splat(_i32, lanes, ((1 << bits) - 1) << bits * field))
                    value = builder.sitofp(value, _vector(_f32, lanes))
                    # A single run stands beside a gap.
                    of_field = builder.add(first_input, _i64(field * max(lanes, LANES)))
                    for start, chains in zip(row_starts, parts, strict=True):
                        operand = load(builder, inputs, _f32, lanes, builder.add(of_field, start))
                        part = chains[field % 2]
                        chains[field % 2] = (
                            builder.fmul(value, operand)
                            if part is None
                            else multiply_add(builder, value, operand, part)
                        )
                return [builder.fadd(*chains) for chains in parts]

            def add(of_rows, scale):
                for product, total in zip(of_rows, totals, strict=True):
                    builder.store(multiply_add(builder, product, scale, builder.load(total)), total)

            # Of a block, eight scales at once.
            with cgutils.for_range_slice(builder, _i64(0), block_end, _i64(LANES << usual_shift)) as (run, _):
                first_group = builder.lshr(run, _i64(usual_shift))
                wide = load_widened(builder, scale_kind, scales, LANES, first_group)
                for first_step in range(0, LANES // step_groups, steps):
                    of_rows = multiply(builder.add(run, _i64(first_step * STEP_RUNS)), steps * LANES)
                    for step in range(steps):
                        part = [step * LANES + lane for lane in range(LANES)]
                        of_step = of_rows if steps == 1 else [_shuffle(builder, product, part) for product in of_rows]
                        group = (first_step + step) * step_groups
                        order = [group + lane * step_groups // LANES for lane in range(LANES)]
                        add(of_step, _shuffle(builder, wide, order))
            pairs_end = builder.and_(runs, _i64(-STEP_RUNS))
            with cgutils.for_range_slice(builder, block_end, pairs_end, _i64(STEP_RUNS)) as (run, _):
                wide = ir.Constant(ir.VectorType(_f32, 2), ir.Undefined)
                for lane in range(2):
                    group = builder.lshr(builder.add(run, _i64(lane)), group_shift)
                    scale = load_widened(builder, scale_kind, scales, 1, group)
                    wide = builder.insert_element(wide, scale, _i32(lane))
                add(multiply(run, LANES), _shuffle(builder, wide, [0] * 4 + [1] * 4))
            groups_end = builder.and_(groups, _i64(-LANES))

            def add_minimums(group, lanes, sums_of_rows):
                wide = load_widened(builder, scale_kind, minimums, lanes, group)
                of_group = builder.add(sums, group)
                for start, cell in zip(row_starts, sums_of_rows, strict=True):
                    row_sums = load(builder, inputs, _f32, lanes, builder.add(of_group, start))
                    builder.store(multiply_add(builder, wide, row_sums, builder.load(cell)), cell)

            with cgutils.for_range_slice(builder, _i64(0), groups_end, _i64(LANES)) as (group, _):
                add_minimums(group, LANES, offsets)
            results = [cgutils.alloca_once(builder, _f32) for _ in range(rows)]
            for result, total, offset in zip(results, totals, offsets, strict=True):
                both = builder.fadd(builder.load(total), builder.load(offset))
                builder.store(_sum_lanes(builder, both), result)
            with cgutils.for_range_slice(builder, groups_end, groups, _i64(1)) as (group, _):
                add_minimums(group, 1, results)
            with builder.if_then(builder.icmp_signed("<", pairs_end, runs)):
                scale = load_widened(builder, scale_kind, scales, 1, builder.lshr(pairs_end, group_shift))
                for result, product in zip(results, multiply(pairs_end, 4), strict=True):
                    rest = builder.fmul(_sum_lanes(builder, product), scale)
                    builder.store(builder.fadd(builder.load(result), rest), result)
            for row, result in enumerate(results):
                store(builder, builder.load(result), products, builder.mul(product_stride, _i64(row)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3, shape, *[types.int64] * 4), codegen

    return packed_dots


@intrinsic
def address_of(typingctx, array):
    """Where an array's elements begin, as `array.ctypes.data` without counting references."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, _i64)

    return types.int64(array), codegen


@intrinsic
def float_of_bits(typingctx, bits):
    """The float32 that an int32's bits stand for."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _f32)

    return types.float32(types.int32), codegen


@intrinsic
def load_float(typingctx, address, index):
    """The float32 at `index` from `address`."""

    def codegen(context, builder, signature, arguments):
        return load(builder, arguments[0], _f32, 1, arguments[1])

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def scale_four(typingctx, source, source_index, factor, target, target_index):
    """Write four float32, from `source_index` on, times `factor` to `target_index` and what follows."""

    def codegen(context, builder, signature, arguments):
        source, source_index, factor, target, target_index = arguments
        scaled = builder.fmul(load(builder, source, _f32, 4, source_index), broadcast(builder, factor, 4))
        store(builder, scaled, target, target_index)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64, types.int64), codegen


@intrinsic
def load_integer(typingctx, address, index):
    """The int32 at `index` from `address`."""

    def codegen(context, builder, signature, arguments):
        return builder.sext(load(builder, arguments[0], _i32, 1, arguments[1]), _i64)

    return types.int64(types.int64, types.int64), codegen


def emit_prefetch(builder, address):
    """Prefetch the cache line at `address`."""
    function_type = ir.FunctionType(ir.VoidType(), [_i8.as_pointer(), _i32, _i32, _i32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, (builder.inttoptr(address, _i8.as_pointer()), _i32(0), _i32(3), _i32(1)))


@intrinsic
def prefetch_lines(typingctx, address, length_bytes):
    """Prefetch the cache lines of so many bytes from `address` on."""

    def codegen(context, builder, signature, arguments):
        address, length_bytes = arguments
        with cgutils.for_range_slice(builder, _i64(0), length_bytes, _i64(LINE_BYTES)) as (offset, _):
            emit_prefetch(builder, builder.add(address, offset))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
