"""Scores at their edges."""

from __future__ import annotations

import pytest

from app.measure.evaluation.question import LongQuestion
from app.measure.evaluation.scoring import contains_score, exact_match, token_f1


def make_question(*answers: str, needs: str = "all") -> LongQuestion:
    return LongQuestion("task", "", "", answers, needs, 8, None)


@pytest.mark.parametrize(
    ("answer", "needs", "score"),
    [
        ("48213 and ida  MARROW.", "all", 1.0),
        ("It was Ida\nMarrow", "all", 0.5),
        ("It was Ida\nMarrow", "any", 1.0),
        ("148213, or 482130; idamarrow", "all", 0.0),
        ("148213, or 482130; idamarrow", "any", 0.0),
        ("", "any", 0.0),
        ("", "all", 0.0),
    ],
)
def test_contained_answers_are_counted(answer, needs, score):
    assert contains_score(answer, make_question("48213", "Ida Marrow", needs=needs)) == score


def test_an_answer_with_signs_is_searched_as_it_is():
    assert contains_score("about 3.5 (net)", make_question("3.5 (net)")) == 1.0
    assert contains_score("about 345 net", make_question("3.5 (net)")) == 0.0


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("The Grey Heron!", ("a grey heron",), 1.0),
        ("grey", ("a grey heron", "Grey."), 1.0),
        ("grey herons", ("grey heron",), 0.0),
        ("", ("grey heron",), 0.0),
        ("the", ("a",), 1.0),
    ],
)
def test_exact_match_forgives_case_punctuation_and_articles(answer, references, score):
    assert exact_match(answer, references) == score


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("the grey heron", ("Grey Heron.",), 1.0),
        ("a grey heron by the lake", ("grey heron",), 2 * (2 / 4) * 1.0 / (2 / 4 + 1.0)),
        ("grey grey", ("grey heron",), 0.5),
        ("lake", ("grey heron", "the lake"), 1.0),
        ("sea", ("grey heron", "the lake"), 0.0),
        ("", ("grey heron",), 0.0),
        ("", ("the",), 1.0),
    ],
)
def test_f1_is_the_best_over_the_references(answer, references, score):
    assert token_f1(answer, references) == pytest.approx(score)
