"""Operators on KV pages against the specification: append, score, select, attend."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from kernels import reference
from kernels.attend.gpu import choose_blocks
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PageBudget, SelectedPages, SequenceView
from kernels.gpu_tools.checks import require_cache
from kernels.score.gpu import choose_stages
from tests.kernels.cases import cases, of_gpu_kernels, product

LENGTHS = [1, 15, 16, 17, 27, 1541]
GROUPS = [1, 3, 4, 7, 8]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CACHES = [(64, 16), (64, 4), (64, 8), (64, 32), (80, 16), (96, 16), (128, 16), (128, 32), (256, 16), (128, 64)]


def selection(case, budget_pages):
    scores = reference.naive_page_scores(case.query, case.cache, case.sequence, 1.0)
    return select(reference.naive_select_pages, scores, int(case.sequence.length_tokens), budget_pages)


def select(function, scores, tokens, pages, sink=1, recent=1, logits=False):
    """Of pages of 16."""
    length_tokens = torch.tensor([tokens], dtype=torch.int32, device=scores.device)
    return function(scores, length_tokens, 16, PageBudget(pages, sink, recent), logits)


def attend(function, case, *selected):
    return function(case.query, case.cache, case.sequence, *selected, 0.125)


def assert_same_pages(actual, expected, rtol=1e-3, atol=2e-5):
    """The same pages, and the same softmax mass of the others but for rounding."""
    assert actual.page_ids.tolist() == expected.page_ids.tolist()
    assert actual.page_counts.tolist() == expected.page_counts.tolist()
    assert (actual.missed_mass is None) == (expected.missed_mass is None)
    if expected.missed_mass is not None:
        torch.testing.assert_close(actual.missed_mass, expected.missed_mass, rtol=rtol, atol=atol)


@cases(
    "tokens group dtype",
    [(1, 1), (15, 3), (16, 4), (17, 8), (27, 7), (257, 2)],
    compiled=[(1541, 1), (1541, 4)],
    full=product(LENGTHS, GROUPS, DTYPES),
)
def test_dense_attention(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    expected = attend(reference.naive_dense_decode_attention, make_case(ops.device, dtype, tokens, group=group))
    assert_close(attend(ops.kernels.dense_decode_attention, case), expected)


@cases(
    "tokens rows group dtype",
    [(2, 2, 1), (8, 8, 3), (27, 4, 8), (131, 5, 4), (515, 8, 2), (1541, 3, 7)],
    full=product([(8, 8), (27, 4), (131, 5), (515, 8), (1541, 3)], [*GROUPS, 16], DTYPES),
)
def test_rows_attend_with_the_bits_that_they_get_alone(
    ops, make_case, assert_close, monkeypatch, tokens, rows, group, dtype
):
    """Where all rows are cut into splits alike, and where later ones have splits of a block more.

    512 tokens are eight blocks of 64, or four of 128, for four programs of each of two kv heads.
    """
    monkeypatch.setattr("kernels.attend.gpu.multiprocessors", lambda device: 8)
    case = make_case(ops.device, dtype, tokens + 3, group=group)
    query = torch.stack([case.query * (1 - row / 16) for row in range(rows)])
    sequence = case.first(tokens)
    together = ops.kernels.dense_decode_attention(query, case.cache, sequence, 0.125)
    for row in range(rows):
        up_to_row = case.first(tokens - rows + 1 + row)
        alone = ops.kernels.dense_decode_attention(query[row], case.cache, up_to_row, 0.125)
        assert torch.equal(together[row], alone)
        assert_close(alone, reference.naive_dense_decode_attention(query[row], case.cache, up_to_row, 0.125))
    one_row = ops.kernels.dense_decode_attention(query[-1:], case.cache, sequence, 0.125)
    assert torch.equal(one_row, together[-1:])
    expected = reference.naive_dense_decode_attention(query, case.cache, sequence, 0.125)
    assert_close(together, expected)


@of_gpu_kernels
@pytest.mark.parametrize("shared_bytes", [1 << 20, 1 << 16, 1 << 14])
def test_rows_have_the_same_bits_with_less_shared_memory(ops, make_case, monkeypatch, shared_bytes):
    """With a flat pipeline, or row by row; where blocks are smaller, they are so for a single row, too."""
    for module in ("kernels.attend.gpu", "kernels.attend.gpu_dense"):
        monkeypatch.setattr(f"{module}.shared_memory_bytes", lambda device: shared_bytes)
    case = make_case(ops.device, torch.float16, 203, group=8)
    query = torch.stack([case.query, case.query / 2, case.query / 3])
    together = ops.kernels.dense_decode_attention(query, case.cache, case.sequence, 0.125)
    for row in range(3):
        up_to_row = case.first(201 + row)
        assert torch.equal(
            together[row], ops.kernels.dense_decode_attention(query[row], case.cache, up_to_row, 0.125)
        )


@cases(
    "tokens group dtype",
    [(1, 8), (27, 3), (160, 1), (1541, 4)],
    full=product([1, 27, 160, 1541], GROUPS, DTYPES),
)
def test_sparse_attention_reads_the_selected_pages_only(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    selected = selection(case, 6)
    expected = attend(reference.naive_sparse_decode_attention, case, selected)
    for head in range(2):
        read = set(selected.page_ids[head, : int(selected.page_counts[head])].tolist())
        for logical in set(range(case.sequence.logical_pages)) - read:
            case.cache.key_pages[case.physical_pages[logical], head] = float("nan")
            case.cache.value_pages[case.physical_pages[logical], head] = float("nan")
    assert_close(attend(ops.kernels.sparse_decode_attention, case, selected), expected)


@pytest.mark.parametrize(("head_dim", "page_size"), CACHES)
def test_attention_and_scores_in_every_shape_of_cache(ops, make_case, assert_close, head_dim, page_size):
    dtype = ops.dtypes[0]
    case = make_case(ops.device, dtype, 203, group=3, head_dim=head_dim, page_size=page_size)
    assert_close(
        attend(ops.kernels.dense_decode_attention, case), attend(reference.naive_dense_decode_attention, case)
    )
    arguments = (case.query, case.cache, case.sequence, 1.0)
    assert_close(ops.kernels.page_scores(*arguments), reference.naive_page_scores(*arguments), 1e-5)


@cases(
    "summary group int8",
    [
        ("bounds", 3, False),
        ("bounds", 8, True),
        ("mean", 1, True),
        ("mean", 3, False),
        ("mean", 4, True),
        ("mean", 8, True),
    ],
    full=product([("bounds", 3), ("mean", 1), ("mean", 3), ("mean", 8)], [False, True]),
)
def test_scores_of_every_summary(ops, make_case, assert_close, summary, group, int8):
    for dtype in ops.dtypes:
        case = make_case(ops.device, dtype, 330, group=group, summary=summary, int8=int8)
        arguments = (case.query, case.cache, case.sequence, 0.125)
        scores = ops.kernels.page_scores(*arguments)
        assert scores.shape == (2, 1 if summary == "bounds" else group, 21)
        assert_close(scores, reference.naive_page_scores(*arguments), 1e-5)


def test_many_splits_are_combined_though_some_are_empty(ops, make_case, assert_close, monkeypatch):
    """25 splits of all pages, four at a time; 16 of a list of which one head has only three pages."""
    monkeypatch.setattr("kernels.attend.gpu.multiprocessors", lambda device: 40)
    case = make_case(ops.device, torch.float32, 1541, group=7, head_dim=256)
    assert_close(
        attend(ops.kernels.dense_decode_attention, case), attend(reference.naive_dense_decode_attention, case)
    )
    page_ids = torch.arange(97, dtype=torch.int32, device=ops.device).repeat(2, 1)
    page_counts = torch.tensor([3, 97], dtype=torch.int32, device=ops.device)
    selected = SelectedPages(page_ids, page_counts)
    expected = attend(reference.naive_sparse_decode_attention, case, selected)
    assert_close(attend(ops.kernels.sparse_decode_attention, case, selected), expected)


def test_uneven_counts_per_head(ops, make_case, assert_close):
    case = make_case(ops.device, torch.float32, 500, group=2)
    page_ids = torch.tensor([[0, 3, 31, -1, -1], [1, 2, 8, 30, 31]], dtype=torch.int32, device=ops.device)
    page_counts = torch.tensor([3, 5], dtype=torch.int32, device=ops.device)
    selected = SelectedPages(page_ids, page_counts)
    expected = attend(reference.naive_sparse_decode_attention, case, selected)
    assert_close(attend(ops.kernels.sparse_decode_attention, case, selected), expected)


def test_a_table_longer_than_the_context(ops, make_case, assert_close):
    """Captured graphs pass whole tables; the length on the device alone says how much is real."""
    case = make_case(ops.device, torch.float32, 100, group=2)
    expected = attend(reference.naive_dense_decode_attention, case)
    garbage = torch.full((9,), 1 << 20, dtype=torch.int32, device=ops.device)
    longer = case.sequence._replace(page_table=torch.cat([case.sequence.page_table, garbage]))
    case = case._replace(sequence=longer)
    assert_close(attend(ops.kernels.dense_decode_attention, case), expected)
    scores = ops.kernels.page_scores(case.query, case.cache, case.sequence, 1.0)
    assert scores.shape == (2, 1, 16)
    assert (scores[:, :, 7:] == float("-inf")).all()
    for logits in (False, True):
        selected = select(ops.kernels.select_pages, scores, 100, 12, logits=logits)
        assert selected.page_counts.tolist() == [7, 7]
        assert selected.page_ids.tolist() == [[*range(7), *[-1] * 5]] * 2
    assert selected.missed_mass.abs().max() < 1e-6


@cases(
    "tokens group dtype",
    [(1, 3), (15, 1), (16, 8), (17, 4), (27, 3)],
    compiled=[(1541, 7)],
    full=product(LENGTHS, GROUPS, DTYPES),
)
def test_scores_equal_the_reference_and_bound_the_logits(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    arguments = (case.query, case.cache, case.sequence, 1.0)
    scores = ops.kernels.page_scores(*arguments)
    assert_close(scores, reference.naive_page_scores(*arguments), 1e-5)
    query = case.query.float().view(2, group, -1)
    logits = torch.einsum("hgd,thd->hgt", query, case.keys.float()).mean(1)  # the group's mean logit of each key
    per_token = scores[:, 0].repeat_interleave(16, dim=1)[:, :tokens]
    assert (per_token - logits >= -1e-4 * logits.abs().max()).all()


@cases(
    "tokens budget levels",
    [(1, 3, 0), (16, 3, 1), (33, 3, 2), (100, 7, 5), (1541, 3, 1), (1541, 64, 2), (1541, 97, 0), (1541, 64, 0)],
    full=product([(1, 3), (16, 3), (33, 3), (100, 7), (1541, 3), (1541, 64), (1541, 97)], [0, 1, 2, 5]),
)
def test_selection_is_exactly_the_references(ops, tokens, budget, levels):
    """Also among many equal scores (`levels` different ones)."""
    generator = torch.Generator().manual_seed(tokens + levels)
    pages = -(-tokens // 16)
    scores = torch.randn((3, 1, pages + 4), generator=generator)
    if levels:
        scores = torch.randint(-levels // 2, levels, scores.shape, generator=generator).float()
    scores = scores.to(ops.device)
    scores[:, :, pages:] = float("-inf")
    for sink, recent in ((1, 1), (0, 0), (2, 0)):
        expected, selected = (
            select(function, scores, tokens, budget, sink, recent)
            for function in (reference.naive_select_pages, ops.kernels.select_pages)
        )
        assert_same_pages(selected, expected)
        assert selected.missed_mass is None


@cases(
    "tokens budget rows",
    [(1, 3, 1), (33, 3, 3), (1541, 3, 3), (1541, 64, 8), (1541, 97, 1)],
    compiled=[(50_000, 128, 3)],
    full=product([(1, 3), (33, 3), (1541, 3), (1541, 64), (1541, 97), (50_000, 128)], [1, 3, 8]),
)
def test_logits_are_selected_by_their_average_softmax_mass(ops, tokens, budget, rows):
    generator = torch.Generator().manual_seed(tokens + rows)
    pages = -(-tokens // 16)
    scores = (torch.randn((2, rows, pages + 4), generator=generator) * 4).to(ops.device)
    expected, selected = (
        select(function, scores, tokens, budget, logits=True)
        for function in (reference.naive_select_pages, ops.kernels.select_pages)
    )
    assert_same_pages(selected, expected, rtol=1e-4, atol=2e-6)


def test_scores_that_overflowed_select_pages_that_are_there(ops):
    scores = torch.full((3, 1, 700), float("nan"))
    scores[1] = float("-inf")
    scores[2, :, ::7] = 1.0
    selected = select(ops.kernels.select_pages, scores.to(ops.device), 700 * 16, 40)
    assert selected.page_counts.tolist() == [40, 40, 40]
    for pages in selected.page_ids.tolist():
        assert pages == sorted(set(pages)) and pages[0] == 0 and pages[-1] == 699


def test_zeros_of_either_sign_are_equal_scores(ops):
    scores = torch.tensor([[[5.0, -0.0, -1.0, -0.0, 0.0, -1.0, 5.0, 5.0]]], device=ops.device)
    for function in (ops.kernels.select_pages, reference.naive_select_pages):
        assert select(function, scores, 128, 4).page_ids.tolist() == [[0, 1, 6, 7]]


def test_a_budget_of_one_page_is_the_current_one(ops):
    scores = torch.randn((2, 1, 8), generator=torch.Generator().manual_seed(0)).to(ops.device)
    selected = select(ops.kernels.select_pages, scores, 120, 1, 0, 0)
    assert (selected.page_ids.tolist(), selected.page_counts.tolist()) == ([[7], [7]], [1, 1])


@cases(
    "pages logits",
    [(10_000, False), (10_000, True)],
    full=product([10_000, 40_000], [False, True]),
)
def test_selection_among_many_pages(ops, pages, logits):
    """More pages than a block of the GPU kernel keeps in registers: 640,000 tokens."""
    scores = torch.randn((2, 1, pages), generator=torch.Generator().manual_seed(0)).round(decimals=1).to(ops.device)
    selected, expected = (
        select(function, scores, 16 * pages - 10, 256, logits=logits)
        for function in (ops.kernels.select_pages, reference.naive_select_pages)
    )
    assert selected.page_ids.tolist() == expected.page_ids.tolist()


def test_a_budget_below_what_is_always_read_is_refused(ops):
    scores = torch.zeros((1, 2, 8), device=ops.device)
    with pytest.raises(ValueError, match="a budget of 2 pages"):
        select(ops.kernels.select_pages, scores, 128, 2, logits=True)
    with pytest.raises(ValueError, match="one row a kv head, got 2"):
        select(ops.kernels.select_pages, scores, 128, 4)


@cases(
    "start new summary dtype",
    [
        (0, 1, "mean"),
        (0, 16, "bounds"),
        (0, 17, "mean"),
        (15, 1, "bounds"),
        (16, 1, "mean"),
        (5, 3, "bounds"),
        (5, 40, "mean"),
    ],
    compiled=[(30, 1511, "bounds"), (30, 1511, "mean")],
    full=product([(0, 1), (0, 16), (0, 17), (15, 1), (16, 1), (5, 3), (5, 40), (30, 1511)], SUMMARIES, DTYPES),
)
def test_append_writes_pages_and_summaries(ops, make_case, summary, dtype, start, new):
    full = make_case(ops.device, dtype, start + new, summary=summary)
    case = make_case(ops.device, dtype, start + new, summary=summary)
    for tensor in case.cache.tensors:
        tensor.fill_(float("nan"))
    # One fused tensor, as the decoder's projection gives it: keys and values are views with strides.
    fused = torch.cat([torch.zeros_like(full.keys), full.keys, full.values], dim=1)
    keys, values = fused[:, 2:4], fused[:, 4:]
    for first, last in ((0, start), (start, start + new)):
        if last > first:
            ops.kernels.append_keys_values(keys[first:last], values[first:last], case.cache, case.first(last))
    for name in ("key_pages", "value_pages"):
        actual, expected = getattr(case.cache, name), getattr(full.cache, name)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    # Minima and maxima are exact; means may round in the last place.
    tolerance = 0.0 if summary == "bounds" else {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(
        case.cache.summaries, full.cache.summaries, rtol=tolerance, atol=tolerance, equal_nan=True
    )


@cases(
    "summary new dtype",
    [("mean", 1), ("mean", 40)],
    compiled=[("mean", 1541)],
    full=product(["mean"], [1, 40, 1541], DTYPES),
)
def test_int8_summaries_are_within_half_a_step(ops, make_case, summary, dtype, new):
    case, exact = append_int8(ops, make_case, summary, dtype, new)
    step = case.cache.summary_scales[case.physical_pages]
    assert ((case.kept_summaries() - exact).abs() <= 0.501 * step.unsqueeze(3)).all()
    # The longest number of a vector takes all the levels there are; a single key deviates by nothing.
    longest = case.cache.summaries[case.physical_pages].abs().amax(3)
    assert ((longest == 127) | (step == 0)).all()


@cases(
    "new scale dtype",
    [(1, 1.0), (40, 1e-3), (40, 30.0)],
    compiled=[(1541, 1.0)],
    full=product([1, 40, 1541], [1e-3, 1.0, 30.0], DTYPES),
)
def test_int8_bounds_are_rounded_outwards(ops, make_case, dtype, new, scale):
    case, exact = append_int8(ops, make_case, "bounds", dtype, new, scale)
    (low, high), (lowest, highest) = case.kept_summaries().unbind(2), exact.unbind(2)
    assert (low <= lowest).all() and (high >= highest).all()
    step = case.cache.summary_scales[case.physical_pages].unsqueeze(3)
    assert (lowest - low <= 1.001 * step[:, :, 0]).all() and (high - highest <= 1.001 * step[:, :, 1]).all()


def test_a_page_of_zeros_has_an_int8_summary_of_zeros(ops, make_case):
    for summary in SUMMARIES:
        case, _ = append_int8(ops, make_case, summary, torch.float32, 20, scale=0.0)
        assert case.kept_summaries().eq(0).all()


def append_int8(ops, make_case, summary, dtype, new, scale=1.0):
    """A case whose int8 summaries the implementation wrote, and its exact summaries in float32."""
    case = make_case(ops.device, dtype, new, summary=summary, int8=True)
    keys = case.keys * scale
    exact_layout = replace(case.cache.layout, summary_dtype=torch.float32)
    pages = case.cache.key_pages.clone(), case.cache.value_pages.clone()
    exact = LayerCache(exact_layout, *pages, torch.zeros(case.cache.summaries.shape, device=ops.device))
    reference.naive_append_keys_values(keys, case.values, exact, case.sequence)
    ops.kernels.append_keys_values(keys, case.values, case.cache, case.sequence)
    return case, case._replace(cache=exact).kept_summaries()


def test_appending_after_a_truncation_tightens_the_bounds(ops, make_case):
    case, full = (make_case(ops.device, torch.float32, 30) for _ in range(2))
    page = case.physical_pages[1]
    case.cache.key_pages[page] *= 100.0  # a longer sequence stood here
    case.cache.summaries[page] *= 100.0
    new = (full.keys[16:20].clone(), full.values[16:20].clone())
    ops.kernels.append_keys_values(*new, case.cache, case.first(20))
    bounds = case.cache.summaries[page]
    torch.testing.assert_close(bounds[:, 0], full.keys[16:20].amin(0))
    torch.testing.assert_close(bounds[:, 1], full.keys[16:20].amax(0))


def test_wrong_tensors_are_refused(ops, make_case):
    case = make_case(ops.device, torch.float32, 40)
    with pytest.raises(ValueError, match="query must"):
        ops.kernels.page_scores(case.query.double(), case.cache, case.sequence, 1.0)
    turned = case.cache._replace(key_pages=case.cache.key_pages.transpose(2, 3))
    with pytest.raises(ValueError, match="key_pages must"):
        ops.kernels.dense_decode_attention(case.query, turned, case.sequence, 1.0)


@pytest.mark.parametrize("summary", SUMMARIES)
def test_vectors_that_are_no_summary_are_refused(ops, summary):
    layout = CacheLayout(4, 1, 64, torch.float32, SUMMARIES[summary], torch.float32)
    pages, one = torch.zeros((2, 1, 4, 64), device=ops.device), torch.ones(1, dtype=torch.int32, device=ops.device)
    keys = torch.zeros((1, 1, 64), device=ops.device)
    cache = LayerCache(layout, pages, pages, torch.zeros((2, 1, 3, 64), device=ops.device))
    with pytest.raises(ValueError, match="summaries must"):
        ops.kernels.append_keys_values(keys, keys, cache, SequenceView(one, one))


def test_page_sizes_between_powers_of_two_are_refused_or_right(ops, make_case, assert_close):
    case = make_case(ops.device, torch.float32, 300, page_size=24)
    if ops.name == "cpu":  # its loops know no blocks
        expected = attend(reference.naive_dense_decode_attention, case)
        assert_close(attend(ops.kernels.dense_decode_attention, case), expected)
        return
    with pytest.raises(ValueError, match="page_size must be a power of two, got 24"):
        attend(ops.kernels.dense_decode_attention, case)


@pytest.mark.parametrize(
    ("shared_bytes", "dense", "score_stages"), [(232448, (128, 1, 5), 3), (101376, (128, 2, 2), 1)]
)
def test_pipelines_are_as_deep_as_the_shared_memory_allows(shared_bytes, dense, score_stages):
    """That of an H100, and of a GeForce: heads of 128 in 16 bits, and the widest blocks of summaries."""
    assert choose_blocks(False, 128, 2, False, shared_bytes) == dense
    assert choose_blocks(True, 128, 2, False, shared_bytes) == (128, 2, 2)
    assert choose_blocks(False, 128, 2, True, shared_bytes) == (128, 2, 2)
    for head_dim, element_bytes in ((256, 2), (128, 4)):
        assert choose_blocks(False, head_dim, element_bytes, False, shared_bytes) == (64, 2, 2)
    assert choose_stages(2 * 128 * 256 * 2, shared_bytes) == score_stages
    assert choose_stages(2 * 128 * 128, shared_bytes) == 3


def test_more_vectors_than_32_bits_can_number_are_refused():
    layout = CacheLayout(64, 32, 1, torch.float16, SUMMARIES["mean"], torch.float16)
    specs = layout.specs(2**20)
    cache = LayerCache(
        layout, **{name: torch.empty(shape, device="meta", dtype=dtype) for name, (shape, dtype) in specs.items()}
    )
    with pytest.raises(ValueError, match="no more than 2147483647 vectors"):
        require_cache(cache)


@cases(
    "tokens budget summary group int8",
    [
        (17, 3, "bounds", 3, True),
        (17, 3, "mean", 1, False),
        (1541, 40, "bounds", 3, False),
        (1541, 40, "mean", 8, True),
        (1541, 40, "mean", 4, False),
        (1541, 40, "mean", 3, True),
    ],
    compiled=[(5000, 64, "bounds", 3, True), (5000, 64, "mean", 4, True)],
    full=product(
        [(17, 3), (1541, 40), (5000, 64)],
        [("bounds", 3), ("mean", 1), ("mean", 3), ("mean", 4), ("mean", 8)],
        [False, True],
    ),
)
def test_pages_are_chosen_by_their_scores(ops, make_case, summary, group, int8, tokens, budget):
    case = make_case(ops.device, torch.float32, tokens, group=group, summary=summary, int8=int8)
    arguments = (case.query, case.cache, case.sequence, PageBudget(budget, 1, 1), 0.125)
    selected = ops.kernels.choose_pages(*arguments)
    assert_same_pages(selected, reference.naive_choose_pages(*arguments))
    assert (selected.missed_mass is None) == (summary == "bounds")


@cases(
    "tokens budget summary group few_pages",
    [
        (1, 3, "bounds", 3, 2048),
        (33, 3, "mean", 4, 2048),
        (33, 3, "bounds", 3, 8),
        (1541, 40, "bounds", 3, 2048),
        (1541, 40, "mean", 4, 8),
        (1541, 100, "mean", 4, 2048),
    ],
    full=product([(1, 3), (33, 3), (1541, 40), (1541, 100)], [("bounds", 3), ("mean", 4)], [2048, 8]),
)
def test_what_is_chosen_is_attended(
    ops, make_case, assert_close, monkeypatch, tokens, budget, summary, group, few_pages
):
    """Up to `few_pages` each kv head's are selected by a program of its own, beyond by one for all."""
    monkeypatch.setattr(import_module("kernels.attend.gpu_choose_and_attend"), "FEW_PAGES", few_pages)
    monkeypatch.setattr("kernels.attend.gpu.multiprocessors", lambda device: 40)
    case = make_case(ops.device, torch.float32, tokens, group=group, summary=summary, int8=True)
    arguments = (case.query, case.cache, case.sequence, PageBudget(budget, 1, 1), 0.125)
    attended, selected = ops.kernels.choose_and_attend(*arguments)
    expected, expected_pages = reference.naive_choose_and_attend(*arguments)
    assert_close(attended, expected)
    assert_same_pages(selected, expected_pages)


@of_gpu_kernels
def test_what_does_not_fit_the_pages_is_not_attended(ops, make_case):
    def attend(case):
        return ops.kernels.choose_and_attend(case.query, case.cache, case.sequence, PageBudget(3, 1, 1), 0.125)

    with pytest.raises(ValueError, match="groups of up to 16"):
        attend(make_case(ops.device, torch.float32, 100, group=17))
    case = make_case(ops.device, torch.float32, 100)
    with pytest.raises(ValueError, match="query must be one of"):
        attend(case._replace(query=case.query.half()))
    one_vector = case.cache._replace(summaries=case.cache.summaries[:, :, :1].contiguous())
    with pytest.raises(ValueError, match="summaries must have the shape"):
        attend(case._replace(cache=one_vector))
