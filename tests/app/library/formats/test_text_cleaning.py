"""Cleaning of extracted text: characters, broken words, broken lines."""

from app.library.formats.text_cleaning import clean_characters, clean_indented, clean_typeset_page


def test_characters_are_unified():
    assert clean_characters("ﬁnd the oﬃce") == "find the office"
    assert clean_characters("a\u00a0b\u2003c \t d") == "a b c d"
    assert clean_characters("e\u0301") == "é"
    assert clean_characters("a\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert clean_characters("a \n\n\n\n b") == "a\n\nb"


def test_result_can_always_be_encoded():
    cleaned = clean_characters("a\x00b\ud800c\ufeffd\x1be")
    assert cleaned.encode("utf-8").decode("utf-8") == "ab\ufffdcde"
    assert clean_indented("a\x00\udfff").encode("utf-8")


def test_indentation_survives_where_it_means_something():
    assert clean_indented("\n  verse\n\tone  \n\n\n\nend\n") == "  verse\n    one\n\nend"


def test_broken_words_are_joined_and_compounds_are_not():
    assert clean_typeset_page("an exam-\nple of it") == "an example of it"
    assert clean_typeset_page("soft\u00ad\nware") == "software"
    assert clean_typeset_page("by Jean-\nPaul") == "by Jean-Paul"
    assert clean_typeset_page("a well-\nknown and well-known man") == "a well-known and well-known man"
    assert clean_typeset_page("pages 3-\n4") == "pages 3-\n4"


def test_verse_lists_and_tables_keep_their_lines():
    verse = "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould\nframe it?"
    assert clean_typeset_page(verse) == verse
    entries = "\n".join(f"{number}. An entry of a list that is as long as all of the others" for number in range(8))
    assert clean_typeset_page(entries) == entries
    table = "\n".join("1921 17.2 33.8 51.0 12.5 1922 18.1 34.0 52.2 11.9" for _ in range(8))
    assert clean_typeset_page(table) == table


def test_only_the_pages_own_number_is_dropped_at_its_edges():
    assert clean_typeset_page("XII\nText with 12 in it.\n- 12 -", "xii", "12") == "Text with 12 in it."
    assert clean_typeset_page("13\nText.", "12") == "13\nText."
    assert clean_typeset_page("One.\n12\nTwo.", "12") == "One.\n12\nTwo."
