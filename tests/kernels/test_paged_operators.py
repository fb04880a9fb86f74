"""Operators on KV pages against the specification: append, score, select, attend."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from kernels import reference
from kernels.gpu.checks import require_pages
from kernels.gpu.decode_attention import choose_blocks
from kernels.gpu.page_scores import choose_stages

LENGTHS = [1, 15, 16, 17, 27, 1541]
GROUPS = [1, 3, 4, 7, 8]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
CACHES = [(64, 16), (64, 4), (64, 8), (64, 32), (80, 16), (96, 16), (128, 16), (128, 32), (256, 16), (128, 64)]


def interpret(when):
    """Of a test's cases the slow interpreter runs those for which `when(**parameters)` holds (see conftest.py)."""

    def mark(function):
        function.interpret_when = when
        return function

    return mark


def selection(case, budget_pages):
    scores = reference.naive_page_scores(*case.score_arguments(16))
    return reference.naive_select_pages(scores, case.context_tokens, 16, budget_pages, 1, 1, False)[:2]


def attend(function, case, page_ids=None, page_counts=None):
    chosen = () if page_ids is None else (page_ids, page_counts)
    return function(case.query, case.key_pages, case.value_pages, case.page_table, *chosen, case.context_tokens, 0.125)


@interpret(lambda tokens, group, dtype: (tokens in (1, 17) and group in (1, 3)) or (tokens, group) == (1541, 7))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_dense_attention(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    expected = attend(reference.naive_dense_decode_attention, make_case(ops.device, dtype, tokens, group=group))
    assert_close(attend(ops.kernels.dense_decode_attention, case), expected)


@interpret(lambda tokens, group, dtype: (tokens, group) in ((27, 3), (160, 1), (1541, 4)))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("tokens", [1, 27, 160, 1541])
def test_sparse_attention_reads_the_selected_pages_only(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    page_ids, page_counts = selection(case, 6)
    expected = attend(reference.naive_sparse_decode_attention, case, page_ids, page_counts)
    for head in range(2):
        selected = set(page_ids[head, : int(page_counts[head])].tolist())
        for logical in set(range(len(case.page_table))) - selected:
            case.key_pages[case.page_table[logical].long(), head] = float("nan")
            case.value_pages[case.page_table[logical].long(), head] = float("nan")
    assert_close(attend(ops.kernels.sparse_decode_attention, case, page_ids, page_counts), expected)


@pytest.mark.parametrize(("head_dim", "page_size"), CACHES)
def test_attention_and_scores_in_every_shape_of_cache(ops, make_case, assert_close, head_dim, page_size):
    dtype = ops.dtypes[0]
    case = make_case(ops.device, dtype, 203, group=3, head_dim=head_dim, page_size=page_size)
    assert_close(
        attend(ops.kernels.dense_decode_attention, case), attend(reference.naive_dense_decode_attention, case)
    )
    arguments = case.score_arguments(page_size)
    assert_close(ops.kernels.page_scores(*arguments), reference.naive_page_scores(*arguments), 1e-5)


@pytest.mark.parametrize("int8", [False, True], ids=["floating", "int8"])
@pytest.mark.parametrize(("summary", "group"), [("bounds", 3), ("mean", 1), ("mean", 3), ("spread", 3), ("spread", 8)])
def test_scores_of_every_summary(ops, make_case, assert_close, summary, group, int8):
    for dtype in ops.dtypes:
        case = make_case(ops.device, dtype, 330, group=group, summary=summary, int8=int8)
        arguments = case.score_arguments(16, summary, 0.125)
        scores = ops.kernels.page_scores(*arguments)
        assert scores.shape == (2, 1 if summary == "bounds" else group, 21)
        assert_close(scores, reference.naive_page_scores(*arguments), 1e-5)


def test_many_splits_are_combined_though_some_are_empty(ops, make_case, assert_close, monkeypatch):
    """25 splits of all pages, four at a time; 16 of a list of which one head has only three pages."""
    monkeypatch.setattr("kernels.gpu.decode_attention.multiprocessors", lambda device: 40)
    case = make_case(ops.device, torch.float32, 1541, group=7, head_dim=256)
    assert_close(
        attend(ops.kernels.dense_decode_attention, case), attend(reference.naive_dense_decode_attention, case)
    )
    page_ids = torch.arange(97, dtype=torch.int32, device=ops.device).repeat(2, 1)
    page_counts = torch.tensor([3, 97], dtype=torch.int32, device=ops.device)
    expected = attend(reference.naive_sparse_decode_attention, case, page_ids, page_counts)
    assert_close(attend(ops.kernels.sparse_decode_attention, case, page_ids, page_counts), expected)


def test_uneven_counts_per_head(ops, make_case, assert_close):
    case = make_case(ops.device, torch.float32, 500, group=2)
    page_ids = torch.tensor([[0, 3, 31, -1, -1], [1, 2, 8, 30, 31]], dtype=torch.int32, device=ops.device)
    page_counts = torch.tensor([3, 5], dtype=torch.int32, device=ops.device)
    expected = attend(reference.naive_sparse_decode_attention, case, page_ids, page_counts)
    assert_close(attend(ops.kernels.sparse_decode_attention, case, page_ids, page_counts), expected)


def test_a_table_longer_than_the_context(ops, make_case, assert_close):
    """Captured graphs pass whole tables; the length on the device alone says how much is real."""
    case = make_case(ops.device, torch.float32, 100, group=2)
    expected = attend(reference.naive_dense_decode_attention, case)
    garbage = torch.full((9,), 1 << 20, dtype=torch.int32, device=ops.device)
    case.page_table = torch.cat([case.page_table, garbage])
    assert_close(attend(ops.kernels.dense_decode_attention, case), expected)
    scores = ops.kernels.page_scores(*case.score_arguments(16))
    assert scores.shape == (2, 1, 16)
    assert (scores[:, :, 7:] == float("-inf")).all()
    for logits in (False, True):
        page_ids, page_counts, missed = ops.kernels.select_pages(scores, case.context_tokens, 16, 12, 1, 1, logits)
        assert page_counts.tolist() == [7, 7]
        assert page_ids.tolist() == [[*range(7), *[-1] * 5]] * 2
    assert missed.abs().max() < 1e-6


@interpret(lambda tokens, group, dtype: tokens in (1, 27) and group in (1, 3))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_scores_equal_the_reference_and_bound_the_logits(ops, make_case, assert_close, tokens, group, dtype):
    case = make_case(ops.device, dtype, tokens, group=group)
    arguments = case.score_arguments(16)
    scores = ops.kernels.page_scores(*arguments)
    assert_close(scores, reference.naive_page_scores(*arguments), 1e-5)
    query = case.query.float().view(2, group, -1)
    logits = torch.einsum("hgd,thd->hgt", query, case.keys.float()).mean(1)  # the group's mean logit of each key
    per_token = scores[:, 0].repeat_interleave(16, dim=1)[:, :tokens]
    assert (per_token - logits >= -1e-4 * logits.abs().max()).all()


@pytest.mark.parametrize("levels", [0, 1, 2, 5])
@pytest.mark.parametrize(("tokens", "budget"), [(1, 3), (16, 3), (33, 3), (100, 7), (1541, 3), (1541, 64), (1541, 97)])
def test_selection_is_exactly_the_references(ops, tokens, budget, levels):
    """Also among many equal scores (`levels` different ones)."""
    generator = torch.Generator().manual_seed(tokens + levels)
    pages = -(-tokens // 16)
    scores = torch.randn((3, 1, pages + 4), generator=generator)
    if levels:
        scores = torch.randint(-levels // 2, levels, scores.shape, generator=generator).float()
    scores = scores.to(ops.device)
    scores[:, :, pages:] = float("-inf")
    context = torch.tensor([tokens], dtype=torch.int32, device=ops.device)
    for sink, recent in ((1, 1), (0, 0), (2, 0)):
        expected = reference.naive_select_pages(scores, context, 16, budget, sink, recent, False)
        page_ids, page_counts, missed = ops.kernels.select_pages(scores, context, 16, budget, sink, recent, False)
        assert page_ids.tolist() == expected[0].tolist()
        assert page_counts.tolist() == expected[1].tolist()
        assert missed is None


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("tokens", "budget"), [(1, 3), (33, 3), (1541, 3), (1541, 64), (1541, 97), (50_000, 128)])
def test_logits_are_selected_by_the_mean_of_their_shares(ops, tokens, budget, rows):
    generator = torch.Generator().manual_seed(tokens + rows)
    pages = -(-tokens // 16)
    scores = (torch.randn((2, rows, pages + 4), generator=generator) * 4).to(ops.device)
    context = torch.tensor([tokens], dtype=torch.int32, device=ops.device)
    expected = reference.naive_select_pages(scores, context, 16, budget, 1, 1, True)
    page_ids, page_counts, missed = ops.kernels.select_pages(scores, context, 16, budget, 1, 1, True)
    assert page_ids.tolist() == expected[0].tolist()
    assert page_counts.tolist() == expected[1].tolist()
    torch.testing.assert_close(missed, expected[2], rtol=1e-4, atol=2e-6)


def test_scores_that_overflowed_select_pages_that_are_there(ops):
    scores = torch.full((3, 1, 700), float("nan"))
    scores[1] = float("-inf")
    scores[2, :, ::7] = 1.0
    context = torch.tensor([700 * 16], dtype=torch.int32, device=ops.device)
    page_ids, page_counts, _ = ops.kernels.select_pages(scores.to(ops.device), context, 16, 40, 1, 1, False)
    assert page_counts.tolist() == [40, 40, 40]
    for pages in page_ids.tolist():
        assert pages == sorted(set(pages)) and pages[0] == 0 and pages[-1] == 699


def test_zeros_of_either_sign_are_equal_scores(ops):
    scores = torch.tensor([[[5.0, -0.0, -1.0, -0.0, 0.0, -1.0, 5.0, 5.0]]], device=ops.device)
    context = torch.tensor([128], dtype=torch.int32, device=ops.device)
    for kernels in (ops.kernels.select_pages, reference.naive_select_pages):
        assert kernels(scores, context, 16, 4, 1, 1, False)[0].tolist() == [[0, 1, 6, 7]]


def test_a_budget_of_one_page_is_the_current_one(ops):
    scores = torch.randn((2, 1, 8), generator=torch.Generator().manual_seed(0)).to(ops.device)
    context = torch.tensor([120], dtype=torch.int32, device=ops.device)
    page_ids, page_counts, _ = ops.kernels.select_pages(scores, context, 16, 1, 0, 0, False)
    assert (page_ids.tolist(), page_counts.tolist()) == ([[7], [7]], [1, 1])


@pytest.mark.parametrize("logits", [False, True], ids=["scores", "logits"])
@pytest.mark.parametrize("pages", [10_000, 40_000])
def test_selection_among_many_pages(ops, pages, logits):
    """More pages than a block of the GPU kernel keeps in registers: 640,000 tokens."""
    scores = torch.randn((2, 1, pages), generator=torch.Generator().manual_seed(0)).round(decimals=1).to(ops.device)
    context = torch.tensor([16 * pages - 10], dtype=torch.int32, device=ops.device)
    page_ids, _, _ = ops.kernels.select_pages(scores, context, 16, 256, 1, 1, logits)
    assert page_ids.tolist() == reference.naive_select_pages(scores, context, 16, 256, 1, 1, logits)[0].tolist()


def test_a_budget_below_what_is_always_read_is_refused(ops):
    scores = torch.zeros((1, 2, 8), device=ops.device)
    context = torch.tensor([128], dtype=torch.int32, device=ops.device)
    with pytest.raises(ValueError, match="budget_pages 2"):
        ops.kernels.select_pages(scores, context, 16, 2, 1, 1, True)
    with pytest.raises(ValueError, match="one row a kv head, got 2"):
        ops.kernels.select_pages(scores, context, 16, 4, 1, 1, False)


@interpret(lambda start, new, dtype, summary: new < 100)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("start", "new"), [(0, 1), (0, 16), (0, 17), (15, 1), (16, 1), (5, 3), (5, 40), (30, 1511)])
@pytest.mark.parametrize("summary", reference.SUMMARY_VECTORS)
def test_append_writes_pages_and_summaries(ops, make_case, summary, dtype, start, new):
    full = make_case(ops.device, dtype, start + new, summary=summary)
    case = make_case(ops.device, dtype, start + new, summary=summary)
    for tensor in (case.key_pages, case.value_pages, case.page_summaries):
        tensor.fill_(float("nan"))
    # One fused tensor, as the decoder's projection gives it: keys and values are views with strides.
    fused = torch.cat([torch.zeros_like(full.keys), full.keys, full.values], dim=1)
    keys, values = fused[:, 2:4], fused[:, 4:]
    for first, last in ((0, start), (start, start + new)):
        if last > first:
            ops.kernels.append_keys_values(
                keys[first:last], values[first:last], case.key_pages, case.value_pages, case.page_summaries,
                case.page_table, torch.tensor([first], dtype=torch.int32, device=ops.device), summary,
            )  # fmt: skip
    for name in ("key_pages", "value_pages"):
        torch.testing.assert_close(getattr(case, name), getattr(full, name), rtol=0, atol=0, equal_nan=True)
    # Minima and maxima are exact; means may round in the last place.
    tolerance = 0.0 if summary == "bounds" else {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(
        case.page_summaries, full.page_summaries, rtol=tolerance, atol=tolerance, equal_nan=True
    )


@interpret(lambda summary, dtype, new: new < 100)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("new", [1, 40, 1541])
@pytest.mark.parametrize("summary", ["spread", "mean"])
def test_int8_summaries_are_within_half_a_step(ops, make_case, summary, dtype, new):
    case, exact = append_int8(ops, make_case, summary, dtype, new)
    table, scales = case.page_table.long(), case.summary_scales.unsqueeze(3)
    assert ((case.page_summaries * scales - exact).abs() <= 0.501 * scales)[table].all()
    # The longest number of a vector takes all the levels there are; a single key deviates by nothing.
    longest = case.page_summaries.abs().amax(3)
    assert ((longest == 127) | (case.summary_scales == 0))[table].all()


@interpret(lambda dtype, new, scale: new < 100)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("new", [1, 40, 1541])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_int8_bounds_are_rounded_outwards(ops, make_case, dtype, new, scale):
    case, exact = append_int8(ops, make_case, "bounds", dtype, new, scale)
    low, high = (case.page_summaries.float() * case.summary_scales.unsqueeze(3))[case.page_table.long()].unbind(2)
    lowest, highest = exact[case.page_table.long()].unbind(2)
    assert (low <= lowest).all() and (high >= highest).all()
    step = case.summary_scales[case.page_table.long()].unsqueeze(3)
    assert (lowest - low <= 1.001 * step[:, :, 0]).all() and (high - highest <= 1.001 * step[:, :, 1]).all()


def test_a_page_of_zeros_has_an_int8_summary_of_zeros(ops, make_case):
    for summary in reference.SUMMARY_VECTORS:
        case, _ = append_int8(ops, make_case, summary, torch.float32, 20, scale=0.0)
        assert (case.page_summaries.float() * case.summary_scales.unsqueeze(3))[case.page_table.long()].eq(0).all()


def append_int8(ops, make_case, summary, dtype, new, scale=1.0):
    """A case whose int8 summaries the implementation wrote, and the exact summaries in float32."""
    case = make_case(ops.device, dtype, new, summary=summary, int8=True)
    keys = case.keys * scale
    exact = torch.zeros(case.page_summaries.shape, device=ops.device)
    pages = case.key_pages.clone(), case.value_pages.clone()
    start = torch.tensor([0], dtype=torch.int32, device=ops.device)
    reference.naive_append_keys_values(keys, case.values, *pages, exact, case.page_table, start, summary)
    ops.kernels.append_keys_values(
        keys, case.values, case.key_pages, case.value_pages, case.page_summaries, case.page_table, start, summary,
        case.summary_scales,
    )  # fmt: skip
    return case, exact


def test_appending_after_a_truncation_tightens_the_bounds(ops, make_case):
    case, full = (make_case(ops.device, torch.float32, 30) for _ in range(2))
    case.key_pages[case.page_table[1].long()] *= 100.0  # a longer sequence stood here
    case.page_summaries[case.page_table[1].long()] *= 100.0
    ops.kernels.append_keys_values(
        full.keys[16:20].clone(), full.values[16:20].clone(), case.key_pages, case.value_pages, case.page_summaries,
        case.page_table, torch.tensor([16], dtype=torch.int32, device=ops.device), "bounds",
    )  # fmt: skip
    bounds = case.page_summaries[case.page_table[1].long()]
    torch.testing.assert_close(bounds[:, 0], full.keys[16:20].amin(0))
    torch.testing.assert_close(bounds[:, 1], full.keys[16:20].amax(0))


def test_wrong_tensors_are_refused(ops, make_case):
    case = make_case(ops.device, torch.float32, 40)
    with pytest.raises(ValueError, match="'median'"):
        ops.kernels.append_keys_values(
            case.keys, case.values, case.key_pages, case.value_pages, case.page_summaries, case.page_table,
            torch.tensor([0], dtype=torch.int32, device=ops.device), "median",
        )  # fmt: skip
    with pytest.raises(ValueError, match="query must"):
        ops.kernels.page_scores(case.query.double(), *case.score_arguments(16)[1:])
    with pytest.raises(ValueError, match="key_pages must"):
        ops.kernels.dense_decode_attention(
            case.query, case.key_pages.transpose(2, 3), case.value_pages, case.page_table, case.context_tokens, 1.0
        )


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


@pytest.mark.parametrize("ops", ["interpreter"], indirect=True)
def test_more_vectors_than_32_bits_can_number_are_refused(ops):
    pages = torch.empty((2**20, 32, 64, 1), device="meta", dtype=torch.float16)
    with pytest.raises(ValueError, match="no more than 2147483647 vectors"):
        require_pages(pages, pages, torch.zeros(1, dtype=torch.int32))


@pytest.mark.parametrize("int8", [False, True], ids=["floating", "int8"])
@pytest.mark.parametrize(("summary", "group"), [("bounds", 3), ("mean", 1), ("mean", 4), ("spread", 3), ("mean", 8)])
@pytest.mark.parametrize(("tokens", "budget"), [(17, 3), (1541, 40), (5000, 64)])
def test_pages_are_chosen_by_their_scores(ops, make_case, summary, group, int8, tokens, budget):
    case = make_case(ops.device, torch.float32, tokens, group=group, summary=summary, int8=int8)
    arguments = (*case.score_arguments(16, summary, 0.125), budget, 1, 1)
    page_ids, page_counts, missed = ops.kernels.choose_pages(*arguments)
    expected = reference.naive_choose_pages(*arguments)
    assert page_ids.tolist() == expected[0].tolist()
    assert page_counts.tolist() == expected[1].tolist()
    if summary == "bounds":
        assert missed is None
    else:
        torch.testing.assert_close(missed, expected[2], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("few_pages", [2048, 8], ids=["each for itself", "one for all"])
@pytest.mark.parametrize(("summary", "group"), [("bounds", 3), ("mean", 4)])
@pytest.mark.parametrize(("tokens", "budget"), [(1, 3), (33, 3), (1541, 40), (1541, 100)])
def test_what_is_chosen_is_attended(
    ops, make_case, assert_close, monkeypatch, few_pages, summary, group, tokens, budget
):
    monkeypatch.setattr(import_module("kernels.gpu.choose_and_attend"), "FEW_PAGES", few_pages)
    monkeypatch.setattr("kernels.gpu.decode_attention.multiprocessors", lambda device: 40)
    case = make_case(ops.device, torch.float32, tokens, group=group, summary=summary, int8=True)
    query, summaries, table, context, _, _, _, scales = case.score_arguments(16, summary, 0.125)
    arguments = (
        query, case.key_pages, case.value_pages, summaries, table, context, summary, 0.125, budget, 1, 1, scales
    )  # fmt: skip
    attended, page_ids, page_counts, missed = ops.kernels.choose_and_attend(*arguments)
    expected = reference.naive_choose_and_attend(*arguments)
    assert_close(attended, expected[0])
    assert page_ids.tolist() == expected[1].tolist()
    assert page_counts.tolist() == expected[2].tolist()
    assert (missed is None) == (expected[3] is None)
    if missed is not None:
        torch.testing.assert_close(missed, expected[3], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("ops", ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
def test_what_does_not_fit_the_pages_is_not_attended(ops, make_case):
    def attend(case, query, summaries):
        return ops.kernels.choose_and_attend(
            query, case.key_pages, case.value_pages, summaries, case.page_table, case.context_tokens,
            "bounds", 0.125, 3, 1, 1,
        )  # fmt: skip

    case = make_case(ops.device, torch.float32, 100, group=17)
    with pytest.raises(ValueError, match="groups of up to 16"):
        attend(case, case.query, case.page_summaries)
    case = make_case(ops.device, torch.float32, 100)
    with pytest.raises(ValueError, match="query must be one of"):
        attend(case, case.query.half(), case.page_summaries)
    with pytest.raises(ValueError, match="page_summaries must have the shape"):
        attend(case, case.query, case.page_summaries[:, :1].contiguous())
