"""Texts in memory: one object each, and none that was made of what is no more."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from app.library.document import Document
from app.library.document_texts import _KEPT_DOCUMENTS, DocumentTexts


@pytest.fixture
def texts() -> DocumentTexts:
    return DocumentTexts()


def made(document_id: str = "one") -> Document:
    return Document(document_id, "one.txt", Path("one.txt"), ())


def never() -> Document:
    raise AssertionError("it was made already")


def test_a_text_is_one_object_for_all(texts):
    document = texts.find_or_make("one", made)
    assert texts.find_or_make("one", never) is document
    assert texts.find_or_make("other", lambda: made("other")) is not document


def test_two_who_make_it_at_once_get_the_same(texts):
    both = threading.Barrier(2)
    found = []

    def make() -> Document:
        both.wait(10)
        return made()

    threads = [threading.Thread(target=lambda: found.append(texts.find_or_make("one", make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found[0] is found[1]


def test_what_was_forgotten_while_it_was_made_is_made_again(texts):
    old, new = made(), made()

    def make() -> Document:
        if make.calls:
            return new
        make.calls += 1
        texts.forget("one")
        return old

    make.calls = 0
    assert texts.find_or_make("one", make) is new
    texts.forget("one")
    assert texts.find_or_make("one", made) is not new


def test_what_cannot_be_made_is_asked_for_again(texts):
    with pytest.raises(AssertionError, match="already"):
        texts.find_or_make("one", never)
    assert texts.find_or_make("one", made).document_id == "one"


def test_those_that_nobody_holds_stay_for_a_while(texts):
    held = texts.find_or_make("held", lambda: made("held"))
    texts.find_or_make("kept", lambda: made("kept"))
    for number in range(_KEPT_DOCUMENTS - 1):
        texts.find_or_make(str(number), lambda number=number: made(str(number)))
    assert texts.find_or_make("kept", never).document_id == "kept"
    texts.find_or_make("last", lambda: made("last"))
    gc.collect()
    assert texts.find_or_make("held", never) is held
    with pytest.raises(AssertionError, match="already"):
        texts.find_or_make("kept", never)
