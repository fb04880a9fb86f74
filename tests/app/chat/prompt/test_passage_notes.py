"""What the user is told of passages: what kind they are of, what was searched for, and what is new."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.chat.answers.answer import DocumentReport, PageReference, PassagesReport
from app.chat.prompt.passage_notes import passage_notes
from app.chat.prompt.turn_passages import PassagePlace, TurnPassages

PLACES = (PassagePlace("0" * 32, 0, 0, 10),)


@pytest.mark.parametrize(
    ("added", "searched_for", "told"),
    [
        (None, "", "none of the question's words occur in the document, so its beginning was read"),
        (TurnPassages((), True), "", "its beginning was read"),
        (TurnPassages((), False), "", "so the passages of earlier questions were read"),
        (TurnPassages(PLACES, False), "", "1 of the passages is new, the others are those of earlier questions"),
        (TurnPassages(PLACES, True, "overview"), "", "about the whole, so outline, beginning and a spread of the text"),
        (TurnPassages(PLACES, True), "Where is it?", "another language than the text; searched for: Where is it?"),
    ],
)
def test_notes(added, searched_for, told):
    passages = PassagesReport((PageReference("a.pdf", "3"),), 2, (), ("leuchtturm",), added, searched_for)
    notes = passage_notes(SimpleNamespace(passages=passages, document=DocumentReport(9, 90_000, 4000)))
    assert any(told in note for note in notes)
    assert "4,000 of 90,000 tokens were in context, 2 passages from page 3" in notes[0]
