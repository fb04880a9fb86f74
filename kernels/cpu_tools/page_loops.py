"""Loops over the vectors of KV pages: products with queries, weighted sums, scores by summaries.

Each function takes addresses, and lengths in elements; the dtype of an array gives the kind of its elements.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu_tools.emitted import (
    ELEMENT_BYTES,
    KINDS,
    LANES,
    broadcast,
    emit_dots,
    f32,
    i32,
    i64,
    load,
    load_widened,
    multiply_add,
    store,
    vector_type,
)


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
            with cgutils.for_range_slice(builder, i64(0), count, i64(1)) as (v, _):
                size = i64(ELEMENT_BYTES[kind])
                vector = builder.add(vectors, builder.mul(builder.mul(v, dims), size))

                def store_product(row, product):
                    store(builder, product, products, builder.add(v, builder.mul(stride, i64(row))))

                emit_dots(builder, kind, rows, vector, queries, dims, dims, store_product)
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
            totals = [cgutils.alloca_once(builder, f32) for _ in range(rows)]
            step = cgutils.alloca_once(builder, f32)
            has_scales = builder.icmp_signed("!=", summary_run.scales, i64(0))
            with cgutils.for_range_slice(builder, summary_run.first, summary_run.end, i64(1)) as (logical, _):
                page = builder.sext(load(builder, summary_run.table, i32, 1, logical), i64)
                page_summaries = builder.add(
                    summary_run.summaries, builder.mul(page, summary_run.summary_bytes)
                )
                for total in totals:
                    builder.store(f32(0.0), total)
                with cgutils.for_range_slice(builder, i64(0), vectors, i64(1)) as (v, _):
                    vector = builder.add(
                        page_summaries, builder.mul(builder.mul(v, dims), i64(ELEMENT_BYTES[kind]))
                    )
                    query = builder.add(
                        query_address, builder.mul(builder.mul(builder.mul(v, query_rows), dims), i64(4))
                    )
                    builder.store(f32(1.0), step)
                    with builder.if_then(has_scales):
                        page_scales = builder.add(summary_run.scales, builder.mul(page, summary_run.scale_bytes))
                        builder.store(load(builder, page_scales, f32, 1, v), step)

                    def add_product(row, product):
                        total = multiply_add(builder, product, builder.load(step), builder.load(totals[row]))
                        builder.store(total, totals[row])

                    emit_dots(builder, kind, rows, vector, query, dims, dims, add_product)
                for row, total in enumerate(totals):
                    store(builder, builder.load(total), scores, builder.add(logical, builder.mul(stride, i64(row))))
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
                    (block, row, builder.add(d, builder.add(i64(block * lanes), builder.mul(dims, i64(row)))))
                    for block in range(blocks)
                    for row in range(rows)
                ]
                cells = [cgutils.alloca_once(builder, vector_type(f32, lanes)) for _ in cells_at]
                for cell, (_, _, offset) in zip(cells, cells_at, strict=True):
                    builder.store(load(builder, sums, f32, lanes, offset), cell)
                with cgutils.for_range_slice(builder, i64(0), count, i64(1)) as (token, _):
                    first = builder.add(d, builder.mul(dims, token))
                    values = [
                        load_widened(builder, kind, vectors, lanes, builder.add(first, i64(block * lanes)))
                        for block in range(blocks)
                    ]
                    factors = [
                        broadcast(
                            builder,
                            load(builder, weights, f32, 1, builder.add(token, builder.mul(stride, i64(row)))),
                            lanes,
                        )
                        for row in range(rows)
                    ]
                    for cell, (block, row, _) in zip(cells, cells_at, strict=True):
                        total = multiply_add(builder, values[block], factors[row], builder.load(cell))
                        builder.store(total, cell)
                for cell, (_, _, offset) in zip(cells, cells_at, strict=True):
                    store(builder, builder.load(cell), sums, offset)

            pairs = builder.and_(dims, i64(-2 * LANES))
            with cgutils.for_range_slice(builder, i64(0), pairs, i64(2 * LANES)) as (d, _):
                add(d, LANES, 2)
            with cgutils.for_range_slice(builder, pairs, dims, i64(1)) as (d, _):
                add(d, 1, 1)
            return context.get_dummy_value()

        return types.void(dtype, *[types.int64] * 6), codegen

    return weighted_sums
