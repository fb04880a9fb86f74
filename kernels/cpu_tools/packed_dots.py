"""Products of a row of quantised weights with inputs; `kernels.contract.PackedMatrix` says how a row is laid out."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cpu_tools.emitted import (
    HAS_512_BIT_REGISTERS,
    LANES,
    f32,
    i32,
    i64,
    load,
    load_widened,
    multiply_add,
    shuffle,
    splat,
    store,
    sum_lanes,
    vector_type,
)

# A packed row's runs, four words each, that are multiplied at once where groups have 32 channels: what one register
# holds. Of them a row has whole blocks of eight groups; what is left is multiplied STEP_RUNS at once.
STEP_RUNS = 2
BLOCK_STEP_RUNS = 4 if HAS_512_BIT_REGISTERS else STEP_RUNS


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
            row_starts = [builder.mul(stride, i64(row)) for row in range(rows)]
            cells = [cgutils.alloca_once(builder, vector_type(f32, LANES)) for _ in range(2 * rows)]
            totals, offsets = cells[:rows], cells[rows:]
            for cell in cells:
                builder.store(splat(f32, LANES, 0.0), cell)

            def multiply(run, lanes):
                """For each row of inputs, the products with the fields of `lanes` words, summed up over the fields."""
                row_words = load(builder, words, i32, lanes, builder.mul(run, i64(4)))
                first_input = builder.mul(run, i64(4 * fields))
                parts = [[None, None] for _ in range(rows)]  # two chains of sums: one need not wait for the other
                for field in range(fields):
                    if field == fields - 1:
                        value = builder.lshr(row_words, splat(i32, lanes, bits * field))
                    else:
                        value = builder.and_(row_words, splat(i32, lanes, ((1 << bits) - 1) << bits * field))
                    value = builder.sitofp(value, vector_type(f32, lanes))
                    # A single run stands beside a gap.
                    of_field = builder.add(first_input, i64(field * max(lanes, LANES)))
                    for start, chains in zip(row_starts, parts, strict=True):
                        operand = load(builder, inputs, f32, lanes, builder.add(of_field, start))
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
            with cgutils.for_range_slice(builder, i64(0), block_end, i64(LANES << usual_shift)) as (run, _):
                first_group = builder.lshr(run, i64(usual_shift))
                wide = load_widened(builder, scale_kind, scales, LANES, first_group)
                for first_step in range(0, LANES // step_groups, steps):
                    of_rows = multiply(builder.add(run, i64(first_step * STEP_RUNS)), steps * LANES)
                    for step in range(steps):
                        part = [step * LANES + lane for lane in range(LANES)]
                        of_step = of_rows if steps == 1 else [shuffle(builder, product, part) for product in of_rows]
                        group = (first_step + step) * step_groups
                        order = [group + lane * step_groups // LANES for lane in range(LANES)]
                        add(of_step, shuffle(builder, wide, order))
            pairs_end = builder.and_(runs, i64(-STEP_RUNS))
            with cgutils.for_range_slice(builder, block_end, pairs_end, i64(STEP_RUNS)) as (run, _):
                wide = ir.Constant(ir.VectorType(f32, 2), ir.Undefined)
                for lane in range(2):
                    group = builder.lshr(builder.add(run, i64(lane)), group_shift)
                    scale = load_widened(builder, scale_kind, scales, 1, group)
                    wide = builder.insert_element(wide, scale, i32(lane))
                add(multiply(run, LANES), shuffle(builder, wide, [0] * 4 + [1] * 4))
            groups_end = builder.and_(groups, i64(-LANES))

            def add_minimums(group, lanes, sums_of_rows):
                wide = load_widened(builder, scale_kind, minimums, lanes, group)
                of_group = builder.add(sums, group)
                for start, cell in zip(row_starts, sums_of_rows, strict=True):
                    row_sums = load(builder, inputs, f32, lanes, builder.add(of_group, start))
                    builder.store(multiply_add(builder, wide, row_sums, builder.load(cell)), cell)

            with cgutils.for_range_slice(builder, i64(0), groups_end, i64(LANES)) as (group, _):
                add_minimums(group, LANES, offsets)
            results = [cgutils.alloca_once(builder, f32) for _ in range(rows)]
            for result, total, offset in zip(results, totals, offsets, strict=True):
                both = builder.fadd(builder.load(total), builder.load(offset))
                builder.store(sum_lanes(builder, both), result)
            with cgutils.for_range_slice(builder, groups_end, groups, i64(1)) as (group, _):
                add_minimums(group, 1, results)
            with builder.if_then(builder.icmp_signed("<", pairs_end, runs)):
                scale = load_widened(builder, scale_kind, scales, 1, builder.lshr(pairs_end, group_shift))
                for result, product in zip(results, multiply(pairs_end, 4), strict=True):
                    rest = builder.fmul(sum_lanes(builder, product), scale)
                    builder.store(builder.fadd(builder.load(result), rest), result)
            for row, result in enumerate(results):
                store(builder, builder.load(result), products, builder.mul(product_stride, i64(row)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3, shape, *[types.int64] * 4), codegen

    return packed_dots
