"""Loops over vectors that Numba's own code would be slow at, as intrinsics, and what numbers and addresses need.

Each function takes addresses, and lengths in elements: passing an array would count its references, which costs more
than a short loop. The dtype of an array gives the kind of its elements. What is emitted is in `emitted`.
"""

from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu_tools.emitted import (
    BFLOAT16,
    BFLOAT16_NAN,
    ELEMENT_BYTES,
    FLOAT16,
    FLOAT16_LARGEST,
    FLOAT16_REBIAS,
    FLOAT32,
    KINDS,
    LANES,
    LINE_BYTES,
    broadcast,
    combine_lanes,
    emit_dots,
    emit_prefetch,
    f32,
    i16,
    i32,
    i64,
    load,
    load_widened,
    pointer,
    round_bits,
    splat,
    store,
    vector_type,
)


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
                store(builder, product, products, builder.mul(product_stride, i64(row)))

            emit_dots(builder, kind, rows, vector, inputs, stride, dims, store_product)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return dots


@intrinsic
def load_element(typingctx, dtype, address, index):
    """The element at `index` from `address`, widened to float32."""

    def codegen(context, builder, signature, arguments):
        return load_widened(builder, KINDS[dtype.dtype], arguments[1], 1, arguments[2])

    return types.float32(dtype, types.int64, types.int64), codegen


def _emit_reduction(builder, address, count, combine, start):
    """All floats from `address` on, combined in a fixed order."""
    lanes = cgutils.alloca_once(builder, vector_type(f32, LANES))
    builder.store(splat(f32, LANES, start), lanes)
    result = cgutils.alloca_once(builder, f32)
    whole = builder.and_(count, i64(-LANES))
    with cgutils.for_range_slice(builder, i64(0), whole, i64(LANES)) as (i, _):
        builder.store(combine(builder.load(lanes), load(builder, address, f32, LANES, i)), lanes)
    builder.store(combine_lanes(builder, builder.load(lanes), combine), result)
    with cgutils.for_range_slice(builder, whole, count, i64(1)) as (i, _):
        builder.store(combine(builder.load(result), load(builder, address, f32, 1, i)), result)
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
            largest = f32(FLOAT16_LARGEST)
            value = builder.select(builder.fcmp_ordered(">", value, largest), largest, value)
            lowest = f32(-FLOAT16_LARGEST)
            value = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
            bits = builder.bitcast(builder.fmul(value, f32(1 / FLOAT16_REBIAS)), i32)
            magnitude = round_bits(builder, builder.and_(bits, i32(0x7FFFFFFF)), 13)
            sign = builder.and_(builder.lshr(bits, i32(16)), i32(0x8000))
            bits = builder.or_(sign, magnitude)
        else:
            bits = round_bits(builder, builder.bitcast(value, i32), 16)
        builder.store(builder.trunc(bits, i16), pointer(builder, address, i16, 2, index), align=1)
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
                value = load(builder, source, i16, lanes, offset)
            else:
                value = load_widened(builder, source_kind, source, lanes, offset)
            if not same and target_kind == BFLOAT16:
                bits = builder.bitcast(value, vector_type(i32, lanes))
                rounded = builder.trunc(round_bits(builder, bits, 16), vector_type(i16, lanes))
                # Rounding the bits of a NaN might carry into its sign.
                value = builder.select(
                    builder.fcmp_unordered("uno", value, value), splat(i16, lanes, BFLOAT16_NAN), rounded
                )
            element_bytes = ELEMENT_BYTES[target_kind]
            builder.store(value, pointer(builder, target, value.type, element_bytes, offset), align=1)

        whole = builder.and_(count, i64(-2 * LANES))
        with cgutils.for_range_slice(builder, i64(0), whole, i64(2 * LANES)) as (i, _):
            copy(i, 2 * LANES)
        with cgutils.for_range_slice(builder, whole, count, i64(1)) as (i, _):
            copy(i, 1)
        return context.get_dummy_value()

    return types.void(source_dtype, types.int64, target_dtype, types.int64, types.int64), codegen


@intrinsic
def address_of(typingctx, array):
    """Where an array's elements begin, as `array.ctypes.data` without counting references."""

    def codegen(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, i64)

    return types.int64(array), codegen


@intrinsic
def float_of_bits(typingctx, bits):
    """The float32 that an int32's bits stand for."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], f32)

    return types.float32(types.int32), codegen


@intrinsic
def load_float(typingctx, address, index):
    """The float32 at `index` from `address`."""

    def codegen(context, builder, signature, arguments):
        return load(builder, arguments[0], f32, 1, arguments[1])

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def scale_four(typingctx, source, source_index, factor, target, target_index):
    """Write four float32, from `source_index` on, times `factor` to `target_index` and what follows."""

    def codegen(context, builder, signature, arguments):
        source, source_index, factor, target, target_index = arguments
        scaled = builder.fmul(load(builder, source, f32, 4, source_index), broadcast(builder, factor, 4))
        store(builder, scaled, target, target_index)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64, types.int64), codegen


@intrinsic
def load_integer(typingctx, address, index):
    """The int32 at `index` from `address`."""

    def codegen(context, builder, signature, arguments):
        return builder.sext(load(builder, arguments[0], i32, 1, arguments[1]), i64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def prefetch_lines(typingctx, address, length_bytes):
    """Prefetch the cache lines of so many bytes from `address` on."""

    def codegen(context, builder, signature, arguments):
        address, length_bytes = arguments
        with cgutils.for_range_slice(builder, i64(0), length_bytes, i64(LINE_BYTES)) as (offset, _):
            emit_prefetch(builder, builder.add(address, offset))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
