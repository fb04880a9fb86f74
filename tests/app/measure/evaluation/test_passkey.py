"""Every pass key is in its context once, at its depth, and the context fills the window."""

from __future__ import annotations

import re

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.passkey import build_passkey_questions
from app.measure.evaluation.question import Haystack


def count_words(text: str) -> int:
    return len(text.split())


BOOK = Haystack.from_text(
    "tale", " ".join(f"On day {day} the old ship sailed {'on and ' * (day % 9)}on." for day in range(900))
)


@pytest.mark.parametrize("context_tokens", [400, 3000])
@pytest.mark.parametrize("haystack", [Haystack.filler(), BOOK], ids=lambda haystack: haystack.name)
def test_each_key_is_hidden_once_at_its_depth(haystack, context_tokens):
    questions = build_passkey_questions(haystack, context_tokens, 5, 1, count_words)
    assert [question.depth for question in questions] == pytest.approx([0.05, 0.275, 0.5, 0.725, 0.95])
    for question in questions:
        assert question.task == f"passkey/{haystack.name}"
        assert 0.97 * context_tokens <= count_words(question.prompt) <= context_tokens
        (key,) = question.answers
        assert re.fullmatch(r"\d{5}", key)
        needle = f"The pass key is {key}. Remember it. {key} is the pass key."
        introduction, text = question.context.split("\n\n")
        assert text.count(needle) == 1 and introduction.startswith("There is important information hidden")
        before, after = text.split(needle)
        assert len(before) / len(before + after) == pytest.approx(question.depth, abs=0.05)
        assert question.question.endswith("The pass key is")


def test_the_seed_decides_and_trials_differ():
    first, again, other = (build_passkey_questions(BOOK, 400, 4, seed, count_words) for seed in (1, 1, 2))
    assert first == again
    assert len({question.answers for question in first + other}) == 8
    assert len({question.context[:400] for question in first}) == 4


def test_too_short_a_text_says_what_to_do():
    with pytest.raises(UserFacingError, match="note has 2 tokens, .* are needed.*--text"):
        build_passkey_questions(Haystack.from_text("note", "Too short."), 400, 1, 1, count_words)
