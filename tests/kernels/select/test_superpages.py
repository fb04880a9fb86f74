"""Two levels of summaries against the specification, and what the specification promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels import reference
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PageBudget, RopeTables, SequenceView
from kernels.reference import SUPERPAGE_PAGES
from tests.kernels.cases import GPU_KERNELS, cases, product
from tests.kernels.conftest import empty_cache

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PAGE_SIZE = 4


def with_superpages(case, append=reference.naive_append_keys_values, pieces=(None,)):
    """The case with summaries of two levels, which `append` writes together with all keys, in pieces."""
    layout = replace(case.cache.layout, summary_levels=2)
    case = case._replace(cache=empty_cache(layout, len(case.cache.key_pages), case.keys.device))
    first = 0
    for last in pieces:
        last = len(case.keys) if last is None else last
        append(case.keys[first:last], case.values[first:last], case.cache, case.first(last))
        first = last
    return case


@cases(
    "pieces summary int8 dtype",
    # Pieces that end within a superpage and at its end, in 8 bits; each summary and precision once.
    [
        ([65], "bounds", True, torch.float32),
        ([3, 62, 63, 64, 65, 66, 150], "mean", True, torch.float32),
        ([65], "mean", False, torch.float16),
        ([65], "bounds", False, torch.float16),
    ],
    full=product(
        [[1], [64], [65], [3, 62, 63, 64, 65, 66, 150], [130, 131]], SUMMARIES, [False, True], DTYPES
    ),
    implementations=GPU_KERNELS,
)
def test_append_summarises_superpages(ops, make_case, pieces, summary, int8, dtype):
    shape = {"page_size": PAGE_SIZE, "summary": summary, "int8": int8}
    expected, case = (
        with_superpages(make_case(ops.device, dtype, pieces[-1], **shape), append, pieces)
        for append in (reference.naive_append_keys_values, ops.kernels.append_keys_values)
    )
    # A step of 8 bits may be rounded to either side.
    tolerance = 3e-2 if int8 else {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(case.kept_summaries(), expected.kept_summaries(), rtol=tolerance, atol=tolerance)


@cases(
    "tokens summary int8",
    [(1, "mean", True), (5, "bounds", True), (64, "mean", False), (65, "bounds", False), (127, "mean", True)],
    full=product([1, 5, 64, 65, 127], SUMMARIES, [False, True]),
    implementations=GPU_KERNELS,
)
def test_a_step_summarises_its_superpage(ops, make_case, tokens, summary, int8):
    kv_heads, head_dim = 2, 64
    shape = {"page_size": PAGE_SIZE, "summary": summary, "int8": int8}
    projected = torch.randn((1, 4 * kv_heads * head_dim), generator=torch.Generator().manual_seed(tokens))
    angles = torch.randn((tokens, head_dim // 2), generator=torch.Generator().manual_seed(1)).to(ops.device)
    rope = RopeTables(angles.cos(), angles.sin())
    outcomes = []
    for append in (reference.naive_rotate_and_append, ops.kernels.rotate_and_append):
        case = with_superpages(make_case(ops.device, torch.float32, tokens, **shape))
        append(projected.to(ops.device), None, rope, case.cache, case.sequence)
        outcomes.append(case.kept_summaries())
    tolerance = 3e-2 if int8 else 1e-6
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=tolerance, atol=tolerance)


@cases("scale", [(1e-3,), (30.0,)], full=product([1e-3, 1.0, 30.0]), implementations=GPU_KERNELS)
def test_bounds_of_superpages_hold_for_all_their_keys(ops, make_case, scale):
    case = make_case(ops.device, torch.float32, 150, page_size=PAGE_SIZE, int8=True)
    case = case._replace(keys=case.keys * scale)
    case = with_superpages(case, ops.kernels.append_keys_values, (60, 61, 150))
    for page, vectors in enumerate(case.kept_summaries()):
        first = page // SUPERPAGE_PAGES * SUPERPAGE_PAGES * PAGE_SIZE
        keys = case.keys[first : (page + 1) * PAGE_SIZE]
        assert (vectors[:, 2] <= keys.amin(0)).all() and (vectors[:, 3] >= keys.amax(0)).all()


def long_case(ops, make_case, summary, tokens, table_pages=0, group=3, int8=True):
    """A case of more pages than are left to score; its table may be longer than the context."""
    shape = {"page_size": PAGE_SIZE, "summary": summary, "int8": int8, "group": group}
    case = with_superpages(make_case(ops.device, torch.float32, tokens, **shape))
    table = case.sequence.page_table
    longer = torch.zeros(max(table_pages - len(table), 0), dtype=torch.int32, device=ops.device)
    return case._replace(sequence=case.sequence._replace(page_table=torch.cat((table, longer))))


@cases(
    "tokens table_pages budget sink recent summary group int8",
    # What is always read in one superpage and in several; nothing, in a table longer than the context; each summary.
    [
        (16_389, 0, 64, 1, 1, "mean", 1, True),
        (16_389, 0, 40, 17, 16, "bounds", 3, True),
        (9001, 8192, 256, 0, 0, "mean", 4, False),
    ],
    full=product(
        [(16_389, 0, 64, 1, 1), (9001, 8192, 256, 0, 0), (20_000, 0, 40, 17, 16), (33_003, 16_384, 100, 1, 2)],
        [("bounds", 3), ("mean", 1), ("mean", 4)],
        [False, True],
    ),
    implementations=GPU_KERNELS,
)
def test_pages_of_the_best_superpages_are_attended(
    ops, make_case, assert_close, tokens, table_pages, budget, sink, recent, summary, group, int8
):
    case = long_case(ops, make_case, summary, tokens, table_pages, group, int8)
    arguments = (case.query, case.cache, case.sequence, PageBudget(budget, sink, recent), 0.125)
    expected, expected_pages = reference.naive_choose_and_attend(*arguments)
    attended, attended_pages = ops.kernels.choose_and_attend(*arguments)
    assert_close(attended, expected)
    for selected in (attended_pages, ops.kernels.choose_pages(*arguments)):
        assert selected.page_ids.tolist() == expected_pages.page_ids.tolist()
        assert selected.page_counts.tolist() == expected_pages.page_counts.tolist()
        assert (selected.missed_mass is None) == (expected_pages.missed_mass is None)
        if selected.missed_mass is not None:
            torch.testing.assert_close(selected.missed_mass, expected_pages.missed_mass, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_context_whose_pages_are_all_candidates_is_selected_from_as_a_whole(make_case, summary):
    """The table alone is long: what is chosen is what one level chooses, and the missed mass is the same."""

    class Cpu:
        device = torch.device("cpu")

    case = long_case(Cpu, make_case, summary, 8000, table_pages=5000)
    vectors = case.cache.layout.summary.vectors
    one_level = case.cache._replace(
        layout=replace(case.cache.layout, summary_levels=1),
        summaries=case.cache.summaries[:, :, :vectors],
        summary_scales=case.cache.summary_scales[:, :, :vectors],
    )
    coarse_to_fine, whole = (
        reference.naive_choose_pages(case.query, cache, case.sequence, PageBudget(256, 1, 1), 0.125)
        for cache in (case.cache, one_level)
    )
    assert coarse_to_fine.page_ids.tolist() == whole.page_ids.tolist()
    if coarse_to_fine.missed_mass is not None:
        torch.testing.assert_close(coarse_to_fine.missed_mass, whole.missed_mass)


def test_selection_is_coarse_to_fine_in_long_contexts_of_two_levels():
    assert not reference.is_coarse_to_fine(1, 1 << 15, 64)
    assert not reference.is_coarse_to_fine(2, 4096, 64)
    assert reference.is_coarse_to_fine(2, 4097, 64)
    assert [reference.candidate_pages(budget) for budget in (3, 64, 65, 100, 256)] == [512, 512, 1024, 1024, 2048]
    assert not reference.is_coarse_to_fine(2, 1 << 15, 257)
    assert reference.scored_summaries(2, 1 << 15, 64) == 2048 + 512
    assert reference.scored_summaries(1, 1 << 15, 64) == 1 << 15


@pytest.mark.parametrize(("summary", "vectors"), [("mean", 3), ("bounds", 3)])
def test_vectors_that_are_no_summary_are_refused(ops, summary, vectors):
    layout = CacheLayout(4, 1, 64, torch.float32, SUMMARIES[summary], torch.float32)
    pages, one = torch.zeros((2, 1, 4, 64), device=ops.device), torch.ones(1, dtype=torch.int32, device=ops.device)
    keys = torch.zeros((1, 1, 64), device=ops.device)
    cache = LayerCache(layout, pages, pages, torch.zeros((2, 1, vectors, 64), device=ops.device))
    with pytest.raises(ValueError, match="summaries must"):
        ops.kernels.append_keys_values(keys, keys, cache, SequenceView(one, one))
