"""The library as a reader of llama-index: texts, ids, metadata, and what is refused."""

from __future__ import annotations

import asyncio
import logging

import pytest
from llama_index.core.schema import MetadataMode

from app.errors import UserFacingError
from app.library.sample_books import SAMPLE_BOOKS

BOOK = SAMPLE_BOOKS[0]


def test_a_text_is_a_document_page(quest):
    texts = quest.reader.load_data([BOOK.document_id])
    document = quest.assistant.library.document(BOOK.document_id)
    pages = [page for page in document.document_pages if page.text.strip()]
    assert [text.text for text in texts] == [page.text for page in pages]
    assert texts[-1].metadata == {
        "document_id": BOOK.document_id,
        "name": BOOK.file_name,
        "file_name": BOOK.file_name,
        "page_label": pages[-1].page_label,
        "page_index": pages[-1].index,
    }
    assert texts[-1].doc_id == f"{BOOK.document_id}:{pages[-1].index}"
    assert (
        texts[-1]
        .get_content(MetadataMode.LLM)
        .startswith(f"name: {BOOK.file_name}\npage_label: {pages[-1].page_label}\n\n")
    )


def test_a_text_is_a_whole_document(quest):
    (text,) = quest.reader.load_data([BOOK.document_id], per="document")
    pages = quest.reader.load_data([BOOK.document_id])
    assert text.doc_id == BOOK.document_id and text.text == "\n\n".join(page.text for page in pages)
    assert text.metadata["page_count"] == BOOK.page_count


def test_all_documents_are_read_and_ids_are_those_of_the_library(quest):
    texts = asyncio.run(quest.reader.aload_data(per="document"))
    assert {text.doc_id: text.metadata["name"] for text in texts} == quest.reader.list_resources()
    assert len(texts) == 2


def test_wrong_calls_are_refused_before_anything_is_read(quest):
    with pytest.raises(UserFacingError, match='no document "nowhere".*list_resources'):
        quest.reader.lazy_load_data([BOOK.document_id, "nowhere"])
    with pytest.raises(UserFacingError, match="must be a list"):
        quest.reader.lazy_load_data(BOOK.document_id)
    with pytest.raises(UserFacingError, match="per must be"):
        quest.reader.lazy_load_data(per="chapter")


def test_what_cannot_be_read_is_left_out_of_all_and_refused_if_chosen(quest, tmp_path, caplog):
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.7\nnothing else")
    with pytest.raises(UserFacingError, match="broken.pdf"):
        quest.add(path)
    (broken,) = (entry for entry in quest.assistant.library.entries() if entry.name == "broken.pdf")
    try:
        with caplog.at_level(logging.WARNING):
            assert all(text.metadata["name"] != "broken.pdf" for text in quest.reader.load_data())
        assert "broken.pdf is left out" in caplog.text
        with pytest.raises(UserFacingError, match="broken.pdf"):
            quest.reader.load_data([broken.document_id])
    finally:
        quest.assistant.delete_document(broken.document_id)
