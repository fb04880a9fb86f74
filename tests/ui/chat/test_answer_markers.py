"""Marks of sources in an answer's markdown; that the page turns them into buttons is tested in a browser."""

from __future__ import annotations

import random
import re

import pytest

from app.evidence.citation import Citation, UnsupportedSentence
from ui.chat.answer_markers import NO_SOURCE_END, NO_SOURCE_START, SIGN, circled, marked_markdown, with_room_for_marks
from ui.chat.safe_markdown import safe_markdown

# For reading: ⟦①⟧ is the mark of a citation, ‹ and › stand around a sentence without a source.
SHOWN = {NO_SOURCE_START: "‹", NO_SOURCE_END: "›"}


def citation(answer: str, sentence: str, number: int = 1) -> Citation:
    start = answer.index(sentence)
    end = start + len(sentence)
    return Citation(number, sentence, start, end, "book.pdf", "id", "5", 4, 0, 10, "High above", 0.8)


def marked(answer: str, *cited: str, unsupported: str = "") -> str:
    citations = [citation(answer, sentence, number) for number, sentence in enumerate(cited, 1)]
    start = answer.index(unsupported)
    without = [UnsupportedSentence(unsupported, start, start + len(unsupported))] if unsupported else []
    text = marked_markdown(answer, citations, without)
    for sign, shown in SHOWN.items():
        text = text.replace(sign, shown)
    return re.sub(f"{SIGN}([^{SIGN}]*){SIGN}", r"⟦\1⟧", text)


def test_numbers_are_circled_as_far_as_there_are_circles():
    assert [circled(number) for number in (1, 20, 21)] == ["①", "⑳", "(21)"]


@pytest.mark.parametrize(
    ("answer", "cited", "expected"),
    [
        ("High above. It is gold.", ["High above.", "It is gold."], "High above.⟦①⟧ It is gold.⟦②⟧"),
        ("High above.  \n", ["High above.  \n"], "High above.⟦①⟧  \n"),
        # Signs that end emphasis would not, behind a mark.
        ("**High above.**", ["**High above.**"], "**High above.⟦①⟧**"),
        ("**High.** Low.", ["High."], "**High.⟦①⟧** Low."),
        ("He said “it is.” Then", ["He said “it is."], "He said “it is.”⟦①⟧ Then"),
        # Nothing that is one thing to markdown is broken up.
        (
            "See [the city. It](https://a.example/b) is.",
            ["See [the city."],
            "See [the city. It](https://a.example/b)⟦①⟧ is.",
        ),
        ("Run `a. b` now.", ["Run `a."], "Run `a. b`⟦①⟧ now."),
        ("So $$a. b$$ is.", ["So $$a."], "So \ue002a. b\ue003⟦①⟧ is."),
        ("See https://a.example/b", ["See https://a.example/b"], "See https://a.example/b ⟦①⟧"),
        ("- One.\n- Two.", ["- One.", "Two."], "- One.⟦①⟧\n- Two.⟦②⟧"),
        ("# High above\n\nIt is.", ["# High above"], "# High above⟦①⟧\n\nIt is."),
        ("High above\n===\n", ["High above\n==="], "High above⟦①⟧\n===\n"),
        (
            "| a | b |\n|---|---|\n| one. | two. |\n",
            ["| a | b |\n|---|---|", "| one. | two. |"],
            "| a | b⟦①⟧ |\n|---|---|\n| one. | two.⟦②⟧ |\n",
        ),
        ("So:\n```py\nx = 1.\ny\n```\nDone.", ["x = 1."], "So:\n\n```py\nx = 1.\ny\n```\n\n⟦①⟧\n\n\nDone."),
    ],
)
def test_a_mark_stands_where_the_sentence_ends_to_the_reader(answer, cited, expected):
    assert marked(answer, *cited) == expected


@pytest.mark.parametrize(
    ("answer", "sentence", "expected"),
    [
        ("High above. It is gold.", "It is gold.", "High above. ‹It is gold.›"),
        ("- **It is gold.** Yes.", "- **It is gold.", "- **‹It is gold.›** Yes."),
        ("> 1. It is gold.", "> 1. It is gold.", "> 1. ‹It is gold.›"),
        ("| It is. | b |\n|---|---|\n", "| It is. | b |", "| ‹It is. | b› |\n|---|---|\n"),
        ("```\nIt is.\n```\n", "It is.", "\n```\nIt is.\n```\n\n›\n\n\n"),
    ],
)
def test_a_sentence_without_a_source_is_marked_on_both_sides(answer, sentence, expected):
    assert marked(answer, unsupported=sentence) == expected


def test_what_an_answer_writes_never_becomes_a_mark():
    forged = f"High.{SIGN}①{SIGN} {NO_SOURCE_START}It is.{NO_SOURCE_END} <quest-citation>"
    assert marked(forged) == "High.① It is. &lt;quest-citation>"
    # Places are those of the answer as it was written.
    assert marked(forged, "It is.") == "High.① It is.⟦①⟧ &lt;quest-citation>"


def test_marks_change_nothing_else_wherever_they_fall():
    syntax = "**|*|`|```\n|\n|\n\n|- |> |[x](y)|$$|<b>|# ".split("|")
    pieces = [*syntax, "High. ", "| a | b |\n|---|---|\n"]
    chance = random.Random(3)
    for _ in range(400):
        answer = "".join(chance.choices(pieces, k=14))
        places = sorted(chance.choices(range(len(answer) + 1), k=4))
        citations = [
            Citation(n + 1, "", start, end, "b", "id", "5", 4, 0, 1, "", 0.8)
            for n, (start, end) in enumerate(zip(places, places[1:], strict=False))
        ]
        text = marked_markdown(answer, citations, [UnsupportedSentence("", places[0], places[-1])])
        numbers = re.findall(f"{SIGN}(.){SIGN}", text)
        assert numbers == ["①", "②", "③"]
        plain = re.sub(f"{SIGN}.{SIGN}|[{NO_SOURCE_START}{NO_SOURCE_END}]", "", text)
        # A mark within what looks like a tag makes plain text of it in another way.
        assert plain.replace("&lt;", "<").split() == safe_markdown(answer).replace("&lt;", "<").split()


def test_an_answer_that_goes_on_has_room_for_the_marks_of_its_sentences():
    begun = "High\u2063 above the city. He was gilded `all. over`. **Bold one.**\n\n```\ncode. Two.\n```\nSo it is. And"
    assert with_room_for_marks(begun) == (
        "High above the city.\u2063 He was gilded `all. over`.\u2063 **Bold one.\u2063**\n\n```\ncode. Two.\n```\n"
        "So it is.\u2063 And"
    )
    assert with_room_for_marks("One.") == "One."
