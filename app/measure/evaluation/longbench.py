"""LongBench's question answering sets, read from a folder on disk (arXiv 2308.14508; LongBench-E: its section 3.4).

The files are those of the published archive: one JSON object a line, `qasper.jsonl` or, for LongBench-E,
`qasper_e.jsonl`. The wording of the prompts is ours; the number of answer tokens and the truncation in the middle are
LongBench's. Only sets scored by F1 over words are read. Nothing here knows a model, or how answers are scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from app.measure.evaluation.question import LongQuestion, join_prompt

SHORT_ANSWER = "Answer in a few words, without an explanation."


@dataclass(frozen=True)
class LongBenchSet:
    """How one set is asked: what comes before its context, the question after it, and the length of an answer."""

    introduction: str
    question: str
    max_new_tokens: int


SEVERAL_PASSAGES = LongBenchSet(
    "The passages below hold the answer to the question that follows them; it may take more than one to find it.",
    f"{SHORT_ANSWER} Question: {{input}} Answer:",
    32,
)
LONGBENCH_SETS = {
    "qasper": LongBenchSet(
        "Below is a scientific article, and then a question about it.",
        "Answer from the article, in as few words as possible. Where it gives none, write unanswerable; to a yes or "
        "no question write yes or no. Question: {input} Answer:",
        128,
    ),
    "multifieldqa_en": LongBenchSet(
        "Below is a text, and then a question about it.", f"{SHORT_ANSWER} Question: {{input}} Answer:", 64
    ),
    "narrativeqa": LongBenchSet(
        "Below is a story or a script, and then a question about it.",
        f"{SHORT_ANSWER} Question: {{input}} Answer:",
        128,
    ),
    "hotpotqa": SEVERAL_PASSAGES,
    "2wikimqa": SEVERAL_PASSAGES,
    "musique": SEVERAL_PASSAGES,
    # Its input is a passage, a question and "Answer:", like each of the examples in its context.
    "triviaqa": LongBenchSet("Below are passages with a question and its short answer each.", "{input}", 32),
}


def build_longbench_questions(
    folder: Path,
    context_tokens: int,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
    names: Sequence[str] | None = None,
    questions_per_set: int | None = None,
) -> list[LongQuestion]:
    """The questions of the sets in `folder`, in the order of `LONGBENCH_SETS`.

    Args:
        folder: with the `*.jsonl` files.
        context_tokens: the most that a context and its question count together; longer contexts lose their middle.
        encode: a string's token ids, special ones left out.
        decode: the string of token ids.
        names: files to read, without `.jsonl`; None reads every known one.
        questions_per_set: the first ones of each file; None takes all.

    Raises:
        UserFacingError: if the folder or its files are missing or unreadable, or the window is too small.
    """
    expected = f"Expected are {', '.join(f'{base}.jsonl' for base in LONGBENCH_SETS)}, or the same with _e."
    known = [name for base in LONGBENCH_SETS for name in (base, f"{base}_e")]
    found = [name for name in known if (folder / f"{name}.jsonl").is_file()]
    if not found:
        raise UserFacingError(f"There is no LongBench file that can be asked in {folder}. {expected}")
    for name in names or ():
        if name not in found:
            raise UserFacingError(f"There is no LongBench file {name}.jsonl that can be asked in {folder}. {expected}")
    return [
        _build_question(name, record, context_tokens, encode, decode)
        for name in names or found
        for record in islice(_read_records(folder / f"{name}.jsonl"), questions_per_set)
    ]


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                yield {"input": record["input"], "context": record["context"], "answers": tuple(record["answers"])}
            except (ValueError, KeyError, TypeError) as error:
                raise UserFacingError(
                    f"Line {number} of {path} is no LongBench record: a JSON object with input, context and answers. "
                    "Fetch the file again."
                ) from error


def _build_question(
    name: str,
    record: dict[str, Any],
    context_tokens: int,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
) -> LongQuestion:
    asked = LONGBENCH_SETS[name.removesuffix("_e")]
    question = asked.question.format(input=record["input"])

    def introduce(text: str) -> str:
        return f"{asked.introduction}\n\n{text}"

    def count_prompt(text: str) -> int:
        return len(encode(join_prompt(introduce(text), question)))

    text = record["context"]
    kept_tokens = context_tokens - count_prompt("")
    ids = encode(text)
    # Once is not always enough: what is decoded may encode to more tokens, at the cut or around it.
    while count_prompt(text) > context_tokens:
        if kept_tokens <= 0:
            raise UserFacingError(
                f"A window of {context_tokens} tokens is too small for a question of {name}. "
                "Give a larger one with --context-tokens."
            )
        text = _drop_middle(ids, kept_tokens, decode)
        kept_tokens -= max(1, count_prompt(text) - context_tokens)
    return LongQuestion(
        f"longbench/{name}", introduce(text), question, record["answers"], "any", asked.max_new_tokens, None
    )


def _drop_middle(ids: list[int], kept_tokens: int, decode: Callable[[list[int]], str]) -> str:
    """The first and the last tokens: where a document says what it is about and what it found."""
    last_tokens = kept_tokens // 2
    return decode(ids[: kept_tokens - last_tokens]) + decode(ids[len(ids) - last_tokens :])
