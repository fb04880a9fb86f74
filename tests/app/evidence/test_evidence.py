"""Passages for a question, and citations for an answer: what supports a sentence, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.evidence.evidence import Evidence
from app.evidence.source_lines import source_lines
from app.evidence.words import keys, terms
from app.library.document import Document, DocumentPage

FILLER = "The harbour lay still and the boats went out with the tide. Nobody spoke of the storm that had been. " * 8
FACTS = (
    "The lighthouse keeper Ida Marrow painted the door green in 1904.",
    "The bakery of Tobin Quill sold 27 loaves on a winter morning.",
    "En été, le phare de Kestrel est fermé aux visiteurs.",
    "灯台の扉は緑色に塗られた。",
    "यह प्रकाशस्तंभ बहुत पुराना है।",
)


@pytest.fixture(scope="module")
def document() -> Document:
    pages = [DocumentPage(number, f"p{number}", f"{FILLER}{fact} {FILLER}") for number, fact in enumerate(FACTS)]
    return Document("d" * 32, "harbour.txt", Path("harbour.txt"), tuple(pages), title="The Harbour")


def cited(document: Document, question: str, answer: str, **options):
    return Evidence().support([document], question, answer, **options).citations()


def test_the_best_passage_of_a_question_is_short_and_where_it_says(document):
    found = Evidence().passages([document], "Who painted the door of the lighthouse?")
    best = found[0]
    assert FACTS[0] in best.text and len(best.text.split()) <= 60
    assert document.document_pages[best.page_index].text[best.start_char : best.end_char] == best.text
    assert (best.document, best.page_label) == ("The Harbour", "p0") and 0 < best.text_score <= 1
    assert Evidence().passages([document], "Quantum chromodynamics?") == ()
    assert Evidence().passages([], "Who?") == ()


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        ("In 1904 Ida Marrow gave the door green paint.", 0),
        ("Twenty-seven loaves were sold there by Tobin Quill in winter.", None),
        ("There were 27 loaves sold by Tobin Quill on a winter morning.", 1),
        ("Le phare de Kestrel est ferme en ete.", 2),
        ("灯台の扉は緑色だ。", 3),
        ("प्रकाशस्तंभ पुराना है।", 4),
    ],
)
def test_a_sentence_is_cited_from_the_page_that_says_it(document, answer, page):
    citations, unsupported = cited(document, "What is told?", answer)
    if page is None:
        # Twenty-seven is read as twenty and seven: rather no citation than a guess.
        assert not citations and len(unsupported) == 1
        return
    assert [citation.page_index for citation in citations] == [page] and not unsupported
    assert FACTS[page] in citations[0].text and answer == citations[0].sentence


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When was the door painted?", "Ida Marrow painted the door green in 1911."),
        ("Who painted the door?", "Wilma Fenn painted the door green in 1904."),
        ("What colour did Ida Marrow paint the lighthouse door?", "Ida Marrow painted the lighthouse door purple."),
        ("Who painted the door?", "The king of Norway owned a balloon."),
    ],
)
def test_a_sentence_with_another_number_name_or_answer_is_unsupported(document, question, answer):
    citations, unsupported = cited(document, question, answer)
    assert not citations
    assert [answer[one.start_char : one.end_char] for one in unsupported] == [answer]


@pytest.mark.parametrize("answer", ["Yes.", "I do not know.", "The document does not mention this.", "Нет.", "..."])
def test_a_sentence_that_says_nothing_gets_neither(document, answer):
    assert cited(document, "Is it?", answer) == ((), ())


def test_sentences_with_one_passage_share_its_number_and_the_broken_off_one_is_not_blamed(document):
    answer = f"{FACTS[0]} {FACTS[1]} The door was painted green by Ida Marrow in 1904. The king of Norw"
    citations, unsupported = cited(document, "", answer, is_whole=False)
    assert [citation.number for citation in citations] == [1, 2, 1] and not unsupported


def test_reads_stand_beside_the_text_and_decide_nothing(document):
    twice = [DocumentPage(number, str(number), f"{FILLER}{FACTS[0]}") for number in range(3)]
    twin = Document("e" * 32, "twin.txt", Path("twin.txt"), tuple(twice))
    support = Evidence().support([twin], "Who painted?", FACTS[0])
    (citation,), _ = support.citations(lambda start, end: {(twin.document_id, 2): 3.26, (twin.document_id, 0): 0.5})
    assert (citation.page_index, citation.read_score) == (0, 0.5)
    support = Evidence().support([document], "Who painted?", FACTS[0])
    (citation,), _ = support.citations(lambda start, end: {(document.document_id, 4): 9.0})
    assert (citation.page_index, citation.read_score) == (0, None)


def test_the_terminal_names_page_passage_and_signals(document):
    class Report:
        passages_found = Evidence().passages([document], "Who painted the door?")
        citations, unsupported = (
            Evidence()
            .support([document], "Who?", f"{FACTS[0]} The king of Norway owned a balloon.")
            .citations(lambda start, end: {(document.document_id, 0): 3.24})
        )

    first, second = source_lines(Report)
    assert first.startswith("① p. p0: ") and first.endswith("(text supports it; read 3.2x as much as usual)")
    assert second == 'Not found in the documents: "The king of Norway owned a balloon."'
    Report.citations = ()
    assert source_lines(Report)[1].startswith("About the question, p. p0: ")


def test_words_are_the_same_however_they_are_written():
    assert keys("Été 1,000 boats") == keys("ete 1000 boat")
    assert keys("٢٧") == ["27"] and keys("three") == ["3"]
    kinds = [term.kind for term in terms("Then Ida saw 3 boats.") if term.is_content]
    assert kinds == ["name", "word", "number", "word"]
