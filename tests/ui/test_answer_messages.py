"""What stands in messages: questions, answers under way, and the lines below them."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest

from app.chat.answer import (
    DocumentReading,
    ModelLoading,
    PageReference,
    PassagesReport,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.conversation import Turn
from app.evidence.citation import Citation, EvidencePassage, UnsupportedSentence
from ui.answer_messages import (
    MESSAGES_PER_TURN,
    ending_content,
    event_content,
    paced,
    prefill_content,
    question_content,
    report_content,
    running_messages,
    turn_messages,
)


def test_what_a_question_waits_for_is_said():
    assert "Waiting for the model: Reading" in event_content(ModelLoading("Reading"))["value"]
    assert "2 questions" in event_content(Queued(2))["value"]
    assert "1 of 2 tokens" in event_content(PrefillEvent(0, 1, 2, 0.1, None))["value"]
    reading = event_content(DocumentReading("<The Happy Prince>", 0.4))["value"]
    assert "Reading &lt;The Happy Prince&gt;: 40 %" in reading and 'value="0.4" max="1"' in reading
    assert "<progress" not in event_content(DocumentReading("book.pdf", None))["value"]


def test_tokens_come_no_faster_than_the_page_draws(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("ui.answer_messages.time.sleep", pauses.append)
    token = TokenEvent("x", "x", 0, 0.001, 1000.0, 1000.0)
    assert list(paced(iter([Queued(1), token, token]))) == [Queued(1), token, token]
    assert len(pauses) == 2


def test_a_thought_is_shown_while_it_lasts_and_folded_up_afterwards(report):
    thinking = TokenEvent("", "", 900, 0.05, 20.0, 20.0, "old " * 500 + "<b>new", 901)
    content = event_content(thinking)
    assert "Thinking: 901 tokens" in content["value"] and "&lt;b&gt;new" in content["value"]
    assert len(content["value"]) < 1000
    answer = event_content(replace(thinking, answer="High"))
    assert answer == "High"
    assert "<details" not in report_content(report)["value"]
    value = report_content(replace(report, thinking="Is it <high>?", thinking_tokens=12))["value"]
    assert "<summary>Thought: 12 tokens</summary>Is it &lt;high&gt;?</details>" in value


def test_what_must_be_known_is_never_folded_away(report):
    pages = (PageReference("book.pdf", "3"),)
    nothing_found = PassagesReport(pages, 2, (), ("spinne",))
    worse = replace(report, finish_reason="length", left_out=("two.pdf",), warning="Not saved.", passages=nothing_found)
    value = report_content(worse)["value"]
    said = re.findall('<span slot="said">(.*?)</span>', value)
    for sentence in ("Cut at the longest answer", "two.pdf is still being read", "Not saved.", "None of the question"):
        assert any(sentence in one for one in said), sentence
    found = report_content(replace(report, passages=PassagesReport(pages, 2, ("prince",), ())))["value"]
    assert '<span slot="speed">18.6 tokens/s · read in passages</span>' in found
    assert re.findall('<span slot="said">', found) == []


def test_sources_come_with_the_row_and_marks_with_the_answer(report):
    place = ("<b>.pdf", "id", "5", 4, 0, 10, '"High" <b>', 0.8)
    citation = Citation(1, "High above.", 0, 11, *place)
    cited = replace(
        report, answer="High above. Gold.", citations=(citation,), unsupported=(UnsupportedSentence("Gold.", 12, 17),),
        passages_found=(EvidencePassage(*place),) * 5,
    )  # fmt: skip
    turn = Turn("Where?", "High above. Gold.", cited, (), "7")
    _, answer, row = turn_messages([turn])
    assert "①" in answer["content"]
    (attribute,) = re.findall(' sources="([^"]*)"', row["content"]["value"])
    sources = json.loads(html.unescape(attribute))
    assert sources["citations"][0]["text"] == '"High" <b>' and "<b>" not in row["content"]["value"]
    assert (sources["unsupported"], len(sources["passages_found"])) == (1, 3)
    # Another text than the report is about has other places.
    _, answer, _ = turn_messages([replace(turn, answer="Other.")])
    assert answer["content"] == "Other."
    (*_, passages) = running_messages("Where?", "High", cited.passages_found, is_speaking=False)
    assert " unfolded>" in passages["content"]["value"]
    assert len(running_messages("Where?", "High")) == 2


def test_prefill_content_shows_the_time_left():
    value = prefill_content(PrefillEvent(0, 4096, 6310, 5.0, 3.0))["value"]
    assert "4,096 of 6,310 tokens, 3 s left" in value
    assert 'value="4096" max="6310"' in value
    assert "outgrown" not in value


def test_prefill_content_says_why_a_conversation_is_read_again():
    value = prefill_content(PrefillEvent(0, 512, 9000, 5.0, 63.0, 2.0, True))["value"]
    assert "1 min 3 s left (the conversation has outgrown its window" in value


def test_the_line_below_an_answer(report):
    value = report_content(report)["value"]
    for part in ("18.6 tokens/s", "0.31 s", "6,310 of 6,400"):
        assert part in value
    # How often pages were read says too little of where the answer came from to be shown.
    assert report.pages_read and "31 %" not in value and "Read" not in value


def test_the_lines_below_an_answer_tell_of_passages(report):
    pages = (PageReference("book.pdf", "3"), PageReference("book.pdf", "iv"))
    read = replace(report, passages=PassagesReport(pages, 4, ("prince",), ("spider",)))
    value = report_content(read)["value"]
    assert "The text is longer than the window: 6,310 of 6,310 tokens were in context, " in value
    assert "in context, 4 passages from pages 3 and iv." in value
    assert "Of the question&#x27;s words, the document has prince, but not spider." in value
    two = (PageReference("a.pdf", "3"), PageReference("b.pdf", "1"))
    value = report_content(replace(report, passages=PassagesReport(two, 2, (), ("spinne",))))["value"]
    assert "from a.pdf (page 3), b.pdf (page 1)." in value
    assert "None of the question&#x27;s words occur in the documents, so their beginnings were read." in value
    value = report_content(replace(report, passages=PassagesReport(pages, 2, (), ())))["value"]
    assert "The question has no words to search the document for" in value


def test_an_answer_stopped_before_its_first_token_has_a_line_too(report):
    nothing = replace(report, time_to_first_token_s=None, decode_tokens_per_s=0.0, pages_read=())
    value = report_content(replace(nothing, finish_reason="cancelled"))["value"]
    assert '<span slot="said">Stopped.</span>' in value
    assert "None" not in value and "0.0" not in value


def test_the_line_below_an_answer_tells_of_stretched_positions(report):
    assert "stretched" not in report_content(report)["value"]
    assert "positions stretched 2 times" in report_content(replace(report, stretch_factor=2.0))["value"]


def test_file_names_cannot_bring_markup_into_the_line(report):
    pages = (PageReference("<img src=x>", "<img src=y>"), PageReference("b.pdf", "1"))
    passages = PassagesReport(pages, 2, ("<img src=z>",), ())
    assert "<img" not in report_content(replace(report, passages=passages))["value"]


def test_the_line_below_an_answer_tells_what_came_from_the_disk_and_what_was_left_out(report):
    assert "disk" not in report_content(report)["value"]
    more = replace(report, restored_tokens=6144, left_out=("<b>.pdf", "two.pdf"), warning="It could not be saved.")
    value = report_content(more)["value"]
    assert "prompt tokens reused, 6,144 from the disk" in value
    assert "&lt;b&gt;.pdf and two.pdf are still being read and were left out." in value
    assert "It could not be saved." in value


@pytest.mark.parametrize(
    ("state", "sentence"),
    [("interrupted", "Quest Chat ended while this was written"), ("failed", "failed on the way")],
)
def test_a_turn_that_did_not_end_shows_what_there_is_and_says_why(state, sentence):
    turn = Turn("Where?", "High above", None, (), "1", state, ("1",))
    question, answer, line = turn_messages([turn])
    assert answer["content"] == "High above"
    assert sentence in line["content"]["value"] and "Retry" in line["content"]["value"]


def test_each_turn_has_as_many_messages_whatever_became_of_it(report):
    turns = [
        Turn("One?", "High", report, ()),
        Turn("Two?", "", None, (), state="interrupted"),
        Turn("Three?", "High", None, ()),
    ]
    messages = turn_messages(turns)
    assert len(messages) == MESSAGES_PER_TURN * len(turns)
    assert all(message["content"] for message in messages)
    assert "not known any more" in ending_content(turns[2])["value"]


def test_questions_are_shown_as_text_and_lead_to_their_siblings():
    turn = Turn("<b>?", "", None, (), "b", "finished", ("a", "b"))
    assert question_content("<b>?")["value"] == "<quest-question>&lt;b&gt;?</quest-question>"
    assert '<quest-question turn="2" turn-id="b" siblings="a b">' in question_content("<b>?", 2, turn)["value"]
    alone = Turn("?", "", None, (), "b", "finished", ("b",))
    assert "siblings" not in question_content("?", 0, alone)["value"]
