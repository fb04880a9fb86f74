"""Cutting text into document pages: sizes, headings, nothing lost."""

from app.library.formats.pagination import PAGE_CHARACTERS, split_into_pages

PARAGRAPH = "A sentence of some words, and another one. " * 10


def test_short_text_is_one_page_and_blank_text_is_none():
    assert split_into_pages("One line.") == ["One line."]
    assert split_into_pages(" \n\n \n") == []


def test_pages_have_a_readable_size_and_lose_nothing():
    text = "\n\n".join(f"{number}. {PARAGRAPH}" for number in range(60))
    pages = split_into_pages(text)
    assert all(PAGE_CHARACTERS / 2 < len(page) <= PAGE_CHARACTERS for page in pages[:-1])
    assert " ".join(pages).split() == text.split()


def test_heading_begins_a_page_when_the_last_one_is_filled():
    chapter = "\n\n".join([PARAGRAPH] * 4)
    pages = split_into_pages(f"CHAPTER I\n\n{chapter}\n\nCHAPTER II\n\n{chapter}\n\n## Three\n\n{chapter}")
    assert [page.split("\n")[0] for page in pages] == ["CHAPTER I", "CHAPTER II", "## Three"]


def test_headings_in_a_row_stay_together():
    assert len(split_into_pages("# Part one\n\n## Chapter one\n\nIt begins.")) == 1


def test_endless_paragraph_is_cut_between_sentences_or_anywhere():
    pages = split_into_pages(PARAGRAPH * 40)
    assert len(pages) > 4 and all(page.rstrip().endswith(".") for page in pages)
    pages = split_into_pages("x" * 20_000)
    assert "".join(pages) == "x" * 20_000 and max(map(len, pages)) <= 2 * PAGE_CHARACTERS


def test_long_stretch_between_form_feeds_is_cut_too():
    pages = split_into_pages("Title\f" + "\n\n".join([PARAGRAPH] * 60))
    assert pages[0] == "Title" and len(pages) > 5
