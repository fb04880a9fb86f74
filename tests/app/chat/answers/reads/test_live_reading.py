"""What an answer is said to have looked at, by hand-made reads."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest

from app.chat.answers.reads.live_reading import LiveReading, attended_tokens, heat_levels
from app.chat.answers.reads.page_heat import SelectedTokens, UsualLevels, placed_pages
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan, PromptSpan
from quest_core.decode.read_trace import StepReads
from quest_core.session_events import DecodeStep

PAGE_SIZE = 4


@pytest.fixture
def plan(text_document) -> PromptPlan:
    """Four tokens of instructions, then eight, six and six of three document pages; the first comes again."""
    document = text_document("a" * 12, "b" * 6, "c" * 6)
    places = [(4, 12, 0), (12, 18, 1), (18, 24, 2), (24, 28, 0)]
    spans = [PromptSpan(start, end, "document", document, page, str(page + 1)) for start, end, page in places]
    return PromptPlan(list(range(30)), (PromptSpan(0, 4, "instructions"), *spans), TokenCount(24), 24, "whole")


def reads(*layers: list[int], dense_layers: int = 0, **values) -> StepReads:
    values = {"kv_heads": 2, "always_read_pages": (0, 7), "kv_bytes": 0} | values
    return StepReads(np.array(layers, dtype=np.uint8), dense_layers=dense_layers, **values)


def step(number: int, step_reads: StepReads | None, context_tokens: int = 31) -> DecodeStep:
    return DecodeStep(number, 7, 0.01, context_tokens, 50 if number else 0, 100, step_reads, None)


def test_tokens_are_counted_without_summaries_and_per_head():
    # Of eight pages one head reads four and the other two: three of four tokens each.
    assert attended_tokens(reads([2, 2, 1, 0, 0, 0, 0, 1]), 31, PAGE_SIZE) == 12
    # A dense layer reads all; no step reads more than there is.
    assert attended_tokens(reads([2] * 8, [2, 2, 1, 0, 0, 0, 0, 1], dense_layers=1), 31, PAGE_SIZE) == 22
    assert attended_tokens(reads([2] * 8), 31, PAGE_SIZE) == attended_tokens(None, 31, PAGE_SIZE) == 31


def test_pages_are_measured_by_their_usual_level(plan):
    pages = placed_pages(plan)
    assert [(page.page_index, len(page.token_ranges)) for page in pages] == [(0, 2), (1, 1), (2, 1)]
    selected = SelectedTokens(pages, PAGE_SIZE)
    # KV page 4 is half document page 2, half document page 3; pages 0 and 7 are always read.
    selected.add(reads([2, 1, 0, 0, 2, 0, 1, 2], [2, 0, 0, 2, 0, 0, 0, 2]))
    assert selected.shares() == pytest.approx(np.array([[0.5, 0.25, 0.25], [0, 1, 0]]), abs=1e-6)
    usual = UsualLevels(np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], dtype=np.float32))
    first, second, third = selected.factors(usual)
    assert second == pytest.approx(np.sqrt((1 + 16) / 2), rel=0.02)
    assert first == pytest.approx(third, rel=0.02) == pytest.approx(np.sqrt(1 / 2), rel=0.02)
    assert selected.factors(UsualLevels(usual.shares[:, :2])) == []


def test_heat_is_a_byte_a_page():
    levels = base64.b64decode(heat_levels([1.0, 2.0, 0.5, 0.0, 1e9, None]))
    assert list(levels) == [128, 152, 104, 1, 255, 0]
    # The page in the middle is as usual; two pages have none.
    assert list(base64.b64decode(heat_levels([0.25, 0.5, 1.0]))) == [104, 128, 152]
    assert list(base64.b64decode(heat_levels([0.5, 1.0]))) == [104, 128]


def test_figures_live_and_at_the_end(plan):
    live = LiveReading(plan, "quest", PAGE_SIZE)
    assert not live.of_prefill(27)["already_read"] and live.of_prefill(28)["already_read"]
    assert live.of_step(step(0, None))["attended_tokens"] is None
    live.take_usual(UsualLevels(np.full((1, 3), 1 / 3, dtype=np.float32)))
    told = [
        live.of_step(step(number, reads([2, 1, 0, 2, 0, 0, 0, 2], missed_mass=0.1 * number))) for number in (1, 2, 3)
    ]
    assert [one["heat"] is None for one in told] == [True, True, False]
    assert told[-1]["mean_missed_share"] == pytest.approx(0.2)
    end = live.at_end(None)
    assert (end["attended_tokens"], end["context_tokens"], end["heat_of"]) == (14, 31, "selection")
    assert (end["kv_bytes_read"], end["read_share"], end["heat"]) == (50, 0.5, told[-1]["heat"])


def test_a_step_that_read_everything_is_no_choice(plan):
    """As "auto" makes them until choosing is faster."""
    live = LiveReading(plan, "auto", PAGE_SIZE)
    live.take_usual(UsualLevels(np.full((1, 3), 1 / 3, dtype=np.float32)))
    assert (live.read_all, live.attended_tokens) == (False, None)
    for number in (1, 2, 3):
        told = live.of_step(step(number, reads([2] * 8, dense_layers=1), 28 + number))
        assert (told["attended_tokens"], told["heat"]) == (28 + number, None)
    # Not the mean of a context that grows: each step read all there was.
    assert (live.read_all, live.at_end(None)["attended_tokens"]) == (True, 31)
    live.of_step(step(4, reads([2, 1, 0, 2, 0, 0, 0, 2], missed_mass=0.1), 32))
    assert (live.read_all, live.attended_tokens) == (False, pytest.approx((29 + 30 + 31 + 14) / 4))


def test_dense_attention_looks_at_everything(plan):
    live = LiveReading(plan, "dense", PAGE_SIZE)
    told = live.of_step(step(1, None))
    assert (told["attended_tokens"], told["mean_missed_share"], told["heat"]) == (31, None, None)
    # Each token of "exact" was verified against everything.
    exact = LiveReading(plan, "exact", PAGE_SIZE)
    told = exact.of_step(replace(step(1, None), drafted=4, accepted=3))
    assert (told["attended_tokens"], told["drafted_tokens"], told["accepted_tokens"]) == (31, 4, 3)
    exact.of_step(replace(step(5, None), drafted=2, accepted=0))
    end = exact.at_end(None)
    assert (end["attended_tokens"], end["drafted_tokens"], end["accepted_tokens"]) == (31, 6, 3)
    # Without a trace nobody knows what Quest read.
    assert LiveReading(plan, "quest", PAGE_SIZE).of_step(step(1, None))["attended_tokens"] is None
