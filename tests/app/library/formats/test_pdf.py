"""PDFs: encryption, labels, scans, damage."""

import random
from pathlib import Path

import pytest

from app.library import (
    DamagedDocumentError,
    DocumentError,
    EmptyDocumentError,
    NoTextError,
    PasswordRequired,
    ReadLimitExceeded,
    WrongPassword,
    read_document,
)

pypdf = pytest.importorskip("pypdf")


def test_encrypted_file_asks_for_its_password(make_pdf):
    path = make_pdf([["Secret words."]], password="sésame")
    with pytest.raises(PasswordRequired, match='"made.pdf" is protected with a password'):
        read_document(path)
    with pytest.raises(WrongPassword, match='does not open "made.pdf"'):
        read_document(path, password="guess")
    assert read_document(path, password="sésame").document_pages[0].text == "Secret words."
    assert read_document(path, password="the owner").document_pages[0].text == "Secret words."


def test_file_that_only_forbids_printing_opens_without_a_password(make_pdf):
    path = make_pdf([["Open words."]], password="")
    assert read_document(path).document_pages[0].text == "Open words."
    assert read_document(path, password="needless").document_pages[0].text == "Open words."


def test_pages_keep_the_labels_of_the_pdf(make_pdf, tmp_path):
    from pypdf.constants import PageLabelStyle

    writer = pypdf.PdfWriter(clone_from=make_pdf([["Words."]] * 6))
    writer.set_page_label(0, 1, style=PageLabelStyle.LOWERCASE_ROMAN)
    writer.set_page_label(2, 3, style=PageLabelStyle.DECIMAL, start=7)
    writer.set_page_label(4, 5, style=PageLabelStyle.DECIMAL, prefix="A-")
    writer.write(tmp_path / "labelled.pdf")
    document = read_document(tmp_path / "labelled.pdf")
    assert [page.page_label for page in document.document_pages] == ["i", "ii", "7", "8", "A-1", "A-2"]


def test_lines_of_a_paragraph_are_joined_and_the_printed_number_goes(make_pdf):
    lines = [
        "It was the best of times and it was the worst of times, the age",
        "of wisdom and the age of foolishness, it was the epoch of belief,",
        "it was the epoch of incredulity, and a season of light and dark-",
        "ness came.",
        "Then it was the spring of hope, and it was the winter of despair,",
        "and we had everything.",
        "1",
    ]
    text = read_document(make_pdf([lines])).document_pages[0].text
    assert text.split("\n") == [
        "It was the best of times and it was the worst of times, the age of wisdom and the age of foolishness, it was "
        "the epoch of belief, it was the epoch of incredulity, and a season of light and darkness came.",
        "Then it was the spring of hope, and it was the winter of despair, and we had everything.",
    ]


def test_scan_without_text_says_what_to_do(make_pdf):
    with pytest.raises(NoTextError, match=r'"made.pdf" holds no text.*ocrmypdf'):
        read_document(make_pdf([[], []]))


def test_scan_with_a_typed_cover_is_still_a_scan(make_pdf):
    with pytest.raises(NoTextError, match="text on only 1 of its 30 pages"):
        read_document(make_pdf([["Scanned by a library."], *[[]] * 29]))


def test_some_pages_without_text_are_kept_in_their_place(make_pdf):
    document = read_document(make_pdf([[], ["A picture was here."], []]))
    assert [page.text for page in document.document_pages] == ["", "A picture was here.", ""]
    assert document.unreadable_pages == ()


def test_pdf_without_pages_is_empty(tmp_path):
    pypdf.PdfWriter().write(tmp_path / "none.pdf")
    with pytest.raises(EmptyDocumentError, match='"none.pdf" has no pages'):
        read_document(tmp_path / "none.pdf")


def tear_pages(path: Path, *indexes: int) -> Path:
    """Make pages of a PDF unreadable: what they hold is noise, packed in a way that nobody knows."""
    writer = pypdf.PdfWriter(clone_from=path)
    for index in indexes:
        contents = writer.pages[index]["/Contents"].get_object()
        contents.set_data(random.Random(index).randbytes(200))
        contents[pypdf.generic.NameObject("/Filter")] = pypdf.generic.NameObject("/NoSuchDecode")
    writer.write(path)
    return path


def test_one_bad_page_does_not_cost_the_others(make_pdf):
    path = tear_pages(make_pdf([["One."], ["Two."], ["Three."]]), 1)
    document = read_document(path)
    assert [page.text for page in document.document_pages] == ["One.", "", "Three."]
    assert document.unreadable_pages == ("2",)


def test_file_of_which_all_pages_fail_is_damaged(make_pdf):
    with pytest.raises(DamagedDocumentError, match='"made.pdf" is damaged'):
        read_document(tear_pages(make_pdf([["One."], ["Two."]]), 0, 1))


@pytest.mark.parametrize(
    ("content", "filters", "limit"),
    [
        (b"\x81a" * 700_000, ["/RunLengthDecode"], "a part of it unpacks to more than 75 MB"),
        (b"", ["/FlateDecode"] * 20, "maximum filter count 16 exceeded"),
    ],
)
def test_file_beyond_a_limit_of_the_pdf_reader_is_not_called_damaged(make_pdf, tmp_path, content, filters, limit):
    from pypdf.generic import ArrayObject, NameObject

    writer = pypdf.PdfWriter(clone_from=make_pdf([["Words."]]))
    stream = writer.pages[0]["/Contents"].get_object()
    stream.set_data(content)
    stream[NameObject("/Filter")] = ArrayObject(map(NameObject, filters))
    writer.write(tmp_path / "limits.pdf")
    with pytest.raises(ReadLimitExceeded, match=f'"limits.pdf" goes beyond.*{limit}.*Split it into parts'):
        read_document(tmp_path / "limits.pdf")


@pytest.mark.parametrize("kept_share", [0.02, 0.5, 0.97])
def test_truncated_file_is_damaged(sample_book_path, tmp_path, kept_share):
    data = sample_book_path.read_bytes()
    path = tmp_path / "cut.pdf"
    path.write_bytes(data[: int(len(data) * kept_share)])
    with pytest.raises(DamagedDocumentError, match='"cut.pdf"'):
        read_document(path)


def test_flipped_bytes_give_a_document_or_a_clear_error(sample_book_path, tmp_path):
    generator = random.Random(2406)
    for trial in range(12):
        data = bytearray(sample_book_path.read_bytes())
        for _ in range(10 ** (1 + trial % 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path = tmp_path / f"flipped{trial}.pdf"
        path.write_bytes(bytes(data))
        try:
            document = read_document(path)
        except DocumentError as error:
            assert path.name in error.message
        else:
            assert document.text_characters > 0


def test_garbage_behind_a_header_is_damaged(tmp_path):
    path = tmp_path / "garbage.pdf"
    path.write_bytes(b"%PDF-1.7\n" + random.Random(1).randbytes(20_000))
    with pytest.raises(DamagedDocumentError, match='"garbage.pdf" is damaged'):
        read_document(path)
