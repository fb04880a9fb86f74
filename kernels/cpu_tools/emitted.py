"""What the CPU's vector code is emitted with: operations on lanes in LLVM's intermediate representation.

Each function takes an LLVM builder and emits instructions. Lanes, and the order in which they are added up, are fixed
here and not left to the compiler, so that every processor computes the same; LLVM maps the lanes to the registers that
there are (SSE, AVX, NEON). The intrinsics made of them are in `vectors`, `page_loops`, `packed_dots` and `tiles`.
"""

from __future__ import annotations

import platform

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config

LANES = 8
# Kinds of elements. Numba has no 16-bit floats on a CPU: the types that stand for their bits are a convention.
FLOAT32, BFLOAT16, FLOAT16, INT8 = 0, 1, 2, 3
ELEMENT_BYTES = {FLOAT32: 4, BFLOAT16: 2, FLOAT16: 2, INT8: 1}
KINDS = {types.float32: FLOAT32, types.uint16: BFLOAT16, types.int16: FLOAT16, types.int8: INT8}

f32, i8, i16, i32, i64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
# A float16's bits, moved to where a float32 has its own, stand for a number that is too small by this factor.
FLOAT16_REBIAS = 2.0**112
FLOAT16_LARGEST = 65504.0
BFLOAT16_NAN = 0x7FC0


def vector_type(element, lanes):
    return element if lanes == 1 else ir.VectorType(element, lanes)


def splat(element, lanes, value):
    return ir.Constant(vector_type(element, lanes), value if lanes == 1 else [value] * lanes)


def shuffle(builder, vector, order):
    undefined = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(i32, len(order)), order))


def broadcast(builder, scalar, lanes):
    if lanes == 1:
        return scalar
    vector = builder.insert_element(ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined), scalar, i32(0))
    return shuffle(builder, vector, [0] * lanes)


def pointer(builder, address, value_type, element_bytes, offset):
    address = builder.add(address, builder.mul(offset, i64(element_bytes)))
    return builder.inttoptr(address, value_type.as_pointer())


def load(builder, address, element, lanes, offset):
    """`lanes` elements from the one at `offset`; no alignment is assumed."""
    element_bytes = 4 if element is f32 else element.width // 8
    return builder.load(pointer(builder, address, vector_type(element, lanes), element_bytes, offset), align=1)


def store(builder, value, address, offset):
    """float32, one or a vector."""
    builder.store(value, pointer(builder, address, value.type, 4, offset), align=1)


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


def _widen_float16(builder, halves, lanes):
    """int16 bits of float16 -> float32; by bit operations, infinities and NaN are not kept."""
    if HAS_FLOAT16_CONVERSIONS:
        return builder.fpext(builder.bitcast(halves, vector_type(ir.HalfType(), lanes)), vector_type(f32, lanes))
    bits = builder.shl(builder.sext(halves, vector_type(i32, lanes)), splat(i32, lanes, 13))
    bits = builder.and_(bits, splat(i32, lanes, 0x8FFFFFFF - (1 << 32)))
    return builder.fmul(builder.bitcast(bits, vector_type(f32, lanes)), splat(f32, lanes, FLOAT16_REBIAS))


def load_widened(builder, kind, address, lanes, offset):
    if kind == FLOAT32:
        return load(builder, address, f32, lanes, offset)
    if kind == INT8:
        return builder.sitofp(load(builder, address, i8, lanes, offset), vector_type(f32, lanes))
    bits = load(builder, address, i16, lanes, offset)
    if kind == FLOAT16:
        return _widen_float16(builder, bits, lanes)
    bits = builder.shl(builder.zext(bits, vector_type(i32, lanes)), splat(i32, lanes, 16))
    return builder.bitcast(bits, vector_type(f32, lanes))


def round_bits(builder, bits, dropped):
    """int32, one or a vector, without its lowest `dropped` bits, to the nearest, of two the even one."""
    lanes = bits.type.count if isinstance(bits.type, ir.VectorType) else 1

    def constant(value):
        return splat(i32, lanes, value)

    odd = builder.and_(builder.lshr(bits, constant(dropped)), constant(1))
    half = builder.add(bits, constant((1 << dropped - 1) - 1))
    return builder.lshr(builder.add(half, odd), constant(dropped))


def multiply_add(builder, a, b, c):
    suffix = "f32" if isinstance(a.type, ir.FloatType) else f"v{a.type.count}f32"
    function_type = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fmuladd.{suffix}")
    return builder.call(function, (a, b, c))


def combine_lanes(builder, vector, combine):
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        halves = [shuffle(builder, vector, [first + lane for lane in range(lanes)]) for first in (0, lanes)]
        vector = combine(*halves)
    return builder.extract_element(vector, i32(0))


def sum_lanes(builder, vector):
    return combine_lanes(builder, vector, builder.fadd)


def emit_dots(builder, kind, rows, vector, queries, stride, dims, store_product):
    """Products of one vector with `rows` queries, `stride` elements apart; calls `store_product(row, product)`."""
    row_starts = [builder.mul(stride, i64(row)) for row in range(rows)]
    # Two sums a row, so that neither waits for the other.
    cells = [cgutils.alloca_once(builder, vector_type(f32, LANES)) for _ in range(2 * rows)]
    totals = [cgutils.alloca_once(builder, f32) for _ in range(rows)]
    for cell in cells:
        builder.store(splat(f32, LANES, 0.0), cell)

    def add(d, lanes, sums):
        element = load_widened(builder, kind, vector, lanes, d)
        for start, cell in zip(row_starts, sums, strict=True):
            query = load(builder, queries, f32, lanes, builder.add(d, start))
            builder.store(multiply_add(builder, element, query, builder.load(cell)), cell)

    pairs = builder.and_(dims, i64(-2 * LANES))
    whole = builder.and_(dims, i64(-LANES))
    with cgutils.for_range_slice(builder, i64(0), pairs, i64(2 * LANES)) as (d, _):
        add(d, LANES, cells[:rows])
        add(builder.add(d, i64(LANES)), LANES, cells[rows:])
    with builder.if_then(builder.icmp_signed("<", pairs, whole)):
        add(pairs, LANES, cells[:rows])
    for row, total in enumerate(totals):
        both = builder.fadd(builder.load(cells[row]), builder.load(cells[rows + row]))
        builder.store(sum_lanes(builder, both), total)
    with cgutils.for_range_slice(builder, whole, dims, i64(1)) as (d, _):
        add(d, 1, totals)
    for row, total in enumerate(totals):
        store_product(row, builder.load(total))


def emit_prefetch(builder, address):
    """Prefetch the cache line at `address`."""
    function_type = ir.FunctionType(ir.VoidType(), [i8.as_pointer(), i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, (builder.inttoptr(address, i8.as_pointer()), i32(0), i32(3), i32(1)))
