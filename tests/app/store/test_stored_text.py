"""Names from anywhere, as they are kept and shown."""

from __future__ import annotations

import pytest

from app.store.stored_text import file_name_of, one_line, storable, title_of


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("book.pdf", "book.pdf"),
        ("größe  and\tmore\n.txt", "größe and more.txt"),
        ("\u202egnp.exe\u202c.pdf", "gnp.exe.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\books\\one.epub", "one.epub"),
        ("\x00\x07.pdf", "document.pdf"),
        ("", "document"),
        ("half \ud800.txt", "half.txt"),
        ("x" * 10_000 + ".pdf", "x" * 195 + "….pdf"),
        ("family 👩\u200d👩\u200d👧.md", "family 👩\u200d👩\u200d👧.md"),
    ],
)
def test_file_names(name, kept):
    assert file_name_of(name) == kept
    assert len(kept) <= 200


def test_lines_are_cut_and_cleared():
    assert one_line(" a\r\nb\u2028c\u200b ") == "a b c"
    assert one_line("word " * 100) == "word " * 39 + "word…"
    assert one_line("\u2066\u2069\n") == ""
    assert one_line("\n" * 1_000_000) == ""


def test_titles_end_between_words():
    assert title_of("Who kept the light?\n") == "Who kept the light?"
    title = title_of("Who kept the light of the harbour in the winter when nobody came home from the sea?")
    assert title == "Who kept the light of the harbour in the winter when nobody came home from the…"
    assert title_of("x" * 500) == "x" * 79 + "…"
    assert title_of("灯" * 500) == "灯" * 79 + "…"


def test_halves_of_characters_are_replaced():
    assert storable("a\ud800b\udcffc") == "a?b?c"
