"""Which questions are about the whole: seldom missed, and hardly ever one that asks for something in the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.chat.prompt.whole_questions import asks_for_the_whole
from app.library import Document

WHOLE = """
What is this about?
Could you summarize the text for me, please?
Who wrote this?
List the chapters
Give me a short summary in 5 sentences
What topics does it cover?
What is the title of the document?
tl;dr
Worum geht es in diesem Buch?
Fasse das Dokument zusammen
De quoi parle ce livre ?
Fais-moi un résumé s'il te plaît
¿De qué trata este libro?
Riassumi il documento
Do que trata este livro?
Waar gaat dit boek over?
这本书讲什么？
この文書を要約してください
이 문서를 요약해 주세요
Summarise harbour.txt
What is harbour about?
"""
PARTS = """
What is chapter 3 about?
Who wrote the letter?
What does the author say about money?
What is the main ingredient?
How do I summarise a data frame?
Which book does Mr. Collins read aloud?
What about the giant?
And why?
Tell me more
Was ist das Thema von Kapitel 4?
Wer hat den Brief geschrieben?
Qui a écrit la lettre ?
¿De qué trata el capítulo 5?
Di cosa parla Anna?
第三章讲什么？
王様は何を書いたのですか？
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.mark.parametrize("question", lines(WHOLE))
def test_a_question_about_the_whole_is_known(question):
    document = Document("0" * 32, "harbour.txt", Path("harbour.txt"), ())
    assert asks_for_the_whole(question, [document])


@pytest.mark.parametrize("question", ["", "   ", "…", *lines(PARTS)])
def test_a_question_about_a_part_is_searched_for(question):
    assert not asks_for_the_whole(question)
