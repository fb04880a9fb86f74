"""Pages of PDFs that are pictures: which are, which are not, and what the user is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.library import NoTextError, left_out_note, page_notes, read_document

pypdf = pytest.importorskip("pypdf")

IMAGE = b"q 300 0 0 400 60 90 cm /Picture Do Q"
INLINE_IMAGE = b"q 90 0 0 90 0 0 cm BI /W 8 /H 8 /CS /G /BPC 8 ID " + bytes(range(64, 128)) + b" EI Q"


@pytest.fixture
def make_drawn_pdf(make_pdf, tmp_path: Path) -> Callable[..., Path]:
    """Return `make_drawn_pdf(*contents)`: a page of words, then a page for each content stream.

    The pages can draw /Picture (an image of 8 by 8), /Spacer (of 1 by 1) and /Form (which draws /Picture).
    """
    from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject, NumberObject

    def names(**values):
        return DictionaryObject({NameObject(f"/{name}"): value for name, value in values.items()})

    def image(side: int):
        picture = DecodedStreamObject()
        picture.set_data(bytes(side * side))
        kind = {"Type": "/XObject", "Subtype": "/Image", "ColorSpace": "/DeviceGray"}
        sizes = {"Width": side, "Height": side, "BitsPerComponent": 8}
        picture.update(names(**{name: NameObject(value) for name, value in kind.items()}))
        picture.update(names(**{name: NumberObject(value) for name, value in sizes.items()}))
        return picture

    def make(*contents: bytes) -> Path:
        writer = pypdf.PdfWriter(clone_from=make_pdf([["First words."], *[[]] * len(contents)]))
        picture, spacer = writer._add_object(image(8)), writer._add_object(image(1))
        form = DecodedStreamObject()
        form.set_data(b"/Inner Do")
        form.update(
            names(
                Type=NameObject("/XObject"),
                Subtype=NameObject("/Form"),
                BBox=ArrayObject(map(NumberObject, (0, 0, 420, 595))),
                Resources=names(XObject=names(Inner=picture)),
            )
        )
        objects = names(Picture=picture, Spacer=spacer, Form=writer._add_object(form))
        for page, content in zip(writer.pages[1:], contents, strict=True):
            page["/Contents"].get_object().set_data(content)
            page["/Resources"][NameObject("/XObject")] = objects
        writer.write(tmp_path / "drawn.pdf")
        return tmp_path / "drawn.pdf"

    return make


@pytest.mark.parametrize(
    "content",
    [
        IMAGE,
        INLINE_IMAGE,
        b"/Form Do",
        b"0.2 g 50 50 200 100 re f",
        b"10 10 m 200 300 l 300 20 l h S",
        b"100 100 m 100 200 200 200 200 100 c B",
        b"1 g 0 0 420 595 re f 0 g 50 50 m 90 200 l 120 80 l f",
        b"q 1 g Q 50 50 200 100 re f",
        # A picture above nothing but its page number, which is not text.
        IMAGE + b" BT /F1 9 Tf 200 20 Td (2) Tj ET",
        IMAGE + b" BT /F1 9 Tf 200 20 Td (  ) Tj ET",
    ],
)
def test_a_page_that_only_shows_something_is_a_picture(make_drawn_pdf, content):
    document = read_document(make_drawn_pdf(content))
    assert document.picture_pages == ("2",)
    assert document.unreadable_pages == ()
    assert document.document_pages[1].text == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"q 0 0 420 595 re W* n Q",
        b"1 1 1 rg 0 0 420 595 re f",
        b"0 0 0 0 k 0 0 420 595 re f*",
        # Word's blank pages show blanks; headers are ruled off.
        b"BT /F1 11 Tf 40 550 Td ( ) Tj ET",
        b"0 g 40 560 340 0.5 re f 40 30 m 380 30 l S",
        b"/Spacer Do",
        IMAGE + b" BT /F1 11 Tf 40 550 Td (Figure 3: a swallow) Tj ET",
    ],
)
def test_blank_pages_and_pictures_with_words_are_not(make_drawn_pdf, content):
    document = read_document(make_drawn_pdf(content))
    assert document.picture_pages == () == document.unreadable_pages


def test_an_image_that_the_page_does_not_draw_is_no_picture(make_drawn_pdf):
    # All pages share their resources: what counts is what a page draws.
    document = read_document(make_drawn_pdf(b"", IMAGE, b""))
    assert document.picture_pages == ("3",)


def test_pictures_are_counted_and_a_few_are_named(make_drawn_pdf):
    one, two, many = (read_document(make_drawn_pdf(*[IMAGE] * count)) for count in (1, 2, 7))
    assert page_notes(one) == ["page 2 is a picture: its text cannot be read"]
    assert page_notes(two) == ["2 pages are pictures: their text cannot be read (pages 2 and 3)"]
    assert page_notes(many) == ["7 pages are pictures: their text cannot be read (pages 2, 3, 4 and 4 more)"]
    assert left_out_note([one]) == "1 page that is a picture"
    assert left_out_note([one, many]) == "8 pages that are pictures"


def test_a_book_with_few_pages_of_text_is_still_a_scan(make_drawn_pdf):
    with pytest.raises(NoTextError, match="text on only 1 of its 30 pages"):
        read_document(make_drawn_pdf(*[IMAGE] * 29))
