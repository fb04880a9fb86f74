"""Text and Markdown files: pages, and the encoding that was assumed."""

import pytest

from app.library import addition_notes, encoding_note, read_document


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


@pytest.mark.parametrize(
    ("name", "data", "words", "note"),
    [
        ("russian.txt", "Высоко над городом стояла статуя Принца, и все восхищались.".encode("koi8-r"), "Высоко", ""),
        ("chinese.md", f"# 快乐王子\n{'雕像高高地耸立在城市上空的石柱上面。' * 4}".encode("gbk"), "# 快乐王子", ""),
        ("table.txt", "id;name\n1;Élancée\n2;Château\n".encode("mac_roman"), "1;Élancée", ""),
        ("page.html", "<p>Тра-ля-ля, <b>статуя</b> Принца, и все им восхищались".encode("cp1251"), "-ля, статуя П", ""),
        ("short.txt", b"El ni\xf1o", "El niño", "encoding not certain, read as Windows-1252"),
    ],
)
def test_encoding_is_found_and_told_if_it_is_a_guess(tmp_path, name, data, words, note):
    (tmp_path / name).write_bytes(data)
    document = read_document(tmp_path / name)
    assert words in document.document_pages[0].text
    assert encoding_note(document) == note
    assert addition_notes(document, []) == ([f"{name}: {note}."] if note else [])
