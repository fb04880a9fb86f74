"""What a prefill needs beside dense attention, against the specification."""

from __future__ import annotations

import math

import pytest
import torch

from kernels import reference
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PartialAttention
from tests.kernels.cases import cases, of_gpu_kernels, product

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(ops, seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(ops.device)


def attend(queries, keys, values):
    """Plain attention of [tokens, heads, head_dim] over [context, heads, head_dim], and its log-sum-exp."""
    logits = torch.einsum("qhd,khd->hqk", queries, keys) / math.sqrt(queries.shape[2])
    return torch.einsum("hqk,khd->qhd", logits.softmax(2), values), logits.logsumexp(2)


@cases(
    "tokens head_dim page_size",
    [(1, 64, 16), (15, 80, 4), (16, 128, 32), (17, 64, 16), (27, 80, 4), (541, 64, 16)],
    full=product([1, 15, 16, 17, 27, 541], [(64, 16), (80, 4), (128, 32)]),
)
def test_gathered_tokens_are_those_that_were_cached(ops, make_case, tokens, head_dim, page_size):
    for dtype in ops.dtypes:
        case = make_case(ops.device, dtype, tokens, head_dim=head_dim, page_size=page_size)
        for gather in (ops.kernels.gather_pages, reference.naive_gather_pages):
            keys, values = gather(case.cache, case.sequence.page_table, tokens, dtype)
            assert torch.equal(keys, case.keys)
            assert torch.equal(values, case.values)
            assert keys.is_contiguous() and values.is_contiguous()


@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("wanted", DTYPES, ids=str)
@pytest.mark.parametrize(("tokens", "kv_heads", "head_dim"), [(17, 3, 80), (1541, 8, 20)])
def test_the_cpu_gathers_into_any_dtype(make_case, tokens, kv_heads, head_dim, stored, wanted):
    from kernels import cpu

    case = make_case(torch.device("cpu"), stored, tokens, kv_heads=kv_heads, head_dim=head_dim)
    arguments = (case.cache, case.sequence.page_table, tokens, wanted)
    for actual, expected in zip(cpu.gather_pages(*arguments), reference.naive_gather_pages(*arguments), strict=True):
        assert torch.equal(actual, expected)
        assert actual.is_contiguous()


@pytest.mark.parametrize("stored", [torch.float16, torch.float32], ids=str)
def test_the_cpu_rounds_every_number_as_torch_does(stored):
    from kernels import cpu

    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    values = bits.to(torch.int16).view(torch.float16)
    if stored == torch.float32:
        values = (bits << 16 | torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]).int()[:, None]).view(stored)
    pages = values.reshape(-1, 2, 16, 64)
    table = torch.arange(len(pages), dtype=torch.int32)
    layout = CacheLayout(16, 2, 64, stored, SUMMARIES["mean"], stored)
    cache = LayerCache(layout, pages, pages.flip(0), torch.zeros(len(pages), 2, 1, 64, dtype=stored))
    arguments = (cache, table, 16 * len(pages), torch.bfloat16)
    for actual, expected in zip(cpu.gather_pages(*arguments), reference.naive_gather_pages(*arguments), strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_the_cpu_gathers_no_more_than_the_pages_hold(make_case):
    from kernels import cpu

    case = make_case(torch.device("cpu"), torch.float16, 40)
    with pytest.raises(ValueError, match="49 tokens do not lie in 3 pages of 16"):
        cpu.gather_pages(case.cache, case.sequence.page_table, 49, torch.bfloat16)
    cache = case.cache._replace(value_pages=case.cache.value_pages[::2])
    with pytest.raises(ValueError, match="value_pages must be contiguous"):
        cpu.gather_pages(cache, case.sequence.page_table, 40, torch.bfloat16)


def test_tokens_are_gathered_from_the_middle_of_a_sequence(ops, make_case):
    case = make_case(ops.device, torch.float32, 300)
    keys, values = ops.kernels.gather_pages(case.cache, case.sequence.page_table[5:12], 101, torch.float32)
    assert torch.equal(keys, case.keys[80:181])
    assert torch.equal(values, case.values[80:181])


@of_gpu_kernels
def test_wrong_tensors_are_refused_by_the_gpu_launchers(ops, make_case):
    case = make_case(ops.device, torch.float32, 40)
    with pytest.raises(ValueError, match="49 tokens do not lie in 3 pages of 16"):
        ops.kernels.gather_pages(case.cache, case.sequence.page_table, 49, torch.float32)
    part = PartialAttention(draw(ops, 0, 5, 2, 64), draw(ops, 1, 2, 5))
    with pytest.raises(ValueError, match=r"other\.log_sums must have the shape"):
        ops.kernels.merge_attention(part, part._replace(log_sums=part.log_sums[:, :4]), torch.float32)
    with pytest.raises(ValueError, match="log_sums must be contiguous"):
        turned = part._replace(log_sums=part.log_sums.t().contiguous().t())
        ops.kernels.merge_attention(turned, part, torch.float32)
    with pytest.raises(ValueError, match="dtype must be one of"):
        ops.kernels.merge_attention(part, part, torch.int32)


@cases(
    "tokens heads head_dim dtype",
    [(1, 9, 64), (17, 3, 96), (130, 2, 128), (33, 1, 256)],
    full=product([(1, 9, 64), (17, 3, 96), (130, 2, 128), (33, 1, 256)], DTYPES),
)
def test_merged_parts_equal_attention_over_all(ops, assert_close, tokens, heads, head_dim, dtype):
    # Logits of some size, so that the parts' sums differ by much.
    queries, keys, values = draw(ops, 0, tokens, heads, head_dim) * 3, *draw(ops, 1, 2, 70, heads, head_dim)
    expected, expected_sums = attend(queries, keys, values)
    ranges = (slice(0, 9), slice(9, 41), slice(41, 70))
    parts = [PartialAttention(*attend(queries, keys[part], values[part])) for part in ranges]
    for merge in (ops.kernels.merge_attention, reference.naive_merge_attention):
        # In `dtype`, float32, `dtype`: as a prefill joins what 16-bit kernels return. A view, as cuDNN may return.
        first, second, third = (part._replace(attended=part.attended.to(dtype)) for part in parts)
        view = first.attended.transpose(0, 1).contiguous().transpose(0, 1)
        merged = merge(first._replace(attended=view), second, torch.float32)
        assert merged.attended.dtype == torch.float32
        merged = merge(merged, third, dtype)
        assert_close(merged.attended, expected)
        assert_close(merged.log_sums, expected_sums)


@pytest.mark.parametrize(("tokens", "heads", "head_dim"), [(17, 3, 96), (130, 2, 128)])
def test_merging_in_place_equals_merging_into_new_tensors(ops, tokens, heads, head_dim):
    part, other = (
        PartialAttention(draw(ops, seed, tokens, heads, head_dim), draw(ops, seed + 2, heads, tokens))
        for seed in range(2)
    )
    for merge in (ops.kernels.merge_attention, reference.naive_merge_attention):
        own = PartialAttention(*(tensor.clone() for tensor in part))
        expected = merge(own, other, torch.float32)
        merged = merge(own, other, torch.float32, out=own)
        for index in range(2):
            assert merged[index].data_ptr() == own[index].data_ptr()
            assert torch.equal(merged[index], expected[index])
