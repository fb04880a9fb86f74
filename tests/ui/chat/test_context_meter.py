"""The context meter."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from ui.chat.context_meter import meter_markup

BOOK = SimpleNamespace(picture_pages=(), unreadable_pages=(), garbled_pages=())


def test_pages_without_text_are_counted():
    book = SimpleNamespace(picture_pages=("<b>",), unreadable_pages=("3",), garbled_pages=())
    meter = meter_markup(ContextUsage(TokenCount(6310), 40, 8192, "whole"), [book])
    assert "in context, except 1 page that is a picture and 1 page that is unreadable." in meter


def test_meter_tells_the_whole_document_from_passages():
    whole = meter_markup(ContextUsage(TokenCount(6310), 40, 8192, "whole"), [BOOK])
    assert "The whole document is in context" in whole
    assert "6,310" in whole and "1,842" in whole
    before = ContextUsage(TokenCount(90_000), 40, 8192, "passages", passage_tokens=7700)
    passages = meter_markup(before, [BOOK])
    assert "90,000 tokens" in passages and "Passages, up to <b>7,700</b>" in passages and "Free <b>452</b>" in passages
    read = replace(before, passage_tokens=381, passages_are_read=True, heading_tokens=20)
    passages = meter_markup(read, [BOOK])
    assert "Passages <b>381</b>" in passages and "Free <b>7,751</b>" in passages
    assert "the last answer had 381 of them in context" in passages
    estimated = replace(before, document_tokens=TokenCount(16_100_000, is_exact=False))
    assert "The text has about 16,100,000 tokens" in meter_markup(estimated, [BOOK])
    assert "7,700" not in meter_markup(before, [])


def test_meter_tells_of_a_stretched_window():
    usage = ContextUsage(TokenCount(0), 40, 8192, "whole")
    assert "read again &amp; again" in meter_markup(usage, [], "read again & again")
    assert meter_markup(usage, []).count("meter-note") == 1
