"""Which questions each evaluation asks: chooses the haystacks, the tasks and the room for the answer.

Knows tokenizers, not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.measure.evaluation.longbench import build_longbench_questions
from app.measure.evaluation.needles import NEEDLE_TASKS, build_needle_questions
from app.measure.evaluation.passkey import build_passkey_questions
from app.measure.evaluation.planted_facts import build_planted_questions
from app.measure.evaluation.question import CountTokens, Haystack, LongQuestion
from app.measure.sample_text import read_text

# Tokens of a window kept free for the longest answer of each evaluation.
PASSKEY_ANSWER_TOKENS = 16
NEEDLES_ANSWER_TOKENS = 96
QA_ANSWER_TOKENS = 32
LONGBENCH_ANSWER_TOKENS = 128


def passkey_questions(length: int, tokenizer: Any, text: Path | None, trials: int, seed: int) -> list[LongQuestion]:
    """Pass keys in filler and in a real text, `trials` each."""
    count_tokens = _counter(tokenizer)
    return [
        question
        for haystack in (Haystack.filler(), _book(text))
        for question in build_passkey_questions(haystack, length - PASSKEY_ANSWER_TOKENS, trials, seed, count_tokens)
    ]


def needle_questions(
    length: int, tokenizer: Any, text: Path | None, trials: int, seed: int, tasks: Sequence[str]
) -> list[LongQuestion]:
    """Needles in a real text, `trials` of each of `tasks` (none: of all)."""
    return build_needle_questions(
        tasks or list(NEEDLE_TASKS), _book(text), length - NEEDLES_ANSWER_TOKENS, trials, seed, _counter(tokenizer)
    )


def planted_questions(length: int, tokenizer: Any, text: Path | None, trials: int, seed: int) -> list[LongQuestion]:
    """Invented facts planted in a real text, `trials` of them."""
    return build_planted_questions(_book(text), length - QA_ANSWER_TOKENS, trials, seed, _counter(tokenizer))


def longbench_questions(
    length: int, tokenizer: Any, folder: Path, trials: int, tasks: Sequence[str]
) -> list[LongQuestion]:
    """The first `trials` questions of each of `tasks` (none: of all sets found) in a LongBench folder."""

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return build_longbench_questions(
        folder,
        length - LONGBENCH_ANSWER_TOKENS,
        encode,
        tokenizer.decode,
        names=tasks or None,
        questions_per_set=trials,
    )


def _book(text: Path | None) -> Haystack:
    return Haystack.from_text(*read_text(text))


def _counter(tokenizer: Any) -> CountTokens:
    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count_tokens
