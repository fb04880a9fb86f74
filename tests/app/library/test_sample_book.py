"""The sample book: it must stay small, whole, readable, and inside a window of 8,192 tokens."""

import pytest

pypdf = pytest.importorskip("pypdf")


def test_sample_book_is_a_small_labelled_pdf(sample_book_path):
    assert sample_book_path.stat().st_size < 300_000
    information = pypdf.PdfReader(sample_book_path).metadata
    assert information.title == "The Happy Prince and The Selfish Giant" and information.author == "Oscar Wilde"


def test_sample_book_is_whole_and_clean(sample_book):
    labels = [page.page_label for page in sample_book.document_pages]
    assert labels == ["i", *(str(number) for number in range(1, 20))]
    assert sample_book.unreadable_pages == ()
    words = sum(len(page.text.split()) for page in sample_book.document_pages)
    assert 4_800 < words < 5_400
    text = "\n".join(page.text for page in sample_book.document_pages)
    assert not set(text) & set("ﬁﬂﬀﬃﬄ\ufffd\u00ad")
    assert sample_book.document_pages[1].text.startswith("The Happy Prince\nHigh above the city, on a tall column")
    assert sample_book.document_pages[-1].text.endswith("all covered with white blossoms.")
    assert "Gutenberg" not in text
    # Printed page numbers are not text.
    assert not any(page.text.startswith(page.page_label) for page in sample_book.document_pages[1:])


def test_what_is_listed_of_the_sample_books_is_true(sample_book):
    from app.library import read_document
    from app.library.sample_books import SAMPLE_BOOKS

    for book in SAMPLE_BOOKS:
        document = sample_book if book.file_name == sample_book.name else read_document(book.path)
        assert (document.document_id, document.page_count) == (book.document_id, book.page_count)
        assert document.text_characters == book.text_characters
