"""Documents as llama-index documents, also through llama-index's own directory reader."""

import pytest

from app.library import DocumentReader, PasswordRequired, UnsupportedFormatError

pytest.importorskip("llama_index.core")


def test_one_llama_index_document_for_each_page(sample_book_path, sample_book):
    pages = DocumentReader().load_data(sample_book_path)
    assert [page.text for page in pages] == [page.text for page in sample_book.document_pages]
    assert pages[0].metadata["page_label"] == "i" and pages[1].metadata["page_label"] == "1"
    assert [page.metadata["page_index"] for page in pages] == list(range(len(pages)))
    assert {page.metadata["file_name"] for page in pages} == {"the-happy-prince.pdf"}
    assert {page.metadata["document_id"] for page in pages} == {sample_book.document_id}
    assert len({page.id_ for page in pages}) == len(pages)


def test_directory_reader_takes_it_for_its_formats(make_pdf):
    from llama_index.core import SimpleDirectoryReader

    path = make_pdf([["Words on a page."], ["Words on another."]])
    reader = SimpleDirectoryReader(input_files=[str(path)], file_extractor={".pdf": DocumentReader()})
    pages = reader.load_data()
    assert [page.text for page in pages] == ["Words on a page.", "Words on another."]
    assert pages[1].metadata["page_label"] == "2" and "file_size" in pages[1].metadata


def test_password_is_handed_on(make_pdf):
    path = make_pdf([["Secret words."]], password="sesame")
    with pytest.raises(PasswordRequired):
        DocumentReader().load_data(path)
    assert DocumentReader(password="sesame").load_data(path)[0].text == "Secret words."


def test_errors_are_those_of_the_library(tmp_path):
    (tmp_path / "a.xls").write_bytes(b"PK\x03\x04")
    with pytest.raises(UnsupportedFormatError):
        DocumentReader().load_data(tmp_path / "a.xls")
