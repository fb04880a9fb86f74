"""Haystacks are cut to size at sentence ends, and needles stand where they should."""

from __future__ import annotations

from random import Random

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.question import Haystack, LongQuestion, fit_context, plant, spread_trials


def count_words(text: str) -> int:
    return len(text.split())


def make_book(sentences: int) -> str:
    random = Random(1)
    return "\n".join(
        " ".join([f"Sentence{index}", *["word"] * random.randrange(3, 30)]) + "." for index in range(sentences)
    )


def test_sentences_end_where_a_reader_ends_them():
    text = 'Mr. Hale left.  "Why?" she\nasked. Dr. Low (he knew!) said it cost 3.5 pounds. Nobody'
    assert Haystack.from_text("book", text).sentences == [
        "Mr. Hale left.",
        '"Why?"',
        "she asked.",
        "Dr. Low (he knew!)",
        "said it cost 3.5 pounds.",
        "Nobody",
    ]


def test_endless_sentences_are_broken_between_words():
    haystack = Haystack.from_text("table", "number " * 1000)
    assert max(map(len, haystack.sentences)) <= 1000
    assert " ".join(haystack.sentences).split() == ["number"] * 1000


@pytest.mark.parametrize("tokens", [100, 1000, 5000])
@pytest.mark.parametrize("offset", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("haystack", [Haystack.filler(), Haystack.from_text("book", make_book(1000))])
def test_a_cut_is_full_and_successive(haystack, offset, tokens):
    sentences = haystack.cut(tokens, count_words, offset)
    assert 0.97 * tokens <= count_words(" ".join(sentences)) <= tokens
    endless = " ".join(haystack.sentences * (tokens if haystack.repeats else 1))
    assert " ".join(sentences) in endless


def test_the_offset_moves_through_the_whole_text():
    haystack = Haystack.from_text("book", make_book(2000))
    starts = [haystack.sentences.index(haystack.cut(500, count_words, offset)[0]) for offset in (0.0, 0.5, 1.0)]
    assert starts[0] < 64 < 800 < starts[1] < 1200 < 1800 < starts[2]


def test_the_whole_text_can_be_cut():
    haystack = Haystack.from_text("book", make_book(50))
    assert haystack.cut(count_words(make_book(50)), count_words, 0.7) == haystack.sentences


def test_each_sentence_is_counted_once():
    asked = []

    def count_tokens(text: str) -> int:
        asked.append(text)
        return count_words(text)

    haystack = Haystack.from_text("book", make_book(100))
    for offset in (0.0, 0.5):
        haystack.cut(300, count_tokens, offset)
    assert len(asked) == 100
    # Another tokenizer counts otherwise.
    assert len(" ".join(haystack.cut(300, len))) <= 300


def test_too_short_a_text_says_what_to_do():
    haystack = Haystack.from_text("note.txt", "Three words only. And four more words.")
    with pytest.raises(UserFacingError, match=r"note\.txt has 7 tokens, 100 are needed.*--text"):
        haystack.cut(100, count_words)


def test_needles_stand_at_their_depths_between_sentences():
    sentences = Haystack.filler().cut(2000, count_words)
    needles = [(0.9, "NINE."), (0.0, "FIRST."), (0.3, "THREE."), (1.0, "LAST."), (0.3, "THREE AGAIN.")]
    text = plant(sentences, needles)
    assert text.startswith("FIRST. ") and text.endswith(" LAST.")
    assert "THREE. THREE AGAIN." in text
    for depth, needle in needles:
        assert text.count(needle) == 1
        assert text.index(needle) / len(text) == pytest.approx(depth, abs=0.02)
        text_without = text.replace(f"{needle} ", "").replace(f" {needle}", "")
        assert len(text_without) == len(text) - len(needle) - 1
    for _, needle in needles:
        text = text.replace(needle, "")
    assert text.split() == " ".join(sentences).split()


def test_the_prompt_is_the_context_and_then_the_question():
    question = LongQuestion("task", "A text.", "Which?", ("this",), "any", 8, None)
    assert question.prompt == "A text.\n\nWhich?"


def test_depths_are_even_and_trials_differ():
    trials = list(spread_trials("task", Haystack.filler(), 100, 4, 7, count_words))
    assert [trial.depth for trial in trials] == pytest.approx([0.05, 0.35, 0.65, 0.95])
    assert len({trial.random.random() for trial in trials}) == 4
    assert [trial.depth for trial in spread_trials("task", Haystack.filler(), 100, 1, 7, count_words)] == [0.5]


@pytest.mark.parametrize("per_word", [1, 2])
def test_sizes_are_fitted_where_the_parts_do_not_add_up(per_word):
    haystack = Haystack.from_text("book", make_book(500))

    def count_tokens(text: str) -> int:
        # A start of text that every call adds, and words that cost more in long texts.
        return 1 + count_words(text) * (per_word if len(text) > 1000 else 1)

    trial = next(spread_trials("task", haystack, 2000, 1, 7, count_tokens))
    context = trial.hide("Read.", [(0.5, "A needle.")], "What?")
    assert 0.97 * 2000 <= count_tokens(f"{context}\n\nWhat?") <= 2000


def test_too_small_a_window_says_what_to_do():
    with pytest.raises(UserFacingError, match=r"window of 5 tokens.*take 8.*--context-tokens"):
        fit_context(lambda tokens: "needle " * 7 + "hay " * tokens, "What?", 5, count_words)
