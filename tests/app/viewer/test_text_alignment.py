"""Bringing two readings of a page together: differences of form, of order, and what is in one only."""

from __future__ import annotations

import random
import time

import pytest

from app.viewer.text_alignment import NOT_FOUND, align

STORY = (
    "High above the city, on a tall column, stood the statue of the Happy Prince. He was gilded all over with thin "
    "leaves of fine gold, for eyes he had two bright sapphires, and a large red ruby glowed on his sword-hilt. "
    "One night there flew over the city a little Swallow. His friends had gone away to Egypt six weeks before."
)


def found_text(text: str, characters: str) -> str:
    """Of each character of a text the one that it was found to be, or "_"."""
    return "".join("_" if place == NOT_FOUND else characters[place] for place in align(text, characters))


def test_every_character_of_the_same_text_is_found_but_spaces_and_hyphens():
    places = align(STORY, STORY)
    for position, character in enumerate(STORY):
        assert places[position] == (NOT_FOUND if character in " -" else position)


def test_form_makes_no_difference():
    drawn = "Eﬃ-\x02cient ﬁsh, e\u0301tude, “quoted”, Straße, ½ﾊ"
    assert found_text('Efficient fish, étude, "quoted", Straße, ½ハ', drawn) == (
        "Eﬃﬃcient_ﬁsh,_etude,_“quoted”,_Straße,_½ﾊ".replace("Eﬃﬃ", "Eﬃﬃﬃ").replace("_ﬁs", "_ﬁﬁs")
    )


def test_columns_that_were_drawn_row_by_row_are_found_in_reading_order():
    left = [f"left line {row} of the first column" for row in "abcdefghij"]
    right = [f"right line {row} of the second one" for row in "abcdefghij"]
    drawn = "".join(f"{one}{other}" for one, other in zip(left, right, strict=True))
    text = "\n".join(left + right)
    places = align(text, drawn)
    for line in left + right:
        start, expected = text.index(line), drawn.index(line)
        here = [place for place in places[start : start + len(line)] if place != NOT_FOUND]
        # At the seams a letter may be taken for one of the neighbour's.
        right_ones = sum(expected <= place < expected + len(line) for place in here)
        assert right_ones >= 0.95 * len(line.replace(" ", ""))


def test_what_is_not_on_the_page_is_not_found():
    other = "Quite another text, which nobody ever put down on this page, about the weather in Norway in the autumn."
    assert sum(place != NOT_FOUND for place in align(other, STORY)) <= 0.1 * len(other)
    assert set(align("Anything", "")) == {NOT_FOUND}
    assert align("", STORY) == []
    joined = f"{STORY} unbelievable"
    assert set(align(joined, STORY)[len(STORY) :]) == {NOT_FOUND}


def test_repetitions_are_told_apart_by_their_neighbours():
    rows = [f"row {number}: 0.00 1.25 0.50 0.00" for number in range(40)]
    text, drawn = "\n".join(rows), "".join(row.replace(" ", "") for row in rows)
    places = align(text, f"A heading{drawn}a footer")
    letters = [place for place in places if place != NOT_FOUND]
    assert letters == list(range(len("A heading"), len("A heading") + len(drawn)))


def test_mistakes_of_recognition_cost_themselves_only():
    rng = random.Random(3)
    text = "".join(rng.choice("etaoin") if rng.random() < 0.05 else character for character in STORY)
    places = align(text, STORY)
    wanted = [
        position for position, character in enumerate(text) if character == STORY[position] and character.isalpha()
    ]
    assert sum(places[position] == position for position in wanted) >= 0.97 * len(wanted)


@pytest.mark.parametrize("letters", ["a", "ab", "abcd"])
def test_texts_made_to_be_slow_are_not(letters):
    rng = random.Random(5)
    text, drawn = ("".join(rng.choices(letters, k=20_000)) for _ in range(2))
    began = time.process_time()
    align(text, drawn)
    # Measured: 0.3 s.
    assert time.process_time() - began < 3
