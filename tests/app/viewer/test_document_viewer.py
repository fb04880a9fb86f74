"""Pages of real PDFs as pictures, and where passages stand on them, through real render processes."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import Future
from pathlib import Path

import pypdf
import pytest
from PIL import Image
from pypdf.annotations import FreeText
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, RectangleObject, TextStringObject

from app.errors import UserFacingError
from app.library import read_document
from app.viewer.errors import LockedError, RenderError

SAMPLE_BOOK = Path(__file__).parents[3] / "assets" / "books" / "the-happy-prince.pdf"
WAIT_S = 30
LINES = ["The harbour lay still in the morning", "and the boats came home", "one after the other"]
TEXT = "\n".join(LINES)


def waited(future: Future):
    return future.result(WAIT_S)


def picture(image: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(image))
    assert opened.format == "JPEG"
    return opened


def dark_share(image: Image.Image, box: tuple[float, float, float, float]) -> float:
    """Of the dark pixels of a picture those within a box."""
    dark = image.convert("L").point(lambda value: 255 * (value < 128))
    left, top, right, bottom = box
    inside = dark.crop(
        (
            int(left * image.width) - 1,
            int(top * image.height) - 1,
            round(right * image.width) + 1,
            round(bottom * image.height) + 1,
        )
    )
    return inside.histogram()[255] / dark.histogram()[255]


def test_a_page_comes_in_the_next_width_and_is_kept(viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([LINES, LINES]), TEXT, TEXT)
    assert [picture(waited(viewer.image(document_id, 0, width))).width for width in (-3, 1, 161, 800, 99999)] == [
        160,
        160,
        320,
        800,
        2400,
    ]
    assert viewer.image(document_id, 0, 700).done()
    viewer.forget(document_id)
    assert not viewer.image(document_id, 0, 700).done()


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((1, 1), (800, 800)), ((14400, 14400), (800, 800)), ((14400, 1), (800, 1)), ((1, 14400), (1, 10_000))],
)
def test_pages_of_any_size_have_a_picture_of_a_sane_one(viewer, shelf, make_pdf, size, drawn):
    document_id = shelf.add(make_pdf(["0 0 9 9 re f"], size), "x")
    told = waited(viewer.description(document_id))
    assert (told["pages"][0]["width"], told["pages"][0]["height"]) == size
    assert picture(waited(viewer.image(document_id, 0, 800))).size == drawn


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_marks_stand_where_the_words_are_drawn(viewer, shelf, make_pdf, turned):
    # Black are only the words that are looked for.
    content = "BT 0.8 g /F1 18 Tf 60 400 Td (Every other word is grey, but ) Tj 0 g (these) Tj 0.8 g ( are not.) Tj ET"
    text = "Every other word is grey, but these are not."
    document_id = shelf.add(make_pdf([content], rotate=turned), text)
    told = waited(viewer.description(document_id))["pages"][0]
    image = picture(waited(viewer.image(document_id, 0, 1600)))
    assert image.width / image.height == pytest.approx(told["width"] / told["height"], rel=0.01)
    (box,) = waited(viewer.marks(document_id, 0, text.index("these"), text.index(" are")))
    assert dark_share(image, box) > 0.99
    assert (box[2] - box[0]) * (box[3] - box[1]) < 0.005


def test_marks_allow_for_the_cut_of_a_page(viewer, shelf, make_pdf, tmp_path):
    content = "BT 0.8 g /F1 18 Tf 60 400 Td (Only ) Tj 0 g (this) Tj 0.8 g ( is black.) Tj ET"
    writer = pypdf.PdfWriter(clone_from=make_pdf([content]))
    writer.pages[0].cropbox = RectangleObject((40, 300, 300, 450))
    writer.write(tmp_path / "cut.pdf")
    document_id = shelf.add(tmp_path / "cut.pdf", "Only this is black.")
    (box,) = waited(viewer.marks(document_id, 0, 5, 9))
    assert dark_share(picture(waited(viewer.image(document_id, 0, 1600))), box) > 0.99


def test_the_sample_book_is_marked_word_for_word(viewer, shelf):
    book = read_document(SAMPLE_BOOK)
    document_id = shelf.add(SAMPLE_BOOK, *(page.text for page in book.document_pages))
    text = book.document_pages[4].text
    boxes = waited(viewer.marks(document_id, 4, 0, len(text)))
    # As many as it has lines, from the top to the bottom.
    assert 25 < len(boxes) < 45
    assert [box[1] for box in boxes] == sorted(box[1] for box in boxes)
    start = text.index("I did not know what tears were")
    (box,) = waited(viewer.marks(document_id, 4, start, start + len("I did not know what tears were")))
    assert box[0] < 0.6 < box[2]


def test_a_table_that_is_drawn_by_columns_is_marked_by_rows(viewer, shelf, make_pdf):
    rows = [("Port", "In", "Out"), ("Oslo", "12", "7"), ("Riga", "7", "31"), ("Kiel", "12", "12"), ("Bari", "5", "7")]
    cells = [
        f"1 0 0 1 {60 + 90 * column} {500 - 20 * number} Tm ({row[column]}) Tj"
        for column in range(3)
        for number, row in enumerate(rows)
    ]
    text = "\n".join(" | ".join(row) for row in rows)
    document_id = shelf.add(make_pdf([f"BT /F1 11 Tf {' '.join(cells)} ET"]), text)
    for number, row in enumerate(rows):
        start = text.index(" | ".join(row))
        boxes = waited(viewer.marks(document_id, 0, start, start + len(" | ".join(row))))
        # One a cell, beside each other.
        assert [round((box[0] * 420 - 60) / 90) for box in boxes] == [0, 1, 2]
        assert all(box[1] * 595 < 95 + 20 * number < box[3] * 595 for box in boxes)


def test_a_text_that_is_not_on_the_page_has_no_marks(viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([LINES, ""]), "Recognised in a picture, this stands nowhere.", TEXT)
    assert waited(viewer.marks(document_id, 0, 0, 45)) == []
    assert waited(viewer.marks(document_id, 1, 0, 45)) == []


def test_a_locked_file_says_so_and_one_that_only_forbids_printing_is_shown(viewer, shelf, make_pdf):
    locked = shelf.add(make_pdf([LINES], name="locked.pdf", user_password="sesame"), TEXT)
    told = waited(viewer.description(locked))
    assert (told["kind"], told["can_render"], told["page_count"]) == ("pdf", False, 1)
    assert "password" in told["message"]
    with pytest.raises(LockedError, match="password"):
        waited(viewer.image(locked, 0, 800))
    assert waited(viewer.marks(locked, 0, 0, 9)) == []
    assert viewer.text(locked, 0) == TEXT
    owned = shelf.add(make_pdf([LINES], name="owned.pdf", user_password="", owner_password="owner"), TEXT)
    assert waited(viewer.description(owned))["can_render"]
    assert picture(waited(viewer.image(owned, 0, 800))).width == 800
    assert len(waited(viewer.marks(owned, 0, 0, len(TEXT)))) == len(LINES)


def test_a_file_that_is_gone_or_damaged_says_so(viewer, shelf, make_pdf, tmp_path):
    gone = shelf.add(tmp_path / "gone.pdf", TEXT)
    told = waited(viewer.description(gone))
    assert (told["kind"], told["can_render"]) == ("pdf", False)
    assert "gone" in told["message"]
    (tmp_path / "damaged.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 20)
    damaged = shelf.add(tmp_path / "damaged.pdf", TEXT)
    assert "damaged" in waited(viewer.description(damaged))["message"]
    with pytest.raises(RenderError, match="damaged"):
        waited(viewer.image(damaged, 0, 800))
    # A reader that is more lenient has found more pages than can be shown.
    short = shelf.add(make_pdf([LINES]), TEXT, TEXT)
    assert [page["width"] for page in waited(viewer.description(short))["pages"]] == [420, 0]
    with pytest.raises(RenderError, match="no such page"):
        waited(viewer.image(short, 1, 800))


def test_what_is_wrong_with_pages_is_told(viewer, shelf, make_pdf):
    # Two pages are called "1"; only the one without text is a picture.
    wrong = {"picture_pages": ("1", "2"), "unreadable_pages": ("3",)}
    wrong |= {"garbled_pages": ("4",), "recognised_pages": ("5",)}
    document_id = shelf.add(make_pdf([LINES] + [""] * 4), TEXT, "", "", "", "Recognised.", **wrong)
    notes = [page["note"] for page in waited(viewer.description(document_id))["pages"]]
    assert notes == ["", "picture", "unreadable", "garbled", "recognised"]


def test_other_formats_are_text_whatever_they_are_called(viewer, shelf, make_pdf, tmp_path):
    path = tmp_path / "story.md"
    path.write_text(TEXT, encoding="utf-8")
    told = waited(viewer.description(shelf.add(path, TEXT)))
    assert (told["kind"], told["can_render"], told["message"]) == ("text", False, "")
    shutil.copy(make_pdf([LINES]), tmp_path / "really.txt")
    assert waited(viewer.description(shelf.add(tmp_path / "really.txt", TEXT)))["kind"] == "pdf"


def test_what_is_not_there_is_refused(viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([LINES]), TEXT)
    for page_index in (-1, 1):
        with pytest.raises(UserFacingError, match="no page"):
            viewer.image(document_id, page_index, 800)
        with pytest.raises(UserFacingError, match="no page"):
            viewer.marks(document_id, page_index, 0, 1)
    with pytest.raises(UserFacingError, match="shelf"):
        viewer.description("f" * 32)


def test_letters_that_are_drawn_twice_to_look_bold_are_marked_once(viewer, shelf, make_pdf):
    bold = " ".join(
        f"1 0 0 1 {60 + 9 * number + shift} 500 Tm ({letter}) Tj"
        for number, letter in enumerate("hello all")
        for shift in (0, 0.3)
    )
    document_id = shelf.add(make_pdf([f"BT /F1 11 Tf {bold} ET"]), "hello all")
    (box,) = waited(viewer.marks(document_id, 0, 6, 9))
    assert (box[0] * 420, box[2] * 420) == (pytest.approx(114, abs=2), pytest.approx(135, abs=2))


def test_what_was_filled_in_is_marked_by_its_field(viewer, shelf, make_pdf, tmp_path):
    writer = pypdf.PdfWriter(clone_from=make_pdf([["Name:", "Town:"]]))
    field = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Annot"),
            NameObject("/Subtype"): NameObject("/Widget"),
            NameObject("/FT"): NameObject("/Tx"),
            NameObject("/T"): TextStringObject("name"),
            NameObject("/V"): TextStringObject("Oscar Wilde"),
            NameObject("/Rect"): RectangleObject((84, 546, 210, 560)),
        }
    )
    added = writer._add_object(field)
    writer.pages[0][NameObject("/Annots")] = ArrayObject([added])
    form = DictionaryObject({NameObject("/Fields"): ArrayObject([added])})
    writer._root_object[NameObject("/AcroForm")] = form
    writer.add_annotation(0, FreeText(text="Dublin", rect=(84, 532, 210, 544)))
    writer.write(tmp_path / "form.pdf")
    text = "Name: Oscar Wilde\nTown: Dublin"
    document_id = shelf.add(tmp_path / "form.pdf", text)
    for words, top in (("Oscar Wilde", 560), ("Dublin", 544)):
        start = text.index(words)
        (box,) = waited(viewer.marks(document_id, 0, start, start + len(words)))
        assert (box[0] * 420, 595 - box[1] * 595) == (pytest.approx(84, abs=1), pytest.approx(top, abs=1))
