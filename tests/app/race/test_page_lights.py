"""What a lane lights up is what a step read of each document page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan
from app.chat.prompt.prompt_part import PromptSpan
from app.library import Document, DocumentPage
from app.race.page_lights import PageLights
from quest_core.decode.read_trace import StepReads


def plan_of(*spans: tuple[int, int, int | None]) -> PromptPlan:
    """A prompt with spans as (start token, end token, index of the document page)."""
    document = Document("a" * 32, "a.txt", Path("a.txt"), tuple(DocumentPage(i, str(i + 1), "") for i in range(3)))
    made = tuple(
        PromptSpan(start, end, "instructions")
        if page is None
        else PromptSpan(
            start, end, "document", document, page, str(page + 1), np.zeros((end - start, 2), dtype=np.int32)
        )
        for start, end, page in spans
    )
    return PromptPlan(list(range(made[-1].end_token)), made, TokenCount(20), 20, "passages", (document,))


def reads_of(counts: list[list[int]], kv_heads: int) -> StepReads:
    return StepReads(np.array(counts, dtype=np.uint8), kv_heads, (), 0, 0)


def test_reads_are_shared_out_over_pages_by_their_tokens():
    # Page 1 has two passages and page 3 one; KV pages of 4 tokens lie across both and the instructions.
    lights = PageLights(plan_of((0, 2, None), (2, 6, 0), (6, 14, 2), (14, 16, 0), (16, 20, None)), 4)
    assert [(page.page_label, page.tokens) for page in lights.pages] == [("1", 6), ("3", 8)]
    # Two layers of two heads: KV page 0 by all, KV page 2 by one head of one layer.
    reads = reads_of([[2, 0, 1, 0, 0], [2, 0, 0, 0, 0]], kv_heads=2)
    # Page 1: tokens 2 and 3 of six, wholly. Page 3: tokens 8 to 11 of eight, a quarter.
    assert lights.percent_read(reads) == [33, 12]
    assert lights.percent_read(reads_of([[2] * 5] * 2, 2)) == [100, 100]
    assert lights.percent_read(reads_of([[0] * 5] * 2, 2)) == [0, 0]


def test_a_long_page_of_which_little_was_read_is_not_told_as_unread():
    lights = PageLights(plan_of((0, 4000, 0), (4000, 4004, 1)), 4)
    counts = [[1, *[0] * 1000]]
    assert lights.percent_read(reads_of(counts, 1)) == [1, 0]


def test_a_prompt_without_documents_has_no_pages():
    lights = PageLights(plan_of((0, 8, None)), 4)
    assert lights.pages == () and lights.percent_read(reads_of([[1, 1]], 1)) == []
