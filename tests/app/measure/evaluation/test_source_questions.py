"""Question sets beside their books: every quote is on a page, and what is planted is found where it was put."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.library import read_document
from app.measure.evaluation.source_questions import holds, plant_facts, written_questions
from app.measure.evaluation.sources import measure_sources
from app.measure.sample_text import BOOKS
from app.settings import AppSettings


@pytest.fixture(scope="module")
def novel():
    return read_document(BOOKS / "pride-and-prejudice-volume-1.txt")


def test_every_written_question_has_its_page(novel):
    for document in (novel, read_document(BOOKS / "the-happy-prince.pdf")):
        questions = written_questions(document)
        assert len(questions) == 40 and sum(one.is_held_out for one in questions) == 20
        assert all(len(one.pages) == 1 and one.unsupported for one in questions)
    assert novel.page_count > 100


def test_planted_facts_are_on_their_pages_and_what_is_false_is_nowhere(novel):
    document, questions = plant_facts(novel, 14, seed=3)
    text = "\n".join(page.text for page in document.document_pages)
    assert document.document_id != novel.document_id
    for question in questions:
        assert holds(document.document_pages[question.pages[0]].text, question.quote)
        assert not any(holds(text, sentence) for sentence in question.unsupported)
    assert plant_facts(novel, 14, seed=3)[1] == questions


def test_the_text_alone_is_measured_without_a_model(tmp_path):
    settings = AppSettings(data_dir=Path(tmp_path))
    result = measure_sources(settings, texts=[], budgets=[], trials=7, seed=0, reads_text=False)
    rows = [row for row in result["rows"] if row["signal"] == "text"]
    assert len(rows) == 4
    for row in rows:
        assert row["top_1"] >= 0.8 and row["top_3"] >= 0.95
        assert row["false_support"] <= 0.15 and row["unsupported_found"] >= 0.85
