"""Searching within a document."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.library import Document, DocumentPage
from app.viewer.document_search import DocumentSearch, folded


def document_of(*texts: str) -> Document:
    pages = tuple(DocumentPage(index, f"p{index}", text) for index, text in enumerate(texts))
    return Document("d" * 32, "made.txt", Path("made.txt"), pages)


def hits_of(words: str, *texts: str, limit: int = 100) -> list[tuple[int, str]]:
    document = document_of(*texts)
    hits, _ = DocumentSearch().search(document, words, limit)
    return [(hit.page_index, texts[hit.page_index][hit.start_char : hit.end_char]) for hit in hits]


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("happy prince", "the HAPPY\nPrince", "HAPPY\nPrince"),
        ("happy  prince ", "The Happy Prince.", "Happy Prince"),
        ("etude", "Une Étude", "Étude"),
        ("ÉTUDE", "une etude", "etude"),
        ("don't", "they don’t know", "don’t"),
        ("sword-hilt", "his sword‑hilt", "sword‑hilt"),
        ("a.b(c)*", "see a.b(c)* here", "a.b(c)*"),
        ("tall col", "on a tall column", "tall col"),
        ("東京", "私は東京に住む", "東京"),
        ("Straße", "die STRAßE", "STRAßE"),
    ],
)
def test_words_are_found_whatever_their_form(words, text, found):
    assert hits_of(words, text) == [(0, found)]


@pytest.mark.parametrize("words", ["", "  \n", "prince happy", "a.c"])
def test_other_words_are_not_found(words):
    assert hits_of(words, "the Happy Prince, abc") == []


def test_hits_come_in_the_order_of_the_document_and_no_more_than_wanted():
    texts = ["one two one", "", "Öne", "one"]
    assert hits_of("one", *texts) == [(0, "one"), (0, "one"), (2, "Öne"), (3, "one")]
    search, document = DocumentSearch(), document_of(*texts)
    assert search.search(document, "one", 4)[1] is False
    hits, more = search.search(document, "one", 3)
    assert (len(hits), more, hits[2].page_label) == (3, True, "p2")
    assert len(search.search(document, "one", -1)[0]) == 1


def test_a_snippet_has_whole_words_around_the_hit():
    text = " ".join(f"word{number}" for number in range(100))
    (hit,) = DocumentSearch().search(document_of(text), "WORD50", 10)[0]
    assert "word50" in hit.snippet
    assert hit.snippet.startswith("…word4")
    assert hit.snippet.endswith("…")
    assert all(word.strip("…") in text.split() for word in hit.snippet.split())
    assert len(hit.snippet) < 180
    (short,) = DocumentSearch().search(document_of("the happy\nprince"), "happy", 10)[0]
    assert short.snippet == "the happy prince"


def test_folding_keeps_the_length():
    text = "İstanbul ﬁne Ǆ ŉ ΐ Å\u0301 𝔘 ß"
    assert len(folded(text)) == len(text)


def test_a_thousand_pages_are_searched_at_once():
    text = "Fräulein Müller über die Straße gegangen, " * 70
    document = document_of(*[f"{text}{number}" for number in range(1000)])
    search, began = DocumentSearch(), time.process_time()
    assert search.search(document, "nowhere at all", 100) == ([], False)
    # Measured: 0.2 s, and 0.03 s from then on.
    assert time.process_time() - began < 1.5
