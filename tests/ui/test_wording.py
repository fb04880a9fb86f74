"""Numbers as sentences."""

from __future__ import annotations

import pytest

from ui.wording import counted, duration, prefill_line, queue_line, rate, seconds


def test_prefill_line_tells_how_far_and_how_long():
    assert prefill_line(4096, 6310, 3.2) == "Reading the document: 65 %, 3 s left"
    assert prefill_line(0, 6310, None) == "Reading the document: 0 %"
    assert prefill_line(6310, 6310, 0.0) == "Answering"
    # Only the question is new.
    assert prefill_line(6726, 6790, 0.1, reused_tokens=6726) == "Already read. Answering"


def test_queue_line_counts_the_questions_ahead():
    assert "one question" in queue_line(1)
    assert "3 questions" in queue_line(3)
    assert "question" not in queue_line(0)


@pytest.mark.parametrize(("span_s", "text"), [(0.1, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s")])
def test_duration(span_s, text):
    assert duration(span_s) == text


def test_measured_values_keep_the_digits_that_matter():
    assert (rate(18.64), rate(142.4)) == ("18.6 tokens/s", "142 tokens/s")
    assert (seconds(0.314), seconds(12.44)) == ("0.31 s", "12.4 s")


def test_counted():
    assert (counted(1, "page"), counted(1204, "page")) == ("1 page", "1,204 pages")
