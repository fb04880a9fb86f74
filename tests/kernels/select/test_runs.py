"""Selection among many pages, by runs of them: also with a table longer than the sequence, and equal scores."""

from __future__ import annotations

import math
from importlib import import_module

import pytest
import torch

from kernels import reference
from kernels.contract import PageBudget
from kernels.select.gpu_runs import PART_PAGES, plan_runs
from tests.kernels.cases import GPU_KERNELS, cases, product

PAGE_SIZE = 4
SHAPES_OF_LOGITS = ["spread", "peaked", "equal", "two levels", "no numbers"]


@pytest.fixture(autouse=True)
def runs_from_few_pages(monkeypatch):
    """So that small cases are selected by runs, too."""
    for module in ("kernels.select.gpu", "kernels.attend.gpu_choose_and_attend"):
        monkeypatch.setattr(import_module(module), "FEW_PAGES", 8)


def draw_logits(kind, rows, pages, seed):
    logits = torch.randn((2, rows, pages), generator=torch.Generator().manual_seed(seed))
    # Of peaked ones most have a softmax mass that is 0 as a float.
    return {
        "spread": logits * 3,
        "peaked": logits * 200,
        "equal": logits * 0,
        "two levels": (logits > 0.5).float(),
        "no numbers": logits * float("nan"),
    }[kind]


def select(function, scores, tokens, budget, logits):
    length = torch.tensor([tokens], dtype=torch.int32, device=scores.device)
    return function(scores, length, PAGE_SIZE, PageBudget(*budget), logits)


@cases(
    "kind tokens table budget rows",
    # Sequences of a page, of less than the budget, of less than a table; budgets of nothing but what is always read.
    [
        ("spread", 1, 40, (3, 1, 1), 4),
        ("spread", 30, 300, (20, 1, 1), 1),
        ("spread", 1501, 420, (20, 2, 3), 4),
        ("spread", 1501, 376, (3, 1, 1), 3),
        ("spread", 2049, 513, (150, 0, 0), 4),
        ("peaked", 1501, 420, (40, 1, 1), 4),
        ("equal", 1501, 420, (40, 1, 1), 4),
        ("two levels", 1501, 420, (40, 0, 5), 1),
    ],
    full=product(
        SHAPES_OF_LOGITS[:4],
        [(1, 40), (30, 300), (1501, 420), (2049, 513), (40_000, 10_000), (60_001, 16_384)],
        [((3, 1, 1),), ((20, 2, 3),), ((150, 0, 0),), ((512, 1, 1),)],
        [1, 4],
    ),
    implementations=GPU_KERNELS,
)
def test_pages_are_those_of_the_reference(ops, kind, tokens, table, budget, rows):
    scores = draw_logits(kind, rows, table, seed=tokens).to(ops.device)
    selected, expected = (
        select(function, scores, tokens, budget, True)
        for function in (ops.kernels.select_pages, reference.naive_select_pages)
    )
    if kind == "peaked" and rows > 1:
        # Rounding decides among masses that are hardly numbers.
        differing = (selected.page_ids != expected.page_ids).sum()
        assert differing <= selected.page_ids.numel() // 20
    else:
        assert selected.page_ids.tolist() == expected.page_ids.tolist()
    assert selected.page_counts.tolist() == expected.page_counts.tolist()
    torch.testing.assert_close(selected.missed_mass, expected.missed_mass, rtol=1e-4, atol=2e-6)


@cases("kind", [["no numbers"]], full=[["no numbers"]], implementations=GPU_KERNELS)
def test_what_is_no_number_selects_pages_that_are_there(ops, kind):
    scores = draw_logits(kind, 4, 420, seed=0).to(ops.device)
    selected = select(ops.kernels.select_pages, scores, 1501, (40, 1, 1), True)
    assert selected.page_counts.tolist() == [40, 40]
    for pages in selected.page_ids.tolist():
        assert pages == sorted(set(pages)) and pages[0] == 0 and pages[-2:] == [374, 375]


@cases("overflowed", [[60]], full=[[3], [60], [376]], implementations=GPU_KERNELS)
def test_what_overflowed_does_not_displace_what_is_always_read(ops, overflowed):
    scores = torch.zeros((2, 1, 420))
    scores[:, :, :overflowed] = float("inf")
    selected = select(ops.kernels.select_pages, scores.to(ops.device), 1501, (40, 1, 1), False)
    ranked = [page for page in range(1, 374) if page < overflowed] + list(range(max(overflowed, 1), 374))
    expected = [0, *sorted(ranked[:37]), 374, 375]
    assert selected.page_ids.tolist() == [expected, expected]


@cases(
    "tokens budget most_keys",
    [(1501, 40, 4096), (1501, 40, 0)],
    full=product([1501, 40_000], [40, 256, 600], [4096, 0]),
    implementations=GPU_KERNELS,
)
def test_what_is_selected_by_runs_is_attended(ops, make_case, assert_close, monkeypatch, tokens, budget, most_keys):
    """By every program that attends, and, where keys are too many for these, by one for each kv head."""
    monkeypatch.setattr(import_module("kernels.attend.gpu_choose_and_attend"), "MOST_KEYS", most_keys)
    case = make_case(ops.device, torch.float32, tokens, group=4, page_size=PAGE_SIZE, summary="mean", int8=True)
    arguments = (case.query, case.cache, case.sequence, PageBudget(budget, 1, 1), 0.125)
    attended, selected = ops.kernels.choose_and_attend(*arguments)
    expected, expected_pages = reference.naive_choose_and_attend(*arguments)
    assert_close(attended, expected)
    assert selected.page_ids.tolist() == expected_pages.page_ids.tolist()
    assert ops.kernels.choose_pages(*arguments).page_ids.tolist() == expected_pages.page_ids.tolist()


@cases("budget", [[8192]], full=[[256], [8192]], implementations=GPU_KERNELS)
def test_a_million_tokens_that_are_all_alike(ops, budget):
    """With the largest budget there are 65,536 runs or candidates, one more than half a word counts."""
    pages = 1 << 18
    assert plan_runs(pages, 8192, PAGE_SIZE, True).most_keys == 65_536
    scores = torch.zeros((1, 1, pages), device=ops.device)
    # The first page has a fifth of the mass, so that what the others have lies within a bucket, not at its edge.
    scores[:, :, 0] = math.log(pages / 4)
    selected = select(ops.kernels.select_pages, scores, PAGE_SIZE * pages, (budget, 1, 1), True)
    assert selected.page_counts.tolist() == [budget]
    assert selected.page_ids.tolist() == [[*range(budget - 2), pages - 2, pages - 1]]


@pytest.mark.parametrize("logical_pages", [2049, 8192, 32_768, 131_072, 262_144])
@pytest.mark.parametrize("budget_pages", [3, 64, 200, 256, 512, 2048, 8192])
def test_runs_and_candidates_have_room(logical_pages, budget_pages):
    runs = plan_runs(logical_pages, budget_pages, PAGE_SIZE, True)
    assert runs.runs * runs.run_pages >= logical_pages and PART_PAGES % runs.run_pages == 0
    # As many runs as pages are wanted, or all.
    assert runs.listed_runs >= min(budget_pages, -(-logical_pages // runs.run_pages))
    assert runs.parts * PART_PAGES >= logical_pages
