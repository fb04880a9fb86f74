"""What stands in messages: questions, answers under way, and the lines below them."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from app.chat.answers.answer import (
    DocumentReading,
    ModelLoading,
    PageReference,
    PassagesReport,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.conversations.conversation import Turn
from app.evidence.citation import Citation, EvidencePassage, UnsupportedSentence
from quest_core.session_events import PrefillProgress
from ui.chat.answer_messages import (
    event_content,
    paced,
    prefill_content,
    question_content,
    running_messages,
    turn_messages,
    unanswered_messages,
)
from ui.chat.answer_row import ending_content, report_content
from ui.chat.start_message import start_messages

# The question, the answer, and the row below the answer.
MESSAGES_PER_TURN = 3


def test_what_a_question_waits_for_is_said():
    assert "Waiting for the model: Reading" in event_content(ModelLoading("Reading"))["value"]
    assert "2 questions" in event_content(Queued(2))["value"]
    assert "Reading the document: 50 %" in event_content(PrefillEvent(PrefillProgress(0, 1, 2, 0.1), None))["value"]
    reading = event_content(DocumentReading("<The Happy Prince>", 0.4))["value"]
    assert "Reading &lt;The Happy Prince&gt;: 40 %" in reading and 'value="0.4" max="1"' in reading
    assert "<progress" not in event_content(DocumentReading("book.pdf", None))["value"]


def test_tokens_come_no_faster_than_the_page_draws(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("ui.chat.answer_messages.time.sleep", pauses.append)
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


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("content_filter", "Cut by http://engine:1: its content filter lets no more through."),
        ("<b>fire</b>", 'Cut by http://engine:1: the reason that it gives is "<b>fire</b>".'),
    ],
)
def test_an_answer_that_another_engine_has_cut_says_why(report, reason, words):
    cut = replace(report, finish_reason="engine", engine_reason=reason, device="http://engine:1")
    value = report_content(cut)["value"]
    assert html.unescape(re.findall('<span slot="said">(.*?)</span>', value)[0]) == words and "<b>" not in value


def test_what_must_be_known_is_never_folded_away(report):
    pages = (PageReference("book.pdf", "3"),)
    nothing_found = PassagesReport(pages, 2, (), ("spinne",))
    worse = replace(report, finish_reason="length", left_out=("two.pdf",), warning="Not saved.", passages=nothing_found)
    value = report_content(worse)["value"]
    said = re.findall('<span slot="said">(.*?)</span>', value)
    for sentence in ("Cut at 4 tokens.", "two.pdf is still being read", "Not saved.", "None of the question"):
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
    # The place of what comes below is kept.
    assert len(running_messages("Where?", "High")) == MESSAGES_PER_TURN


def test_prefill_content_shows_the_time_left():
    value = prefill_content(PrefillEvent(PrefillProgress(0, 4096, 6310, 5.0), 3.0))["value"]
    assert "Reading the document: 65 %, 3 s left" in value
    assert 'value="4096" max="6310"' in value
    assert "outgrown" not in value
    again = prefill_content(PrefillEvent(PrefillProgress(6726, 6727, 6727, 0.1), 0.0))["value"]
    assert "Already read. Answering" in again and "<progress" not in again


def test_prefill_content_says_why_a_conversation_is_read_again():
    value = prefill_content(PrefillEvent(PrefillProgress(0, 512, 9000, 5.0, 2.0, True), 63.0))["value"]
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
    assert "the window was stretched 2 times" in report_content(replace(report, stretch_factor=2.0))["value"]


def test_file_names_cannot_bring_markup_into_the_line(report):
    pages = (PageReference("<img src=x>", "<img src=y>"), PageReference("b.pdf", "1"))
    passages = PassagesReport(pages, 2, ("<img src=z>",), ())
    assert "<img" not in report_content(replace(report, passages=passages))["value"]


def test_the_line_below_an_answer_tells_what_came_from_the_disk_and_what_was_left_out(report):
    assert "disk" not in report_content(report)["value"]
    more = replace(report, restored_tokens=6144, left_out=("<b>.pdf", "two.pdf"), warning="It could not be saved.")
    value = report_content(more)["value"]
    assert "tokens were read before, 6,144 of them on the disk" in value
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
    assert sentence in line["content"]["value"] and " goes-on" not in line["content"]["value"]
    assert " goes-on" in turn_messages([replace(turn, answer_token_ids=(1, 2))])[2]["content"]["value"]


def test_only_the_last_answer_that_was_cut_goes_on(report):
    cut = Turn("One?", "High", replace(report, finish_reason="length"), (1, 2), "1")
    first, last = (row["content"]["value"] for row in turn_messages([cut, replace(cut, turn_id="2")])[2::3])
    assert " goes-on" not in first and " goes-on" in last
    for reason, goes_on in (("stop", False), ("context", False), ("cancelled", True)):
        value = ending_content(replace(cut, report=replace(report, finish_reason=reason)), 0, True)["value"]
        assert (" goes-on" in value) == goes_on


def test_a_question_without_an_answer_is_offered_again():
    assert unanswered_messages("", True) == []
    question, again = unanswered_messages("<b>?", True)
    assert "&lt;b&gt;?" in question["content"]["value"]
    assert '<quest-ask-again question="&lt;b&gt;?">Stopped before the answer.' in again["content"]["value"]
    assert "Not answered." in unanswered_messages("Where?", False)[1]["content"]["value"]


def test_a_chat_begins_with_what_can_be_done_now():
    entry = SimpleNamespace(name="<b>.pdf", state="reading", message="")
    value = start_messages([], ())[0]["content"]["value"]
    assert 'data-state="none"' in value and "data-ask" not in value
    value = start_messages([entry], ("Why?",))[0]["content"]["value"]
    assert "Reading &lt;b&gt;.pdf" in value and "as soon as the text is there" in value and "data-ask" not in value
    locked = SimpleNamespace(name="two.pdf", state="locked", message="It is encrypted.")
    assert "two.pdf is locked" in start_messages([locked])[0]["content"]["value"]
    entry.state = "read"
    value = start_messages([entry, locked], ("What is “<i>” about?",))[0]["content"]["value"]
    assert "Ask about &lt;b&gt;.pdf" in value and "data-ask>What is “&lt;i&gt;” about?<" in value


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
