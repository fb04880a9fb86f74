"""The library as a retriever of llama-index: which passages, their places and scores, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import UserFacingError
from app.library.chunk_index import chunk_index
from app.library.sample_books import SAMPLE_BOOKS

BOOK = SAMPLE_BOOKS[0].document_id


def test_nodes_are_the_passages_of_the_apps_own_search_with_scores(quest):
    question = "Where did the Swallow want to fly?"
    nodes = quest.retriever([BOOK], similarity_top_k=3).retrieve(question)
    document = quest.assistant.library.document(BOOK)
    hits = chunk_index([document]).hits(question)[:3]
    assert [(node.metadata["page_index"], node.metadata["start_char"]) for node in nodes] == [
        (hit.page_index, hit.start_char) for hit in hits
    ]
    assert [node.score for node in nodes] == sorted((node.score for node in nodes), reverse=True)
    for node in nodes:
        page = document.document_pages[node.metadata["page_index"]]
        assert node.text == page.text[node.metadata["start_char"] : node.metadata["end_char"]]
        assert node.metadata["page_label"] == page.page_label and node.score > 0
        assert node.node.source_node.node_id in {text.doc_id for text in quest.reader.load_data([BOOK])}


def test_all_documents_compete_unless_some_are_chosen(quest):
    question = "What is the lighthouse keeper called?"
    assert quest.retriever(similarity_top_k=1).retrieve(question)[0].metadata["name"] == "harbour.txt"
    chosen = quest.retriever([BOOK]).retrieve(question)
    assert all(node.metadata["document_id"] == BOOK for node in chosen)
    (same,) = asyncio.run(quest.retriever(similarity_top_k=1).aretrieve(question))
    assert same.metadata["name"] == "harbour.txt"


@pytest.mark.parametrize("question", ["", "zyzzyva", "the of and", "\ud800", "?" * 10_000])
def test_a_question_without_words_of_the_documents_finds_nothing(quest, question):
    assert quest.retriever().retrieve(question) == []


def test_a_document_that_is_added_later_is_found(quest, tmp_path):
    path = tmp_path / "later.txt"
    path.write_text("The quagga grazes behind the chapel.", encoding="utf-8")
    retriever = quest.retriever()
    assert retriever.retrieve("Where does the quagga graze?") == []
    added = quest.add(str(path))
    try:
        assert retriever.retrieve("Where does the quagga graze?")[0].metadata["name"] == "later.txt"
    finally:
        quest.assistant.delete_document(added.document_id)


def test_wrong_arguments_are_refused(quest):
    with pytest.raises(UserFacingError, match='no document "nowhere"'):
        quest.retriever(["nowhere"])
    with pytest.raises(UserFacingError, match="must be a list"):
        quest.retriever(BOOK)
    with pytest.raises(UserFacingError, match="from 1 on, not 0"):
        quest.retriever(similarity_top_k=0)
    with pytest.raises(UserFacingError, match="not 'all'"):
        quest.retriever(similarity_top_k="all")
