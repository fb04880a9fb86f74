"""Every planted fact stands once in its text, at its depth, and answers its question."""

from __future__ import annotations

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.planted_facts import TEMPLATES, build_planted_questions
from app.measure.evaluation.question import Haystack, LongQuestion


def count_words(text: str) -> int:
    return len(text.split())


BOOK = Haystack.from_text(
    "tale", " ".join(f"On day {day} the old ship sailed {'on and ' * (day % 9)}on." for day in range(900))
)


def build(trials: int = 14, seed: int = 5, context_tokens: int = 500) -> list[LongQuestion]:
    return build_planted_questions(BOOK, context_tokens, trials, seed, count_words)


def find_planted(question: LongQuestion) -> list[str]:
    """The sentences of the context that are not the book's."""
    sentences = Haystack.from_text("context", question.context.split("\n\n")[1]).sentences
    return [sentence for sentence in sentences if sentence not in BOOK.sentences]


@pytest.mark.parametrize("context_tokens", [300, 3000])
def test_the_fact_stands_once_at_its_depth_and_holds_the_answer(context_tokens):
    for question in build(context_tokens=context_tokens):
        assert question.task == "qa/tale"
        assert 0.97 * context_tokens <= count_words(question.prompt) <= context_tokens
        (fact,) = find_planted(question)
        assert question.context.count(fact) == 1
        assert question.answers[0] in fact
        text = question.context.split("\n\n")[1]
        # Of the text alone, as the fact is not a part of what it is planted in.
        assert text.index(fact) / (len(text) - len(fact)) == pytest.approx(question.depth, abs=0.06)


def test_the_question_does_not_give_its_answer_away():
    for question in build():
        assert question.answers[0] not in question.question
        assert "? Answer: " in question.question and "{" not in question.prompt
        # Completed with the answer, the question ends like a sentence.
        assert question.question.endswith((" is", " in", " a", " by", " to", " was", " called", " tame"))


def test_every_template_is_used():
    assert len(TEMPLATES) >= 12
    beginnings = {" ".join(find_planted(question)[0].split()[:2]) for question in build(trials=len(TEMPLATES))}
    assert len(beginnings) >= 12
    assert len({tuple(find_planted(question)) for question in build(trials=2 * len(TEMPLATES))}) == 2 * len(TEMPLATES)


def test_the_seed_decides():
    assert build() == build()
    assert [question.context for question in build()] != [question.context for question in build(seed=6)]


def test_too_short_a_text_says_what_to_do():
    with pytest.raises(UserFacingError, match="note has 2 tokens, .* are needed.*--text"):
        build_planted_questions(Haystack.from_text("note", "Too short."), 400, 1, 1, count_words)
