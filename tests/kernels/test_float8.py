"""Keys and values in 8 bits: codes and scales, and what writes and reads them, against the specification."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from kernels import reference
from kernels.gpu import float8
from kernels.reference import FLOAT8, KvScales, round_to_float8, widen

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
EPSILON = 1e-5
GPU_KERNELS = ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]


def draw(ops, dtype, *shape, spread=0.0):
    """Normal numbers, with vectors of very different lengths if `spread` is not 0."""
    generator = torch.Generator().manual_seed(sum(shape))
    vectors = torch.randn(shape, generator=generator)
    lengths = torch.randn((*shape[:-1], 1), generator=generator) * spread
    return (vectors * 2.0 ** lengths.clamp(-12, 12)).to(ops.device, dtype)


@dataclass
class Pages:
    """An empty 8-bit cache of one layer, in which everything nobody writes shows, and the arguments to fill it."""

    key_pages: torch.Tensor
    value_pages: torch.Tensor
    page_summaries: torch.Tensor
    summary_scales: torch.Tensor | None
    page_table: torch.Tensor
    kv_scales: KvScales

    def append(self, append, keys, values, start, summary):
        start_token = torch.tensor([start], dtype=torch.int32, device=keys.device)
        append(
            keys, values, self.key_pages, self.value_pages, self.page_summaries, self.page_table, start_token, summary,
            self.summary_scales, self.kv_scales,
        )  # fmt: skip

    def tokens(self, store, count):
        """What is kept of the first tokens, float32 [tokens, kv_heads, head_dim]."""
        pages = (self.key_pages, self.value_pages)[store]
        widened = widen(pages, self.kv_scales[store])[self.page_table.long()]
        return widened.transpose(1, 2).flatten(0, 1)[:count]


def make_pages(ops, tokens, kv_heads=2, head_dim=64, page_size=16, summary="bounds", summary_dtype=torch.int8):
    pages = -(-tokens // page_size)
    table = torch.randperm(pages + 3, generator=torch.Generator().manual_seed(tokens))[:pages]
    shape = (pages + 3, kv_heads, page_size, head_dim)
    stores = [torch.empty(shape, device=ops.device, dtype=FLOAT8) for _ in range(2)]
    scales = tuple(torch.empty(shape[:3], device=ops.device) for _ in range(2))
    vectors = (pages + 3, kv_heads, reference.SUMMARY_VECTORS[summary])
    summaries = torch.empty((*vectors, head_dim), device=ops.device, dtype=summary_dtype)
    summary_scales = torch.empty(vectors, device=ops.device) if summary_dtype == torch.int8 else None
    return Pages(*stores, summaries, summary_scales, table.int().to(ops.device), scales)


def fill(ops, tokens, group=1, dtype=torch.float32, **shape):
    """A filled cache, written by the specification, and a query."""
    pages = make_pages(ops, tokens, **shape)
    keys, values = draw(ops, dtype, 2, tokens, 2, pages.key_pages.shape[3], spread=1.0)
    pages.append(reference.naive_append_keys_values, keys, values, 0, shape.get("summary", "bounds"))
    return pages, draw(ops, dtype, 2 * group, pages.key_pages.shape[3])


@pytest.fixture(params=["bytes", "converted"])
def each_way(request, ops, monkeypatch):
    """GPUs that know the format, and those to which codes are bytes."""
    if request.param == "bytes":
        monkeypatch.setattr(float8, "_converts_float8", lambda device: False)
    elif ops.name != "cuda":
        pytest.skip("nothing but a GPU converts codes by itself")


def test_rounding_is_within_half_a_step_and_exact_in_16_bits():
    lengths = 2.0 ** torch.arange(-30, 20)[:, None, None]
    vectors = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * lengths
    codes, scales = round_to_float8(vectors)
    assert torch.frexp(scales)[0].eq(0.5).all()  # powers of two
    rounded = widen(codes, scales)
    # Half of the last of 3 bits below the leading one, or half of the smallest code.
    smallest = scales.unsqueeze(-1) * 2.0**-10
    assert ((rounded - vectors).abs() <= (vectors.abs() * 2.0**-4).maximum(smallest)).all()
    assert (codes.float().abs().amax(-1)[scales > reference.SMALLEST_SCALE] > 223).all()
    for dtype in (torch.bfloat16, torch.float16):
        fits = (vectors.abs() < 3e4).all(-1)
        assert torch.equal(widen(codes, scales, dtype).float()[fits], rounded[fits])


def test_zeros_and_the_largest_numbers_stay_what_they_are():
    vectors = torch.tensor([[0.0, -0.0, 0.0], [448.0, -1.0, 0.0], [449.0, -448.0, 2.0], [3e38, 1.0, -3e38]])
    codes, scales = round_to_float8(vectors)
    assert scales[:3].tolist() == [reference.SMALLEST_SCALE, 1.0, 2.0]
    assert widen(codes, scales)[:3].tolist() == [[0.0, 0.0, 0.0], [448.0, -1.0, 0.0], [448.0, -448.0, 2.0]]
    assert widen(codes, scales)[3, 0] == pytest.approx(3e38, rel=2**-4)


def few_new_tokens(dtype, new, **_):
    return new < 100 and dtype != torch.bfloat16


@pytest.mark.parametrize("ops", GPU_KERNELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("start", "new"), [(0, 1), (0, 17), (15, 1), (5, 3), (5, 40), (30, 1511)])
@pytest.mark.parametrize("head_dim", [64, 80, 128])
def test_append_rounds_as_the_specification(ops, each_way, head_dim, start, new, dtype):
    tokens = start + new
    keys, values = draw(ops, dtype, 2, tokens, 2, head_dim, spread=6.0)
    ours, theirs = (make_pages(ops, tokens, head_dim=head_dim, summary_dtype=dtype) for _ in range(2))
    for pages, append in ((ours, ops.kernels.append_keys_values), (theirs, reference.naive_append_keys_values)):
        for first, last in ((0, start), (start, tokens)):
            if last > first:
                pages.append(append, keys[first:last], values[first:last], first, "bounds")
    for name in ("key_pages", "value_pages"):
        assert torch.equal(getattr(ours, name).view(torch.uint8), getattr(theirs, name).view(torch.uint8))
    torch.testing.assert_close(ours.kv_scales, theirs.kv_scales, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(ours.page_summaries, theirs.page_summaries, rtol=0, atol=0, equal_nan=True)


test_append_rounds_as_the_specification.interpret_when = few_new_tokens


@pytest.mark.parametrize("ops", GPU_KERNELS, indirect=True)
@pytest.mark.parametrize("summary_dtype", [torch.int8, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("start", "new"), [(0, 20), (5, 30)])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_bounds_are_bounds_of_the_rounded_keys(ops, each_way, spread, start, new, summary_dtype):
    """And the scores made of them, of the logits that the cache will give."""
    dtype = torch.float16 if summary_dtype == torch.int8 else summary_dtype
    pages = make_pages(ops, start + new, summary_dtype=summary_dtype)
    keys, values = draw(ops, dtype, 2, start + new, 2, 64, spread=spread)
    for first, last in ((0, start), (start, start + new)):
        if last > first:
            pages.append(ops.kernels.append_keys_values, keys[first:last], values[first:last], first, "bounds")
    bounds = widen(pages.page_summaries, pages.summary_scales)[pages.page_table.long()]
    kept = pages.tokens(0, start + new)
    of_token = torch.arange(start + new, device=ops.device) // 16
    low, high = bounds[of_token].unbind(2)
    assert (low <= kept).all() and (kept <= high).all()
    query = draw(ops, torch.float32, 2, 64)
    scores = reference.naive_page_scores(
        query, pages.page_summaries, pages.page_table,
        torch.tensor([start + new], dtype=torch.int32, device=ops.device), 16, "bounds", 1.0, pages.summary_scales,
    )  # fmt: skip
    logits = torch.einsum("hd,thd->ht", query, kept)
    assert (scores[:, 0, of_token] >= logits - 1e-5 * logits.abs().max()).all()


def test_what_a_truncated_sequence_keeps_is_what_a_fresh_one_does(ops):
    if ops.name == "cpu":
        pytest.skip("8-bit pages are for the GPU")
    keys, values = draw(ops, torch.float16, 2, 40, 2, 64, spread=3.0)
    truncated, fresh = (make_pages(ops, 40, summary="mean") for _ in range(2))
    truncated.append(ops.kernels.append_keys_values, keys.flip(0) * 50.0, values.flip(0), 0, "mean")
    truncated.append(ops.kernels.append_keys_values, keys[:20], values[:20], 0, "mean")
    fresh.append(ops.kernels.append_keys_values, keys[:20], values[:20], 0, "mean")
    for store in (0, 1):
        assert torch.equal(truncated.tokens(store, 20), fresh.tokens(store, 20))
    touched = fresh.page_table[:2].long()
    assert torch.equal(truncated.page_summaries[touched], fresh.page_summaries[touched])
    assert torch.equal(truncated.summary_scales[touched], fresh.summary_scales[touched])


def few_shapes(tokens, group, dtype, **_):
    return dtype != torch.bfloat16 and (tokens, group) in ((1, 1), (27, 3), (1541, 4))


@pytest.mark.parametrize("ops", GPU_KERNELS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", [1, 3, 4, 8])
@pytest.mark.parametrize("tokens", [1, 15, 17, 27, 160, 1541])
@pytest.mark.parametrize(("head_dim", "page_size"), [(64, 4), (80, 16), (128, 16), (256, 32)])
def test_attention_reads_what_the_codes_stand_for(
    ops, each_way, assert_close, head_dim, page_size, tokens, group, dtype
):
    pages, query = fill(ops, tokens, group, dtype, head_dim=head_dim, page_size=page_size, summary="mean")
    context = torch.tensor([tokens], dtype=torch.int32, device=ops.device)
    stored = (query, pages.key_pages, pages.value_pages, pages.page_table)
    # Small logits: those of 20 are rounded in float32 by as much as `assert_close` allows, in the specification too.
    scale = 0.03
    expected = reference.naive_dense_decode_attention(*stored, context, scale, pages.kv_scales)
    assert_close(ops.kernels.dense_decode_attention(*stored, context, scale, pages.kv_scales), expected)
    table_pages = len(pages.page_table)
    chosen = torch.tensor([*range(0, table_pages, 3), *([table_pages - 1] if table_pages % 3 != 1 else [])])
    page_ids = chosen.int().to(ops.device).expand(2, -1).contiguous()
    page_counts = torch.tensor([len(chosen), max(1, len(chosen) - 1)], dtype=torch.int32, device=ops.device)
    arguments = (*stored, page_ids, page_counts, context, scale, pages.kv_scales)
    assert_close(ops.kernels.sparse_decode_attention(*arguments), reference.naive_sparse_decode_attention(*arguments))


test_attention_reads_what_the_codes_stand_for.interpret_when = few_shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_specification_is_attention_over_widened_pages(dtype):
    class Cpu:
        device = torch.device("cpu")

    pages, query = fill(Cpu, 50, 3, dtype)
    context = torch.tensor([50], dtype=torch.int32)
    ours = reference.naive_dense_decode_attention(
        query, pages.key_pages, pages.value_pages, pages.page_table, context, 0.3, pages.kv_scales
    )
    widened = (widen(pages.key_pages, pages.kv_scales[0]), widen(pages.value_pages, pages.kv_scales[1]))
    assert torch.equal(ours, reference.naive_dense_decode_attention(query, *widened, pages.page_table, context, 0.3))


def test_attention_loses_no_more_than_a_code_may_be_off():
    keys, values = torch.randn((2, 500, 2, 64), generator=torch.Generator().manual_seed(0))
    query = torch.randn((6, 64), generator=torch.Generator().manual_seed(1))
    attended = []
    for store in ((keys, values), (widen(*round_to_float8(keys)), widen(*round_to_float8(values)))):
        key_pages, value_pages = (vectors.transpose(0, 1)[None] for vectors in store)  # one page of 500 tokens
        lengths = torch.zeros(1, dtype=torch.int32), torch.tensor([500], dtype=torch.int32)
        attended.append(reference.naive_dense_decode_attention(query, key_pages, value_pages, *lengths, 0.125))
    error = (attended[1] - attended[0]).norm() / attended[0].norm()
    assert 0 < error <= 2**-4


@pytest.mark.parametrize("ops", GPU_KERNELS, indirect=True)
@pytest.mark.parametrize("summary", ["bounds", "mean"])
@pytest.mark.parametrize("summary_bits", [8, 16])
@pytest.mark.parametrize(
    ("tokens", "group", "head_dim", "page_size"), [(1, 1, 64, 4), (16, 3, 64, 16), (17, 8, 128, 16), (30, 4, 80, 8)]
)
def test_rotate_and_append(
    ops, each_way, assert_close, tokens, group, head_dim, page_size, summary_bits, summary
):
    dtype = ops.dtypes[0]
    summary_dtype = torch.int8 if summary_bits == 8 else dtype
    projected = draw(ops, dtype, 1, (2 * group + 4) * head_dim)
    norms = [draw(ops, dtype, head_dim) for _ in range(2)]
    angles = draw(ops, torch.float32, 40, head_dim // 2)
    older = draw(ops, dtype, 2, tokens, 2, head_dim)
    outcomes = []
    for append in (reference.naive_rotate_and_append, ops.kernels.rotate_and_append):
        shape = {"head_dim": head_dim, "page_size": page_size, "summary": summary, "summary_dtype": summary_dtype}
        pages = make_pages(ops, tokens, **shape)
        if tokens > 1:
            pages.append(reference.naive_append_keys_values, *older[:, :-1], 0, summary)
        queries = append(
            projected, *norms, EPSILON, angles.cos(), angles.sin(), pages.key_pages, pages.value_pages,
            pages.page_summaries, pages.page_table,
            torch.tensor([tokens - 1], dtype=torch.int32, device=ops.device), summary, pages.summary_scales,
            pages.kv_scales,
        )  # fmt: skip
        last_page = pages.page_table[-1].long()
        summaries = widen(pages.page_summaries, pages.summary_scales)[last_page]
        outcomes.append((queries, pages.tokens(0, tokens), pages.tokens(1, tokens), summaries))
    (queries, keys, values, summaries), (our_queries, our_keys, our_values, our_summaries) = outcomes
    assert our_queries.dtype == dtype
    assert_close(our_queries, queries)
    assert torch.equal(our_values, values)
    assert torch.equal(our_keys[:-1], keys[:-1])
    # A rotated key may come out on the other side of the middle between two codes, a step apart.
    assert ((our_keys - keys).abs() <= keys.abs().maximum(our_keys.abs()) / 8 + 1e-4).all()
    assert (our_keys != keys).float().mean() <= 0.02
    assert_close(our_summaries, summaries, 2e-2)


@pytest.mark.parametrize("ops", GPU_KERNELS, indirect=True)
@pytest.mark.parametrize(("head_dim", "page_size", "tokens"), [(64, 16, 27), (80, 4, 16), (128, 32, 541)])
def test_gathered_tokens_are_what_the_codes_stand_for(ops, each_way, head_dim, page_size, tokens):
    pages, _ = fill(ops, tokens, head_dim=head_dim, page_size=page_size, summary="mean")
    for dtype in ops.dtypes:
        for gather in (ops.kernels.gather_pages, reference.naive_gather_pages):
            gathered = gather(pages.key_pages, pages.value_pages, pages.page_table, tokens, dtype, pages.kv_scales)
            for store in (0, 1):
                assert gathered[store].dtype == dtype
                assert torch.equal(gathered[store], pages.tokens(store, tokens).to(dtype))


def test_8_bit_pages_without_scales_are_refused(ops):
    pages, query = fill(ops, 20)
    context = torch.tensor([20], dtype=torch.int32, device=ops.device)
    stored = (query, pages.key_pages, pages.value_pages, pages.page_table, context, 1.0)
    with pytest.raises(ValueError, match="key_pages must be"):
        ops.kernels.dense_decode_attention(*stored)
    with pytest.raises(ValueError, match="for the GPU" if ops.name == "cpu" else "key_scales must have the shape"):
        ops.kernels.dense_decode_attention(*stored, tuple(scales[:1] for scales in pages.kv_scales))
