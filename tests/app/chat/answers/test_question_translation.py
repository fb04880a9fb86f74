"""When a question is translated: its language is another than the text's, and its words do not occur."""

from __future__ import annotations

import pytest

from app.chat.answers import question_translation
from app.chat.answers.language_guess import asks_in_another_language, documents_language, guess_language
from app.chat.answers.question_translation import translated_question
from app.chat.conversations.conversation import Conversation
from app.library import QuestionWords


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the lighthouse?", "English"),
        ("Wo ist der Leuchtturm?", "German"),
        ("Où est le phare ?", "French"),
        ("¿Dónde está el faro?", "Spanish"),
        ("Dov'è il faro e chi lo custodisce?", "Italian"),
        ("Onde é que está o farol?", "Portuguese"),
        ("Waar is het huis van de koning?", "Dutch"),
        ("Где находится маяк?", "Russian"),
        ("灯台はどこですか？", "Japanese"),
        ("灯塔在哪里？", "Chinese"),
        ("Lighthouse keeper", ""),
        ("", ""),
        ("1984?", ""),
    ],
)
def test_the_language_is_guessed_from_script_and_function_words(text, language):
    assert guess_language(text) == language


def test_the_language_of_documents_is_that_of_most_of_their_text(text_document):
    english = "The boats came home and nobody knew where the keeper was. "
    document = text_document(*[english * 5] * 30, "Wo ist der Leuchtturm, und wer ist dort?")
    assert documents_language([document]) == "English"
    assert documents_language([text_document("", "12 34")]) == ""


@pytest.mark.parametrize(
    ("question", "found", "missing", "wanted"),
    [
        ("Wo ist der Leuchtturm?", (), ("wo", "ist", "der", "leuchtturm"), True),
        # Names are found in any language, and are enough.
        ("Wer ist Mr. Darcy?", ("mr", "darcy"), ("wer", "ist"), False),
        ("Where is the quokka?", (), ("quokka",), False),
        ("Quokka?", (), ("quokka",), True),
        ("And why?", (), (), False),
    ],
)
def test_a_question_is_translated_only_if_its_words_do_not_occur(question, found, missing, wanted):
    assert asks_in_another_language(question, QuestionWords(found, missing), "English") is wanted
    assert not asks_in_another_language(question, QuestionWords(found, missing), "")


def test_the_translation_is_one_line_and_stops_when_cancelled(assistant, text_document, monkeypatch):
    pytest.importorskip("llama_index.retrievers.bm25")
    model = assistant._loader.wait()
    document = text_document("The boats came home and nobody knew where the keeper was. " * 9)

    def translation(conversation):
        events = translated_question(model, conversation, [document], "Wo ist der Leuchtturm?")
        while True:
            try:
                next(events)
            except StopIteration as end:
                return end.value

    # The random model writes no English: nothing is searched for that is not.
    assert translation(Conversation(is_kept=False)) == ""
    monkeypatch.setattr(question_translation, "guess_language", lambda text, preferred: preferred)
    text = translation(Conversation(is_kept=False))
    assert text and "\n" not in text
    cancelled = Conversation(is_kept=False)
    cancelled.cancelled.set()
    assert translation(cancelled) == ""
