"""Products of several queries with the pages of a split, a tile of queries and tokens at a time; see `emitted`.

Where a page is multiplied with many queries, loading its vectors anew for each, adding up lanes one product after the
other, and carrying sums through memory from page to page take longer than the multiplications. Here a tile's sums stay
in registers. Each product and sum is added up in the order of `page_loops`, so that it has the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu_tools.emitted import (
    HAS_512_BIT_REGISTERS,
    KINDS,
    LANES,
    LINE_BYTES,
    broadcast,
    emit_prefetch,
    f32,
    i32,
    i64,
    load,
    load_widened,
    multiply_add,
    splat,
    store,
)

# The two chains of sums of `emitted.emit_dots` side by side.
TILE_LANES = 2 * LANES

# Of a tile, so that the sums of six queries, 24 vectors or 6, leave room for what is multiplied. Page sizes are
# multiples of them.
TILE_TOKENS, TILE_BLOCKS = (4, 4) if HAS_512_BIT_REGISTERS else (1, 1)


class PageRun(NamedTuple):
    """Full pages of a kv head's keys or values.

    Args:
        vectors: address of the head in physical page 0; that in the next page lies `page_bytes` further on.
        pages: address of int32, the physical pages.
        count: of them.
        page_tokens: in a page, one after the other.
        ahead: how many pages before it is used a page is prefetched.
        lines: cache lines of a page that are prefetched; 0 if they are in the cache already.
    """

    vectors: int
    page_bytes: int
    pages: int
    count: int
    page_tokens: int
    ahead: int
    lines: int


def _for_each_page(builder, run, visit):
    """Call `visit(address of the page's vectors, index of its first token in the run)` in a loop over a `PageRun`."""
    run = PageRun(*cgutils.unpack_tuple(builder, run))

    def address(index):
        page = builder.sext(load(builder, run.pages, i32, 1, index), i64)
        return builder.add(run.vectors, builder.mul(page, run.page_bytes))

    with cgutils.for_range_slice(builder, i64(0), run.count, i64(1)) as (index, _):
        ahead = builder.add(index, run.ahead)
        with builder.if_then(builder.icmp_signed("<", ahead, run.count)):
            with cgutils.for_range_slice(builder, i64(0), run.lines, i64(1)) as (line, _):
                emit_prefetch(builder, builder.add(address(ahead), builder.mul(line, i64(LINE_BYTES))))
        visit(address(index), builder.mul(index, run.page_tokens), run.page_tokens)


def _add_up_lanes(builder, vectors):
    """The sums of the lanes of several vectors of equal length, as one vector, each as `emitted` adds up lanes."""
    lanes = vectors[0].type.count

    def halves(a, b, parts):
        """The first halves of the parts of `a` and `b`, and the second ones; each vector is of so many parts."""
        size = a.type.count // parts
        starts = [part * size for part in range(parts if b is None else 2 * parts)]
        other = ir.Constant(a.type, ir.Undefined) if b is None else b
        for offset in (0, size // 2):
            order = [start + offset + lane for start in starts for lane in range(size // 2)]
            yield builder.shuffle_vector(a, other, ir.Constant(ir.VectorType(i32, len(order)), order))

    parts = 1
    while len(vectors) > 1:
        vectors = [builder.fadd(*halves(a, b, parts)) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        parts, lanes = 2 * parts, lanes // 2
    while lanes > 1:
        vectors, lanes = [builder.fadd(*halves(vectors[0], None, parts))], lanes // 2
    return vectors[0]


def _emit_tile_dots(builder, kind, queries, run, inputs, dims, stride, products):
    cells = [
        [cgutils.alloca_once(builder, ir.VectorType(f32, TILE_LANES)) for _ in range(TILE_TOKENS)]
        for _ in range(queries)
    ]

    def store_sums(first_query, of_queries, first_token):
        sums = _add_up_lanes(builder, [builder.load(cell) for of_query in of_queries for cell in of_query])
        for index in range(len(of_queries)):
            order = list(range(index * TILE_TOKENS, (index + 1) * TILE_TOKENS))
            mask = ir.Constant(ir.VectorType(i32, TILE_TOKENS), order)
            of_query = builder.shuffle_vector(sums, ir.Constant(sums.type, ir.Undefined), mask)
            row = builder.mul(stride, i64(first_query + index))
            store(builder, of_query, products, builder.add(row, first_token))

    def visit(vectors, first_token, page_tokens):
        with cgutils.for_range_slice(builder, i64(0), page_tokens, i64(TILE_TOKENS)) as (token, _):
            for of_query in cells:
                for cell in of_query:
                    builder.store(splat(f32, TILE_LANES, 0.0), cell)
            with cgutils.for_range_slice(builder, i64(0), dims, i64(TILE_LANES)) as (d, _):
                elements = []
                for index in range(TILE_TOKENS):
                    offset = builder.add(builder.mul(builder.add(token, i64(index)), dims), d)
                    elements.append(load_widened(builder, kind, vectors, TILE_LANES, offset))
                for row, of_query in enumerate(cells):
                    offset = builder.add(builder.mul(dims, i64(row)), d)
                    query = load(builder, inputs, f32, TILE_LANES, offset)
                    for element, cell in zip(elements, of_query, strict=True):
                        builder.store(multiply_add(builder, element, query, builder.load(cell)), cell)
            # Lanes are added up of a power of two of queries at a time.
            done = 0
            while done < queries:
                at_once = min(TILE_LANES // TILE_TOKENS, 1 << (queries - done).bit_length() - 1)
                store_sums(done, cells[done : done + at_once], builder.add(first_token, token))
                done += at_once

    _for_each_page(builder, run, visit)


def make_tile_dots(queries: int):
    """As `page_dots` over a `PageRun`, with so many queries; `dims` is a multiple of TILE_LANES.

    The product of token t of the run with query r is written to `products + r * stride + t`.
    """

    @intrinsic
    def tile_dots(typingctx, dtype, run, inputs, dims, stride, products):
        kind = KINDS[dtype.dtype]

        def codegen(context, builder, signature, arguments):
            _emit_tile_dots(builder, kind, queries, *arguments[1:])
            return context.get_dummy_value()

        return types.void(dtype, run, *[types.int64] * 4), codegen

    return tile_dots


def _emit_tile_sums(builder, kind, queries, run, dims, weights, stride, sums):
    def add(d, blocks):
        offsets = [
            [
                builder.add(builder.mul(dims, i64(row)), builder.add(d, i64(block * TILE_LANES)))
                for block in range(blocks)
            ]
            for row in range(queries)
        ]
        cells = [[cgutils.alloca_once(builder, ir.VectorType(f32, TILE_LANES)) for _ in of_row] for of_row in offsets]
        for of_row, offsets_of_row in zip(cells, offsets, strict=True):
            for cell, offset in zip(of_row, offsets_of_row, strict=True):
                builder.store(load(builder, sums, f32, TILE_LANES, offset), cell)

        def visit(vectors, first_token, page_tokens):
            with cgutils.for_range_slice(builder, i64(0), page_tokens, i64(1)) as (token, _):
                first = builder.add(builder.mul(token, dims), d)
                values = [
                    load_widened(builder, kind, vectors, TILE_LANES, builder.add(first, i64(block * TILE_LANES)))
                    for block in range(blocks)
                ]
                for row, of_row in enumerate(cells):
                    weight_offset = builder.add(builder.mul(stride, i64(row)), builder.add(first_token, token))
                    factor = broadcast(builder, load(builder, weights, f32, 1, weight_offset), TILE_LANES)
                    for value, cell in zip(values, of_row, strict=True):
                        builder.store(multiply_add(builder, value, factor, builder.load(cell)), cell)

        _for_each_page(builder, run, visit)
        for of_row, offsets_of_row in zip(cells, offsets, strict=True):
            for cell, offset in zip(of_row, offsets_of_row, strict=True):
                store(builder, builder.load(cell), sums, offset)

    whole = builder.sub(dims, builder.urem(dims, i64(TILE_BLOCKS * TILE_LANES)))
    with cgutils.for_range_slice(builder, i64(0), whole, i64(TILE_BLOCKS * TILE_LANES)) as (d, _):
        add(d, TILE_BLOCKS)
    if TILE_BLOCKS > 1:
        with cgutils.for_range_slice(builder, whole, dims, i64(TILE_LANES)) as (d, _):
            add(d, 1)


def make_tile_sums(queries: int):
    """As `weighted_sums` over a `PageRun`, with so many rows; `dims` is a multiple of TILE_LANES."""

    @intrinsic
    def tile_sums(typingctx, dtype, run, dims, weights, stride, sums):
        kind = KINDS[dtype.dtype]

        def codegen(context, builder, signature, arguments):
            _emit_tile_sums(builder, kind, queries, *arguments[1:])
            return context.get_dummy_value()

        return types.void(dtype, run, *[types.int64] * 4), codegen

    return tile_sums
