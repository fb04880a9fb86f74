"""Shares of document pages by hand-made reads, and what a KV page holds."""

from __future__ import annotations

import numpy as np
import pytest

from app.chat.answers.reads.provenance import PageReadTotals, PageShare, page_text
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan, PromptSpan
from app.errors import UserFacingError
from quest_core.decode.read_trace import StepReads

PAGE_SIZE = 4


@pytest.fixture
def plan(text_document) -> PromptPlan:
    """Two tokens of instructions, six of document page 1, ten of page 2, two of conversation: five KV pages."""
    document = text_document("a" * 6, "b" * 10)

    def span(start, end, index):
        characters = np.stack([np.arange(end - start), np.arange(1, end - start + 1)], axis=1).astype(np.int32)
        return PromptSpan(start, end, "document", document, index, str(index + 1), characters)

    spans = (PromptSpan(0, 2, "instructions"), span(2, 8, 0), span(8, 18, 1), PromptSpan(18, 20, "conversation"))
    return PromptPlan(list(range(20)), spans, TokenCount(16), 16, "whole")


def reads(*layers: list[int], always=(0, 4), dense_layers=1) -> StepReads:
    """A step over five pages or more; the given layers follow a dense one."""
    page_reads = np.array([[2] * len(layers[0]), *layers], dtype=np.uint8)
    return StepReads(page_reads, kv_heads=2, always_read_pages=always, dense_layers=dense_layers, kv_bytes=0)


def test_shares_are_of_the_reads_beyond_what_every_step_reads(plan):
    totals = PageReadTotals()
    # Page 1 is all document page 1; page 2 and 3 all document page 2. Pages 0 and 4 and the dense layer do not count.
    totals.add(reads([2, 1, 0, 2, 2], [2, 2, 1, 0, 2]))
    document_id = plan.spans[1].document.document_id
    assert totals.shares(plan, PAGE_SIZE) == (
        PageShare("harbour.txt", "1", pytest.approx(3 / 6), document_id, 0),
        PageShare("harbour.txt", "2", pytest.approx(3 / 6), document_id, 1),
    )


def test_a_kv_page_across_document_pages_is_split_by_tokens(plan):
    totals = PageReadTotals()
    # Without always-read pages: page 0 is half instructions, page 4 is half document page 2, half conversation.
    totals.add(reads([2, 0, 0, 0, 1], always=()))
    shares = {share.page_label: share.share for share in totals.shares(plan, PAGE_SIZE)}
    assert shares == {"1": pytest.approx(2 / 3 * 0.5), "2": pytest.approx(1 / 3 * 0.5)}


def test_reads_add_up_over_steps_of_growing_context(plan):
    totals = PageReadTotals()
    totals.add(reads([2, 2, 0, 0, 2]))
    # Page 5 is the answer's own: read now, so it lowers the others' shares.
    totals.add(reads([2, 0, 1, 0, 0, 1, 2], always=(0, 6)))
    shares = totals.shares(plan, PAGE_SIZE)
    assert [(share.page_label, share.share) for share in shares] == [
        ("1", pytest.approx(2 / 4)),
        ("2", pytest.approx(1 / 4)),
    ]
    assert sum(share.share for share in shares) <= 1


def test_pages_never_read_are_left_out(plan):
    totals = PageReadTotals()
    assert totals.shares(plan, PAGE_SIZE) == ()
    totals.add(reads([2, 0, 0, 1, 2]))
    assert [share.page_label for share in totals.shares(plan, PAGE_SIZE)] == ["2"]


def test_page_text_names_document_pages_and_characters(plan):
    def decode(token_ids):
        return ",".join(map(str, token_ids))

    held = page_text(plan, [100, 101], 1, PAGE_SIZE, decode)
    assert (held["first_token"], held["last_token"], held["text"], held["role"]) == (4, 7, "4,5,6,7", "document")
    (part,) = held["parts"]
    assert (held["text_before"], held["text_after"]) == ("0,1,2,3", ",".join(map(str, [*range(8, 20), 100, 101])))
    assert (part["page_label"], part["page_index"], part["start_char"], part["end_char"]) == ("1", 0, 2, 6)
    assert page_text(plan, [], 0, PAGE_SIZE, decode)["parts"][0]["end_char"] == 2
    last = page_text(plan, [100, 101], 5, PAGE_SIZE, decode)
    assert (last["text"], last["role"], last["parts"], last["last_token"]) == ("100,101", "conversation", [], 21)
    both = page_text(plan, [100, 101], 4, PAGE_SIZE, decode)
    assert both["text"] == "16,17,18,19" and both["parts"][0]["page_label"] == "2"


@pytest.mark.parametrize("page", [-1, 5, 1000])
def test_a_page_that_is_not_there_is_refused(plan, page):
    with pytest.raises(UserFacingError, match="no KV page"):
        page_text(plan, [], page, PAGE_SIZE, str)
