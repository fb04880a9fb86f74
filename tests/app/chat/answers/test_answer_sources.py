"""What stands beside an answer: passages before its first word, reads after it, and both in the stored turn."""

from __future__ import annotations

import numpy as np
import pytest

from app.chat.answers.answer import AnswerOptions, Finished, PassagesFound, TokenEvent
from app.chat.answers.reads.answer_reads import AnswerReads, sentence_reads
from app.chat.answers.running_answer import RunningAnswer
from app.errors import UserFacingError


@pytest.mark.parametrize("attention", ["quest", "dense"])
def test_passages_come_before_the_first_word_and_reads_after_it(assistant, book_path, attention):
    conversation = assistant.new_conversation()
    entry = assistant.add_document(conversation, book_path)
    assistant.library.wait(entry.document_id)
    options = AnswerOptions(attention=attention, token_budget=64, max_new_tokens=8)
    events = list(assistant.answer(conversation, "Who kept the light?", options))
    kinds = [type(event) for event in events]
    assert kinds.index(PassagesFound) < kinds.index(TokenEvent)
    report = events[-1].report
    assert report.passages_found == events[kinds.index(PassagesFound)].passages
    assert report.passages_found[0].document_id == entry.document_id
    # A random model says nothing that is supported, but it has looked somewhere, with either kind of attention.
    page = report.pages_read[0]
    assert (page.document_id, page.page_index) == (entry.document_id, 0) and page.read_score > 0

    sources = assistant.sources(conversation.conversation_id, conversation.turns[-1].turn_id)
    assert sources["running"] is False and sources["passages_found"][0]["page_index"] == 0
    assert sources["pages_read"][0]["read_score"] == page.read_score
    with pytest.raises(UserFacingError, match="no such answer"):
        assistant.sources(conversation.conversation_id, "999999")


def test_who_follows_late_gets_the_passages_first():
    def events(answer):
        yield PassagesFound(())
        yield TokenEvent("a", "a", 0, 0.1, None, None)
        late.append([next(follower) for follower in [answer.follow()] for _ in range(2)])
        yield Finished(None)

    late: list = []
    answer = RunningAnswer("Where?", "1", events)
    answer.start()
    answer.join(30)
    assert [type(event) for event in late[0]] == [PassagesFound, TokenEvent]
    assert answer.passages_found == PassagesFound(())
    assert list(answer.follow()) == [Finished(None)]


def test_reads_are_above_what_a_neutral_text_gives_and_of_the_sentence_asked_for():
    pages = (("d", 0), ("d", 1))
    # Two layers, three tokens: the first two look at page 0, the last at page 1, which gets much anyway.
    attention = np.array([[[0.4, 0.4], [0.4, 0.4], [0.1, 0.8]]] * 2, dtype=np.float32)
    reads = AnswerReads(pages, attention, np.array([[0.1, 0.4]] * 2, dtype=np.float32))
    scores = reads.scores(0, 2)
    assert scores["d", 0] == pytest.approx(4, rel=0.05) and scores["d", 1] == pytest.approx(1, rel=0.05)
    assert reads.scores(3, 9) == {}

    texts = ["", " One", " One two.", " One two. Three."]
    of_sentence = sentence_reads(reads, "One two. Three.", [1, 2, 3], lambda token_ids: texts[len(token_ids)])
    assert of_sentence(0, 8) == scores
    assert of_sentence(9, 15)["d", 1] == pytest.approx(2, rel=0.05)
