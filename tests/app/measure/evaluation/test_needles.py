"""The needles of each task are where they should be, and every answer follows from the context alone."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.extraction.word_list import ADJECTIVES, NOUNS
from app.measure.evaluation.needles import NEEDLE_TASKS, build_needle_questions
from app.measure.evaluation.question import Haystack, LongQuestion


def count_words(text: str) -> int:
    return len(text.split())


BOOK = Haystack.from_text(
    "tale", " ".join(f"On day {day} the old ship sailed {'on and ' * (day % 9)}on." for day in range(2000))
)
RETRIEVAL = ["single", "multi-key", "multi-value", "multi-query"]


def build(name: str, context_tokens: int = 1500, trials: int = 4, seed: int = 3) -> list[LongQuestion]:
    return build_needle_questions([name], BOOK, context_tokens, trials, seed, count_words)


def read_needles(context: str) -> list[tuple[str, str]]:
    """Every (key, value) of the context."""
    return re.findall(r"(?<=[.!?] )The code number of ([a-z]+-[a-z]+) is (\d{5})\.", context)


@pytest.mark.parametrize("context_tokens", [600, 5000])
@pytest.mark.parametrize("name", NEEDLE_TASKS)
def test_contexts_fill_the_window_and_hold_their_answers(name, context_tokens):
    for question in build(name, context_tokens):
        assert question.task == f"needles/{name}"
        assert question.needs == "all"
        assert 0.97 * context_tokens <= count_words(question.prompt) <= context_tokens
        assert all(answer in question.context for answer in question.answers)
        assert re.search(r"\? Answer: The .* (is|are)$", question.question)


@pytest.mark.parametrize("name", NEEDLE_TASKS)
def test_the_seed_decides_and_trials_differ(name):
    assert build(name) == build(name)
    assert build(name)[0].context != build(name, seed=4)[0].context
    assert len({question.answers for question in build(name)}) == 4


@pytest.mark.parametrize("name", RETRIEVAL)
def test_the_answers_are_the_values_of_the_keys_asked_for(name):
    for question in build(name):
        needles = read_needles(question.context)
        asked = {key for key, _ in needles if key in question.question}
        assert Counter(value for key, value in needles if key in asked) == Counter(question.answers)
        assert len(asked) == (2 if name == "multi-query" else 1)


@pytest.mark.parametrize(
    ("name", "needles", "keys"),
    [("single", 1, 1), ("multi-key", 4, 4), ("multi-value", 4, 1), ("multi-query", 8, 8)],
)
def test_each_task_has_its_number_of_needles(name, needles, keys):
    for question in build(name):
        found = read_needles(question.context)
        assert (len(found), len({key for key, _ in found}), len({value for _, value in found})) == (
            needles,
            keys,
            needles,
        )


@pytest.mark.parametrize("name", ["single", "multi-key"])
def test_one_needle_stands_at_its_depth(name):
    questions = build(name)
    assert [question.depth for question in questions] == pytest.approx([0.05, 0.35, 0.65, 0.95])
    for question in questions:
        text = question.context.split("\n\n")[1]
        assert text.index(f" is {question.answers[0]}.") / len(text) == pytest.approx(question.depth, abs=0.05)


def test_variables_are_set_before_they_are_used_and_chains_stay_apart():
    for question in build("variable-tracking"):
        values: dict[str, str] = {}
        for name, source in re.findall(r"Variable (\w+) = (\w+)\.", question.context):
            assert name not in values
            values[name] = source if source.isdigit() else values[source]
        (wanted,) = re.findall(r"hold the value (\d{5}), ", question.question)
        assert {name for name, value in values.items() if value == wanted} == set(question.answers)
        assert (len(values), len(question.answers), len(set(values.values()))) == (10, 5, 2)


@pytest.mark.parametrize("context_tokens", [160, 600, 1000, 5000])
def test_common_words_are_ten_times_as_common(context_tokens):
    for question in build("common-words", context_tokens):
        numbered = re.findall(r"(\d+)\. (\w+)", question.context.split("\n\n")[1])
        assert [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1))
        counts = Counter(word for _, word in numbered).most_common()
        assert {word for word, _ in counts[:3]} == set(question.answers)
        assert len({times for _, times in counts[:3]}) == 1
        assert counts[2][1] >= 5 * counts[3][1]


@pytest.mark.parametrize("context_tokens", [120, 600, 5000])
def test_frequent_words_fall_by_zipf(context_tokens):
    for question in build("frequent-words", context_tokens):
        counts = Counter(question.context.split("\n\n")[1].split()).most_common()
        assert tuple(word for word, _ in counts[:3]) == question.answers
        assert counts[2][1] > counts[3][1]
        assert counts[0][1] == pytest.approx(4 * counts[1][1], rel=0.2)


def test_several_tasks_come_in_the_order_named():
    questions = build_needle_questions(["frequent-words", "single"], Haystack.filler(), 600, 2, 1, count_words)
    assert [question.task for question in questions] == ["needles/frequent-words"] * 2 + ["needles/single"] * 2


def test_an_unknown_task_is_named_with_the_known_ones():
    with pytest.raises(UserFacingError, match="no needle task 'tripel'. Choose from single, multi-key, "):
        build("tripel")


@pytest.mark.parametrize("name", NEEDLE_TASKS)
def test_too_small_a_window_says_what_to_do(name):
    with pytest.raises(UserFacingError, match="window of 30 tokens .*--context-tokens"):
        build(name, context_tokens=30)


def test_the_word_lists_hold_each_word_once():
    assert len(set(NOUNS)) >= 120 and len(set(ADJECTIVES)) >= 60
    assert len(set(NOUNS + ADJECTIVES)) == len(NOUNS) + len(ADJECTIVES)
