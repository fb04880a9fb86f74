"""What is said of pages without text, or with one that may be wrong."""

from pathlib import Path

import pytest

from app.library import Document, DocumentPage, left_out_note, page_notes


def document(**flags) -> Document:
    return Document("0" * 32, "a.pdf", Path("a.pdf"), (DocumentPage(0, "1", "words"),), **flags)


@pytest.mark.parametrize(
    ("flags", "notes"),
    [
        ({}, []),
        ({"garbled_pages": ("3",)}, ["the text layer of page 3 is unreadable: text recognition (OCR) is needed"]),
        (
            {"garbled_pages": ("3", "4", "5", "6")},
            ["the text layers of 4 pages are unreadable: text recognition (OCR) is needed (pages 3, 4, 5 and 1 more)"],
        ),
        ({"recognised_pages": ("2",)}, ["page 2 was recognised in a picture (OCR) and may have errors"]),
        ({"recognised_pages": ("2", "5")}, ["pages 2 and 5 were recognised in pictures (OCR) and may have errors"]),
    ],
)
def test_pages_are_named(flags, notes):
    assert page_notes(document(**flags)) == notes


def test_garbled_pages_are_not_in_context():
    note = left_out_note([document(garbled_pages=("3",), picture_pages=("4",), unreadable_pages=("5",))])
    assert note == "1 page that is a picture and 2 pages that are unreadable"
