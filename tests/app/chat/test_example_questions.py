"""Example questions come from the document: its headings, its first lines, its language, or there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.chat.example_questions import example_questions
from app.library import Document, DocumentPage

PARAGRAPH = "The river had frozen over in the night, and the ferry lay fast between its two piers on the shore. "


def document(*texts: str, labels: tuple[str, ...] = ()) -> Document:
    pages = tuple(
        DocumentPage(index, labels[index] if labels else str(index + 1), text) for index, text in enumerate(texts)
    )
    return Document("id", "file.pdf", Path("file.pdf"), pages)


def test_a_report_is_asked_about_its_sections():
    questions = example_questions(
        [
            document(
                "Annual Report\nHarbour Office, Pier 3\n2024",
                f"Contents\n1 Introduction ... 1\n2 The ferry in winter ... 4\n1 Introduction\n{PARAGRAPH}",
                f"2 The ferry in winter\n{PARAGRAPH}\n2.1 Costs of the ice\n{PARAGRAPH}",
                f"REFERENCES\n{PARAGRAPH}",
            )
        ]
    )
    assert questions == (
        "What is this document about?",
        "What is “The ferry in winter” about?",
        "Sum up “Costs of the ice” in three sentences.",
    )


def test_a_novel_is_asked_about_a_chapter_and_its_first_sentence_not_what_somebody_says():
    first = "It was known to all of the village that the keeper of the light had never once come down to the shore."
    speech = '"Is he married?"'
    questions = example_questions(
        [document(f"Chapter 1\n\n{first}\n\n{speech}\n\n{PARAGRAPH}", f"Chapter 2\n\n{PARAGRAPH}")]
    )
    assert questions == (
        "What is this document about?",
        "What is Chapter 1 about?",
        f"What is meant by “{first.rstrip('.')}”?",
    )


def test_slides_and_books_are_asked_about_what_their_pages_are_called():
    slides = document(*[PARAGRAPH] * 4, labels=("1. Agenda", "2. The Ferry", "3. The Ice", "4. What We Do Next Year"))
    assert example_questions([slides])[1:] == (
        "What is “The Ferry” about?",
        "Sum up “The Ice” in three sentences.",
    )


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Der Fluss war in der Nacht zugefroren, und die Fähre lag fest zwischen den Pfeilern im Eis.",
         "Worum geht es in „Der Winter“?"),
        ("La rivière avait gelé dans la nuit, et le bac était pris entre les deux piles que personne ne voyait plus.",
         "De quoi parle «\u00a0Der Winter\u00a0» ?"),
        ("El río se había helado en la noche, y la barca estaba presa entre los dos muelles de la orilla.",
         "¿De qué trata «Der Winter»?"),
    ],
)  # fmt: skip
def test_questions_are_in_the_language_of_the_text(text, first):
    assert example_questions([document(f"1 Der Winter\n{text}")])[1] == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2 3 4 5 6 7\n8 9 10 11",
        "Floden hade frusit till under natten, och färjan låg fast mellan sina två bryggor som ingen längre kunde se.",
        "Rzeka zamarzła w nocy, a prom utknął między dwoma przystaniami, których nikt już nie widział z brzegu rzeki.",
        "川は夜のうちに凍りつき、渡し船は二つの桟橋の間で動けなくなっていた。" * 4,
    ],
)
def test_there_are_none_where_the_language_is_not_known(text):
    assert example_questions([document(f"1 Zima\n{text}")]) == ()
    assert example_questions([]) == ()


def test_each_of_several_documents_gets_its_turn_and_nothing_strange_is_quoted():
    odd = f"1 <img src=x onerror=alert(1)>\n{PARAGRAPH}\n2 $x$ and `code`\n{PARAGRAPH}\n3 A “fine” day\n{PARAGRAPH}"
    one, other = document(odd), document(f"1 The Market\n{PARAGRAPH}")
    questions = example_questions([one, other])
    assert questions[:2] == ("What is “A ‘fine’ day” about?", "What is “The Market” about?")
    assert not any(sign in " ".join(questions) for sign in "<$`")
