"""Boxes of passages: one a line, in the right direction, and none where the passage is not."""

from __future__ import annotations

from array import array

import pytest

from app.viewer.character_boxes import HORIZONTAL, NOWHERE, UNITS, VERTICAL, from_bytes, nowhere
from app.viewer.marks import line_boxes


def places_of(*characters: tuple[float, float, float, float, int] | None) -> array:
    """Places of characters, from shares of the page."""
    places = array("H")
    for character in characters:
        *box, axis = character or (0, 0, 0, 0, NOWHERE)
        places.extend([*(round(share * UNITS) for share in box), axis])
    return places


def row(start: float, top: float, count: int) -> list[tuple[float, float, float, float, int]]:
    return [(start + 0.01 * k, top, start + 0.01 * (k + 1), top + 0.02, HORIZONTAL) for k in range(count)]


def test_each_line_has_one_box():
    text = "first\nsecond"
    places = places_of(*row(0.1, 0.1, 5), None, *row(0.1, 0.13, 6))
    boxes = line_boxes(text, places, 0.7, 0, len(text))
    assert boxes == [pytest.approx((0.1, 0.1, 0.15, 0.12), abs=1e-4), pytest.approx((0.1, 0.13, 0.16, 0.15), abs=1e-4)]
    assert line_boxes(text, places, 0.7, 1, 3) == [pytest.approx((0.11, 0.1, 0.13, 0.12), abs=1e-4)]


def test_lines_of_two_columns_are_two_boxes_and_words_of_one_line_are_one():
    text = "leftright"
    apart = places_of(*row(0.1, 0.1, 4), *row(0.5, 0.1, 5))
    assert len(line_boxes(text, apart, 0.7, 0, 9)) == 2
    near = places_of(*row(0.1, 0.1, 4), *row(0.16, 0.1, 5))
    assert len(line_boxes(text, near, 0.7, 0, 9)) == 1
    # A raised figure is on the line as well.
    raised = places_of(*row(0.1, 0.1, 4), *row(0.14, 0.095, 5))
    assert len(line_boxes(text, raised, 0.7, 0, 9)) == 1


def test_text_that_runs_upwards_has_one_box_too():
    places = places_of(*((0.1, 0.5 - 0.01 * k, 0.12, 0.51 - 0.01 * k, VERTICAL) for k in range(6)))
    assert line_boxes("upward", places, 0.7, 0, 6) == [pytest.approx((0.1, 0.45, 0.12, 0.51), abs=1e-4)]


def test_upright_characters_that_are_written_downwards_have_a_box_a_column():
    column = [(0.5, 0.1 + 0.02 * k, 0.52, 0.12 + 0.02 * k, HORIZONTAL) for k in range(4)]
    next_column = [(0.46, 0.1 + 0.02 * k, 0.48, 0.12 + 0.02 * k, HORIZONTAL) for k in range(4)]
    boxes = line_boxes("東京都の大阪府と", places_of(*column, *next_column), 0.7, 0, 8)
    assert boxes == [pytest.approx((0.5, 0.1, 0.52, 0.18), abs=1e-4), pytest.approx((0.46, 0.1, 0.48, 0.18), abs=1e-4)]


def test_a_passage_that_is_hardly_found_has_no_box():
    places = places_of(*row(0.1, 0.1, 2), *[None] * 10)
    assert line_boxes("twelve chars", places, 0.7, 0, 12) == []
    assert line_boxes("twelve chars", places, 0.7, 0, 2) != []
    assert line_boxes("twelve chars", nowhere(12), 0.7, 0, 12) == []


@pytest.mark.parametrize(("start", "end"), [(-7, 0), (5, 5), (9, 3), (100, 200)])
def test_no_characters_have_no_box(start, end):
    assert line_boxes("first", places_of(*row(0.1, 0.1, 5)), 0.7, start, end) == []


def test_places_of_another_text_are_refused():
    with pytest.raises(ValueError, match="9 characters"):
        from_bytes(nowhere(8).tobytes(), 9)
