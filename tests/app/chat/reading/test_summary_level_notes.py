"""What is told about a second level of summaries that does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.chat.reading.summary_level_notes import idle_levels_note, levels_scope_note
from app.settings import AppSettings
from kernels.reference import is_coarse_to_fine

LONG = 131072


def note(device_type: str = "cuda", budgets=(1024,), context_tokens: int = LONG, **changes) -> str:
    settings = AppSettings(data_dir=Path("data"), **{"summary_levels": 2, **changes})
    return idle_levels_note(settings, device_type, budgets, context_tokens)


def test_what_was_not_asked_for_is_not_told():
    assert note("cpu", summary_levels=1) == ""


def test_where_it_does_something_there_is_nothing_to_tell():
    assert note() == ""


def test_a_cpu_a_short_window_and_large_budgets_are_named():
    assert "does nothing on a CPU" in note("cpu")
    assert "up to 16,384 tokens" in note(context_tokens=16384)
    assert "token budget of 2,048, 4,096: with pages of 4 it takes part up to 1,024" in note(budgets=(1024, 2048, 4096))


@pytest.mark.parametrize("page_size", [4, 16, 64])
def test_it_says_what_the_kernels_do(page_size):
    for budget_pages in (256, 257):
        for pages in (4096, 4097):
            budgets, context = (budget_pages * page_size,), pages * page_size
            works = is_coarse_to_fine(2, pages, budget_pages)
            assert bool(note(budgets=budgets, context_tokens=context, page_size=page_size)) != works


def test_where_budgets_may_change_the_page_says_when_it_takes_part():
    settings = AppSettings(data_dir=Path("data"), summary_levels=2)
    assert "above 16,384 tokens and with budgets up to 1,024" in levels_scope_note(settings, "cuda", LONG)
    assert "does nothing on a CPU" in levels_scope_note(settings, "cpu", LONG)
    assert levels_scope_note(AppSettings(data_dir=Path("data")), "cuda", LONG) == ""
