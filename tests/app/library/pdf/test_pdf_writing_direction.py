"""Lines that are written from the right, from the order in which they stand to the order in which they are read."""

from app.library.pdf.writing_direction import is_right_to_left_line, reading_order


def read(shown: str) -> str:
    return "".join(reading_order(list(shown)))


def test_letters_are_turned_round_and_numbers_are_not():
    assert read("1888 תנשב") == "בשנת 1888"
    assert read("٢٤٥ ددع") == "عدد ٢٤٥"
    assert read(".12.5.2024 ךיראת") == "תאריך 12.5.2024."


def test_latin_words_keep_their_order_among_themselves():
    assert read("ןאכ Oxford Press רפס") == "ספר Oxford Press כאן"


def test_brackets_open_before_they_close():
    assert read(")ןאכ( רפס") == "ספר (כאן)"
    assert read("(ןאכ( רפס") == "ספר (כאן)"


def test_a_ligature_is_one_unit():
    assert reading_order(["م", "لا", "س"]) == ["س", "لا", "م"]


def test_direction_is_that_of_most_letters():
    assert is_right_to_left_line(list("abc ספר העיר"))
    assert not is_right_to_left_line(list("the word ספר"))
