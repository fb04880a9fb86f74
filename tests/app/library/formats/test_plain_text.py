"""Text and Markdown files: encodings and pages."""

import pytest

from app.library import read_document
from app.library.formats.plain_text import decode_text

WORDS = "Grüße – “naïve” café, 中文"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings_are_recognised(encoding):
    assert decode_text(WORDS.encode(encoding)) == WORDS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_by_its_mark(encoding):
    assert decode_text(("\ufeff" + WORDS).encode(encoding)) == WORDS


def test_other_bytes_are_windows_1252():
    assert decode_text("“Café” – 5 €".encode("cp1252")) == "“Café” – 5 €"
    # 0x81 means nothing in Windows-1252.
    assert decode_text(b"caf\xe9 \x81!") == "café \ufffd!"


@pytest.mark.parametrize("data", [b"\x00\x01\x02" * 100, b"MZ\x90\x00\x03" * 50, "no mark".encode("utf-16-le")])
def test_binary_content_is_refused(data):
    with pytest.raises(ValueError, match="binary"):
        decode_text(data)


def test_file_becomes_numbered_pages(tmp_path):
    paragraphs = [f"Paragraph {number}: " + "some words follow here. " * 20 for number in range(30)]
    path = tmp_path / "story.txt"
    path.write_bytes("\r\n\r\n".join(paragraphs).encode("cp1252"))
    document = read_document(path)
    assert [page.page_label for page in document.document_pages] == [str(n + 1) for n in range(document.page_count)]
    assert 4 <= document.page_count <= 6
    text = "\n\n".join(page.text for page in document.document_pages)
    assert text.split() == " ".join(paragraphs).split()
    assert all(page.text.startswith("Paragraph") for page in document.document_pages)


def test_markdown_keeps_its_marks_and_indentation(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("# Title\n\n- one\n  - two\n\n```\ndef f():\n\treturn 1\n```\n")
    (page,) = read_document(path).document_pages
    assert page.text == "# Title\n\n- one\n  - two\n\n```\ndef f():\n    return 1\n```"


def test_form_feeds_mark_pages(tmp_path):
    path = tmp_path / "printed.txt"
    path.write_text("Page one.\n\fPage two.\n\f\n\fPage four.")
    assert [page.text for page in read_document(path).document_pages] == ["Page one.", "Page two.", "Page four."]
