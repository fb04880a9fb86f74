"""Sentences of answers: abbreviations, quotations, lists, code, and scripts that end them otherwise."""

from __future__ import annotations

import time

import pytest

from app.evidence.sentences import split_sentences
from app.evidence.words import keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Darcy paid $3.50 (e.g. in Fig. 3). He left.", ["Mr. Darcy paid $3.50 (e.g. in Fig. 3).", "He left."]),
        ('"Who?" she asked. J. R. R. Tolkien knew.', ['"Who?" she asked.', "J. R. R. Tolkien knew."]),
        ("1. One\n2. Two. Three.\n\n- four\n# Five\nSix.", ["One", "Two.", "Three.", "four", "Five", "Six."]),
        ("A line\nbreak is no end. So.", ["A line\nbreak is no end.", "So."]),
        ("彼は来た。彼女は「はい」と言った。", ["彼は来た。", "彼女は「はい」と言った。"]),
        ("Он пришёл. Потом ушёл!", ["Он пришёл.", "Потом ушёл!"]),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
        ("هل جاء؟ نعم جاء.", ["هل جاء؟", "نعم جاء."]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    sentences = split_sentences(text)
    assert [sentence.text for sentence in sentences] == expected
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in sentences)


def test_code_of_an_answer_is_left_out_and_of_a_document_kept():
    text = "Before.\n```python\nx = 1. + 2.\n```\nAfter."
    assert [one.text for one in split_sentences(text, with_code=False)] == ["Before.", "After."]
    assert any("x = 1" in one.text for one in split_sentences(text))
    assert split_sentences("```\nnever closed. Really.", with_code=False) == []


@pytest.mark.parametrize("run", [". ", ".", ".a", "\n", "\t", " \n", "- ", "```\n", "1,", "(", "。", '…"', "#", "| "])
def test_no_text_takes_long(run):
    begin = time.perf_counter()
    for with_code in (False, True):
        split_sentences(run * 50_000 + "x", with_code)
    keys(run * 50_000)
    assert time.perf_counter() - begin < 10


def test_a_sentence_without_end_is_cut_and_quickly():
    pieces = split_sentences("word " * 100_000)
    assert max(len(piece.text) for piece in pieces) <= 600
    assert sum(piece.text.count("word") for piece in pieces) == 100_000


def test_the_last_sentence_of_a_text_has_come_to_its_end():
    assert [one.ends for one in split_sentences("All. Of it")] == [True, True]
