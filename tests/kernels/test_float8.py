"""Keys and values in 8 bits: codes and scales, and what writes and reads them, against the specification."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels import reference
from kernels.contract import SUMMARIES, CacheLayout, HeadNorms, LayerCache, RopeTables, SelectedPages, SequenceView
from kernels.float8 import FLOAT8, SMALLEST_SCALE, round_to_float8, widen
from kernels.gpu_tools import float8 as float8
from tests.kernels.cases import GPU_KERNELS, HAS_GPU, cases, of_gpu_kernels, product
from tests.kernels.conftest import PagedCase, empty_cache, permuted_table

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPSILON = 1e-5


def draw(ops, dtype, *shape, spread=0.0):
    """Normal numbers, with vectors of very different lengths if `spread` is not 0."""
    generator = torch.Generator().manual_seed(sum(shape))
    vectors = torch.randn(shape, generator=generator)
    lengths = torch.randn((*shape[:-1], 1), generator=generator) * spread
    return (vectors * 2.0 ** lengths.clamp(-12, 12)).to(ops.device, dtype)


def empty_case(
    ops, tokens, dtype=torch.float32, group=1, head_dim=64, page_size=16, summary="bounds", summary_dtype=torch.int8
):
    """Keys, values and a query, and 8-bit pages for them that nobody has written to; everything unwritten shows."""
    layout = CacheLayout(page_size, 2, head_dim, FLOAT8, SUMMARIES[summary], summary_dtype)
    pages = -(-tokens // page_size)
    table = permuted_table(pages, torch.Generator().manual_seed(tokens), ops.device)
    keys, values = draw(ops, dtype, 2, tokens, 2, head_dim, spread=1.0)
    query = draw(ops, dtype, 2 * group, head_dim)
    length = torch.tensor([tokens], dtype=torch.int32, device=ops.device)
    return PagedCase(keys, values, query, empty_cache(layout, pages + 3, ops.device), SequenceView(table, length))


def append(function, case, *ends):
    """Write its tokens in pieces that end there."""
    for first, last in zip((0, *ends), ends, strict=False):
        if last > first:
            function(case.keys[first:last], case.values[first:last], case.cache, case.first(last))


def filled_case(ops, tokens, *arguments, **shape):
    """One that the specification has filled."""
    case = empty_case(ops, tokens, *arguments, **shape)
    append(reference.naive_append_keys_values, case, tokens)
    return case


def kept(case, tokens):
    """What is kept of the first keys and values, float32 [2, tokens, kv_heads, head_dim]."""
    stores = (case.cache.keys_at(case.physical_pages), case.cache.values_at(case.physical_pages))
    return torch.stack([store.transpose(1, 2).flatten(0, 1)[:tokens] for store in stores])


@pytest.fixture(params=["bytes", "converted"] if HAS_GPU else ["bytes"])
def each_way(request, monkeypatch):
    """GPUs that know the format, which no interpreter does, and those to which codes are bytes."""
    if request.param == "bytes":
        monkeypatch.setattr(float8, "_converts_float8", lambda device: False)


def test_rounding_is_within_half_a_step_and_exact_in_16_bits():
    lengths = 2.0 ** torch.arange(-30, 20)[:, None, None]
    vectors = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * lengths
    codes, scales = round_to_float8(vectors)
    assert torch.frexp(scales)[0].eq(0.5).all()  # powers of two
    rounded = widen(codes, scales)
    # Half of the last of 3 bits below the leading one, or half of the smallest code.
    smallest = scales.unsqueeze(-1) * 2.0**-10
    assert ((rounded - vectors).abs() <= (vectors.abs() * 2.0**-4).maximum(smallest)).all()
    assert (codes.float().abs().amax(-1)[scales > SMALLEST_SCALE] > 223).all()
    for dtype in (torch.bfloat16, torch.float16):
        fits = (vectors.abs() < 3e4).all(-1)
        assert torch.equal(widen(codes, scales, dtype).float()[fits], rounded[fits])


def test_zeros_and_the_largest_numbers_stay_what_they_are():
    vectors = torch.tensor([[0.0, -0.0, 0.0], [448.0, -1.0, 0.0], [449.0, -448.0, 2.0], [3e38, 1.0, -3e38]])
    codes, scales = round_to_float8(vectors)
    assert scales[:3].tolist() == [SMALLEST_SCALE, 1.0, 2.0]
    assert widen(codes, scales)[:3].tolist() == [[0.0, 0.0, 0.0], [448.0, -1.0, 0.0], [448.0, -448.0, 2.0]]
    assert widen(codes, scales)[3, 0] == pytest.approx(3e38, rel=2**-4)


@cases(
    "start new head_dim dtype",
    [(0, 1, 64), (0, 17, 80), (15, 1, 128), (5, 3, 64), (5, 40, 80), (5, 40, 64)],
    full=product([(0, 1), (0, 17), (15, 1), (5, 3), (5, 40), (30, 1511)], [64, 80, 128], DTYPES),
    implementations=GPU_KERNELS,
)
def test_append_rounds_as_the_specification(ops, each_way, head_dim, start, new, dtype):
    tokens = start + new
    keys, values = draw(ops, dtype, 2, tokens, 2, head_dim, spread=6.0)
    ours, theirs = (
        empty_case(ops, tokens, head_dim=head_dim, summary_dtype=dtype)._replace(keys=keys, values=values)
        for _ in range(2)
    )
    append(ops.kernels.append_keys_values, ours, start, tokens)
    append(reference.naive_append_keys_values, theirs, start, tokens)
    for actual, expected in zip(ours.cache.tensors, theirs.cache.tensors, strict=True):
        if actual.dtype == FLOAT8:
            assert torch.equal(actual.view(torch.uint8), expected.view(torch.uint8))
        else:
            torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@cases(
    "start new spread summary_dtype",
    [
        (0, 20, 1.0, torch.int8),
        (5, 30, 8.0, torch.int8),
        (5, 30, 1.0, torch.float16),
        (0, 20, 8.0, torch.float16),
        (5, 30, 8.0, torch.bfloat16),
    ],
    full=product([(0, 20), (5, 30)], [1.0, 8.0], [torch.int8, torch.float16, torch.bfloat16]),
    implementations=GPU_KERNELS,
)
def test_bounds_are_bounds_of_the_rounded_keys(ops, each_way, spread, start, new, summary_dtype):
    """And the scores made of them, of the logits that the cache will give."""
    dtype, tokens = torch.float16 if summary_dtype == torch.int8 else summary_dtype, start + new
    keys, values = draw(ops, dtype, 2, tokens, 2, 64, spread=spread)
    case = empty_case(ops, tokens, summary_dtype=summary_dtype)._replace(keys=keys, values=values)
    append(ops.kernels.append_keys_values, case, start, tokens)
    kept_keys = kept(case, tokens)[0]
    of_token = torch.arange(tokens, device=ops.device) // 16
    low, high = case.kept_summaries()[of_token].unbind(2)
    assert (low <= kept_keys).all() and (kept_keys <= high).all()
    query = draw(ops, torch.float32, 2, 64)
    scores = reference.naive_page_scores(query, case.cache, case.sequence, 1.0)
    logits = torch.einsum("hd,thd->ht", query, kept_keys)
    assert (scores[:, 0, of_token] >= logits - 1e-5 * logits.abs().max()).all()


@of_gpu_kernels
def test_what_a_truncated_sequence_keeps_is_what_a_fresh_one_does(ops):
    keys, values = draw(ops, torch.float16, 2, 40, 2, 64, spread=3.0)
    truncated, fresh = (
        empty_case(ops, 40, summary="mean")._replace(keys=keys, values=values) for _ in range(2)
    )
    longer = truncated._replace(keys=keys.flip(0) * 50.0, values=values.flip(0))
    append(ops.kernels.append_keys_values, longer, 40)
    append(ops.kernels.append_keys_values, truncated, 20)
    append(ops.kernels.append_keys_values, fresh, 20)
    assert torch.equal(kept(truncated, 20), kept(fresh, 20))
    touched = fresh.physical_pages[:2]
    assert torch.equal(truncated.cache.summaries[touched], fresh.cache.summaries[touched])
    assert torch.equal(truncated.cache.summary_scales[touched], fresh.cache.summary_scales[touched])


@cases(
    "tokens group head_dim page_size dtype",
    [(1, 1, 64, 4), (15, 3, 80, 16), (17, 4, 128, 16), (27, 8, 64, 4), (160, 3, 256, 32), (1541, 4, 80, 16)],
    full=product(
        [1, 15, 17, 27, 160, 1541], [1, 3, 4, 8], [(64, 4), (80, 16), (128, 16), (256, 32)], DTYPES
    ),
    implementations=GPU_KERNELS,
)
def test_attention_reads_what_the_codes_stand_for(
    ops, each_way, assert_close, tokens, group, head_dim, page_size, dtype
):
    case = filled_case(ops, tokens, dtype, group, head_dim, page_size, summary="mean")
    stored = (case.query, case.cache, case.sequence)
    # Small logits: those of 20 are rounded in float32 by as much as `assert_close` allows, in the specification too.
    scale = 0.03
    expected = reference.naive_dense_decode_attention(*stored, scale)
    assert_close(ops.kernels.dense_decode_attention(*stored, scale), expected)
    table_pages = case.sequence.logical_pages
    chosen = torch.tensor([*range(0, table_pages, 3), *([table_pages - 1] if table_pages % 3 != 1 else [])])
    page_ids = chosen.int().to(ops.device).expand(2, -1).contiguous()
    page_counts = torch.tensor([len(chosen), max(1, len(chosen) - 1)], dtype=torch.int32, device=ops.device)
    arguments = (*stored, SelectedPages(page_ids, page_counts), scale)
    assert_close(ops.kernels.sparse_decode_attention(*arguments), reference.naive_sparse_decode_attention(*arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_specification_is_attention_over_widened_pages(dtype):
    class Cpu:
        device = torch.device("cpu")

    case = filled_case(Cpu, 50, dtype, 3)
    ours = reference.naive_dense_decode_attention(case.query, case.cache, case.sequence, 0.3)
    everywhere = slice(None)
    widened = case.cache._replace(
        layout=replace(case.cache.layout, dtype=torch.float32),
        key_pages=case.cache.keys_at(everywhere),
        value_pages=case.cache.values_at(everywhere),
        key_scales=None,
        value_scales=None,
    )
    assert torch.equal(ours, reference.naive_dense_decode_attention(case.query, widened, case.sequence, 0.3))


def test_attention_loses_no_more_than_a_code_may_be_off():
    keys, values = torch.randn((2, 500, 2, 64), generator=torch.Generator().manual_seed(0))
    query = torch.randn((6, 64), generator=torch.Generator().manual_seed(1))
    layout = CacheLayout(500, 2, 64, torch.float32, SUMMARIES["mean"], torch.float32)
    sequence = SequenceView(torch.zeros(1, dtype=torch.int32), torch.tensor([500], dtype=torch.int32))
    attended = []
    for store in ((keys, values), (widen(*round_to_float8(keys)), widen(*round_to_float8(values)))):
        pages = (vectors.transpose(0, 1)[None] for vectors in store)  # one page of 500 tokens
        cache = LayerCache(layout, *pages, torch.zeros(1, 2, 1, 64))
        attended.append(reference.naive_dense_decode_attention(query, cache, sequence, 0.125))
    error = (attended[1] - attended[0]).norm() / attended[0].norm()
    assert 0 < error <= 2**-4


@cases(
    "tokens group head_dim page_size summary_bits summary",
    [
        (1, 1, 64, 4, 8, "bounds"),
        (16, 3, 64, 16, 16, "mean"),
        (17, 8, 128, 16, 8, "mean"),
        (30, 4, 80, 8, 16, "bounds"),
    ],
    full=product([(1, 1, 64, 4), (16, 3, 64, 16), (17, 8, 128, 16), (30, 4, 80, 8)], [8, 16], ["bounds", "mean"]),
    implementations=GPU_KERNELS,
)
def test_rotate_and_append(
    ops, each_way, assert_close, tokens, group, head_dim, page_size, summary_bits, summary
):
    dtype = ops.dtypes[0]
    summary_dtype = torch.int8 if summary_bits == 8 else dtype
    projected = draw(ops, dtype, 1, (2 * group + 4) * head_dim)
    norms = HeadNorms(*(draw(ops, dtype, head_dim) for _ in range(2)), EPSILON)
    angles = draw(ops, torch.float32, 40, head_dim // 2)
    rope = RopeTables(angles.cos(), angles.sin())
    older_keys, older_values = draw(ops, dtype, 2, tokens, 2, head_dim)
    outcomes = []
    for rotate_and_append in (reference.naive_rotate_and_append, ops.kernels.rotate_and_append):
        shape = {"head_dim": head_dim, "page_size": page_size, "summary": summary, "summary_dtype": summary_dtype}
        case = empty_case(ops, tokens, **shape)._replace(keys=older_keys, values=older_values)
        append(reference.naive_append_keys_values, case, tokens - 1)
        queries = rotate_and_append(projected, norms, rope, case.cache, case.sequence)
        outcomes.append((queries, *kept(case, tokens), case.kept_summaries()[-1]))
    (queries, keys, values, summaries), (our_queries, our_keys, our_values, our_summaries) = outcomes
    assert our_queries.dtype == dtype
    assert_close(our_queries, queries)
    assert torch.equal(our_values, values)
    assert torch.equal(our_keys[:-1], keys[:-1])
    # A rotated key may come out on the other side of the middle between two codes, a step apart.
    assert ((our_keys - keys).abs() <= keys.abs().maximum(our_keys.abs()) / 8 + 1e-4).all()
    assert (our_keys != keys).float().mean() <= 0.02
    assert_close(our_summaries, summaries, 2e-2)


@of_gpu_kernels
@pytest.mark.parametrize(
    ("tokens", "rows", "page_size", "dtype"), [(17, 4, 16, torch.float16), (30, 8, 4, torch.float32)]
)
def test_rows_get_the_bits_that_they_get_alone(ops, each_way, tokens, rows, page_size, dtype):
    """Written together or one after the other, and attended."""
    projected, query = draw(ops, dtype, rows, 10 * 64), draw(ops, dtype, rows, 6, 64)
    norms = HeadNorms(*(draw(ops, dtype, 64) for _ in range(2)), EPSILON)
    angles = draw(ops, torch.float32, 40, 32)
    rope = RopeTables(angles.cos(), angles.sin())
    together, alone = (empty_case(ops, tokens, dtype, page_size=page_size, summary="mean") for _ in range(2))
    for case in (together, alone):
        append(reference.naive_append_keys_values, case, tokens - rows)
    queries = ops.kernels.rotate_and_append(projected, norms, rope, together.cache, together.sequence)
    attended = ops.kernels.dense_decode_attention(query, together.cache, together.sequence, 0.3)
    for row in range(rows):
        up_to_row = alone.first(tokens - rows + 1 + row)
        own = ops.kernels.rotate_and_append(projected[row : row + 1], norms, rope, alone.cache, up_to_row)
        assert torch.equal(queries[row], own[0])
        assert torch.equal(attended[row], ops.kernels.dense_decode_attention(query[row], alone.cache, up_to_row, 0.3))
    for ours, theirs in zip(together.cache.tensors, alone.cache.tensors, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=0, equal_nan=True)


@of_gpu_kernels
@pytest.mark.parametrize(("head_dim", "page_size", "tokens"), [(64, 16, 27), (80, 4, 16), (128, 32, 541)])
def test_gathered_tokens_are_what_the_codes_stand_for(ops, each_way, head_dim, page_size, tokens):
    case = filled_case(ops, tokens, head_dim=head_dim, page_size=page_size, summary="mean")
    for dtype in ops.dtypes:
        for gather in (ops.kernels.gather_pages, reference.naive_gather_pages):
            gathered = gather(case.cache, case.sequence.page_table, tokens, dtype)
            for actual, expected in zip(gathered, kept(case, tokens), strict=True):
                assert actual.dtype == dtype
                assert torch.equal(actual, expected.to(dtype))


def test_8_bit_pages_without_scales_are_refused(ops):
    case = filled_case(ops, 20)
    floating = replace(case.cache.layout, dtype=torch.float32)
    without = case.cache._replace(key_scales=None, value_scales=None)
    short = case.cache._replace(key_scales=case.cache.key_scales[:1], value_scales=case.cache.value_scales[:1])
    with pytest.raises(ValueError, match="key_pages must"):
        ops.kernels.dense_decode_attention(case.query, without._replace(layout=floating), case.sequence, 1.0)
    for cache in (without, short):
        with pytest.raises(ValueError, match="for the GPU" if ops.name == "cpu" else "key_scales must"):
            ops.kernels.dense_decode_attention(case.query, cache, case.sequence, 1.0)
