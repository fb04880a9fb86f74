"""What is indexed, what is asked for, and what is shown of a hit."""

from __future__ import annotations

import pytest

from app.store.search_words import indexed_text, match_expression, snippet


@pytest.mark.parametrize(
    ("query", "expression"),
    [
        ("the light", '"the"* "light"*'),
        ('say "light"', '"say"* """light"""*'),
        ("a OR (b", '"a" "OR"* "(b"*'),
        ("?! --", ""),
        ("", ""),
        ("灯台", '"灯  台"*'),
    ],
)
def test_expressions(query, expression):
    assert match_expression(query) == expression


def test_characters_of_scripts_without_spaces_are_set_apart():
    assert indexed_text("The 灯台 light").split() == ["The", "灯", "台", "light"]
    assert indexed_text("Maß für Маяк") == "Maß für Маяк"
    assert indexed_text(None) == ""


@pytest.mark.parametrize(
    ("query", "page_text"),
    [
        ("straße", "In der STRASSE nicht, in der Straße schon."),
        ("cafe", "Un café, s'il vous plaît."),
        ("маяк", "Старый МАЯК светил."),
        ("منارة", "كانت منارة قديمة على الشاطئ"),
        ("प्रकाश", "समुद्र के पास एक प्रकाश स्तंभ था।"),
        ("ประภาคาร", "บนเกาะมีประภาคารเก่าแก่"),
        ("等台", "等台 and more"),
        ("台守", "古い灯台守は毎晩起きていた。"),
        ("등대", "오래된 등대지기는"),
        ("naïve", "A NAIVE reader"),
        ("light hou", "the lighthouse"),
    ],
)
def test_words_are_found_in_their_scripts(documents, add_document, query, page_text):
    if query == "light hou":
        add_document("a" * 32, "a.txt", "a light house", page_text)
    else:
        add_document("a" * 32, "a.txt", "nothing here", page_text)
    hits = documents.search(query)
    assert [hit.page_label for hit in hits] == ["1" if query == "light hou" else "2"]


def test_snippets_stand_around_the_first_word_that_is_found():
    text = "Far away. " * 50 + "The old\nlighthouse KEEPER slept. " + "And so on. " * 50
    shown = snippet(text, "keeper zebra")
    assert "The old lighthouse KEEPER slept." in shown
    assert shown.startswith("…") and shown.endswith("…") and "\n" not in shown and len(shown) <= 162
    assert snippet("Short.", "zebra") == "Short."
    assert snippet("", "zebra") == ""
    assert "Töchter" in snippet("x " * 200 + "Die Töchter", "tochter")
    # In one long word, and with a character that grows in lower case.
    assert snippet("x" * 500 + "needle" + "y" * 500, "needle").count("needle") == 1
    assert "needle" in snippet("İ" * 300 + " needle", "needle")
