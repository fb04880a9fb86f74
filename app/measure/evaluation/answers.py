"""Answers to long questions with the selected pages only, against dense ones.

The context is prefilled dense; the question's tokens are then fed one by one through decoding, and the answer is drawn
greedily, as in the paper's passkey experiment (arXiv 2406.10774, section 4.2). The same prefill serves every budget.
Knows nothing of how questions are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from app.measure.evaluation.question import LongQuestion
from app.measure.evaluation.scoring import contains_score, exact_match, token_f1
from app.measure.machine import describe_machine
from app.measure.policies.rivals import engine_config, open_session
from app.settings import AppSettings
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.engine import Cancellation, Engine
from quest_core.session import Session

DENSE = QuestConfig(attention="dense")
# A completion goes on after its answer; what is compared with the reference ends where the answer does.
ANSWER_END = re.compile(r"\n|[.!?](?=\s|$)")

# Makes the questions whose prompt and answer fit a window, given a function that counts tokens.
BuildQuestions = Callable[[int, Any], list[LongQuestion]]


@dataclass(frozen=True)
class Answer:
    """What the model said to one question, and how right it is, from 0.0 to 1.0 each."""

    text: str
    accuracy: float
    exact: float
    f1: float


def measure_answers(
    settings: AppSettings,
    *,
    evaluation: str,
    build_questions: BuildQuestions,
    lengths: Sequence[int],
    settings_of_quest: list[QuestConfig],
    seed: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Ask every question dense and with each of `settings_of_quest`.

    The engine is loaded anew for each of `lengths`, so that a window longer than the model's is stretched no further
    than that length needs.

    Returns:
        `rows` (task, selection, page_size, dense_layers, token_budget, context_tokens, trials; accuracy, exact, f1 and
        the same of dense; accuracy_where_dense_is_right, None where it never is; agreement, the share of answers that
        are dense's word for word), `answers` (each of them) and `machine`.
    """
    rows, answers = [], []
    for length in lengths:
        engine = Engine.load(settings.model, engine_config(settings, length), on_progress)

        def work(
            cancellation: Cancellation, engine: Engine = engine, length: int = length
        ) -> Iterator[tuple[LongQuestion, list[Answer]]]:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(engine.model_folder)
            session = open_session(engine, settings.selection)
            questions = build_questions(length, tokenizer)
            for index, question in enumerate(questions):
                on_progress(f"{length} tokens, question {index + 1} of {len(questions)}: {question.task}")
                yield question, list(_ask(session, tokenizer, question, [DENSE, *settings_of_quest], cancellation))

        try:
            asked = list(engine.submit(work))
        finally:
            engine.close()
        for question, (dense, *sparse) in asked:
            for quest, answer in zip(settings_of_quest, sparse, strict=True):
                answers.append(_describe(question, quest, length, answer, dense))
        rows += _summarise(asked, settings, engine.page_size, length, settings_of_quest)
    return {
        "evaluation": evaluation,
        "model": engine.model_name,
        "seed": seed,
        "machine": describe_machine(engine.device),
        "rows": rows,
        "answers": answers,
    }


def _ask(
    session: Session,
    tokenizer: Any,
    question: LongQuestion,
    settings_of_quest: list[QuestConfig],
    cancellation: Cancellation,
) -> Iterator[Answer]:
    context, asked = _split_prompt(tokenizer, question)
    for _ in session.prefill(context, cancellation, len(asked) + question.max_new_tokens):
        pass
    sampling = SamplingConfig(max_new_tokens=question.max_new_tokens, stop_token_ids=_stop_token_ids(tokenizer))
    for quest in settings_of_quest:
        fork = session.fork()
        for _ in fork.score(asked, quest, cancellation):
            pass
        drawn = [step.token_id for step in fork.decode(quest, sampling, cancellation)]
        fork.close()
        text = tokenizer.decode(drawn, skip_special_tokens=True).strip()
        short = ANSWER_END.split(text, maxsplit=1)[0]
        yield Answer(
            text,
            contains_score(text, question),
            exact_match(short, question.answers),
            token_f1(short, question.answers),
        )


def _split_prompt(tokenizer: Any, question: LongQuestion) -> tuple[list[int], list[int]]:
    """The prompt's token ids, up to the question and from it on; a token across the border is the question's."""
    ids = tokenizer(question.prompt, add_special_tokens=False, return_offsets_mapping=True)
    question_starts_at = len(question.prompt) - len(question.question)
    border = next(index for index, (_, end) in enumerate(ids["offset_mapping"]) if end > question_starts_at)
    return ids["input_ids"][:border], ids["input_ids"][border:]


def _stop_token_ids(tokenizer: Any) -> tuple[int, ...]:
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)


def _summarise(
    asked: list[tuple[LongQuestion, list[Answer]]],
    settings: AppSettings,
    page_size: int,
    length: int,
    settings_of_quest: list[QuestConfig],
) -> Iterator[dict[str, Any]]:
    for task in dict.fromkeys(question.task for question, _ in asked):
        of_task = [answers for question, answers in asked if question.task == task]
        for index, quest in enumerate(settings_of_quest, start=1):
            pairs = [(answers[index], answers[0]) for answers in of_task]
            right = [sparse.accuracy for sparse, dense in pairs if dense.accuracy == 1.0]
            yield {
                "task": task,
                "selection": settings.selection,
                "page_size": page_size,
                "dense_layers": quest.dense_layers,
                "token_budget": quest.token_budget,
                "context_tokens": length,
                "trials": len(pairs),
                "accuracy": fmean(sparse.accuracy for sparse, _ in pairs),
                "dense_accuracy": fmean(dense.accuracy for _, dense in pairs),
                "accuracy_where_dense_is_right": fmean(right) if right else None,
                "exact": fmean(sparse.exact for sparse, _ in pairs),
                "dense_exact": fmean(dense.exact for _, dense in pairs),
                "f1": fmean(sparse.f1 for sparse, _ in pairs),
                "dense_f1": fmean(dense.f1 for _, dense in pairs),
                "agreement": fmean(sparse.text == dense.text for sparse, dense in pairs),
            }


def _describe(question: LongQuestion, quest: QuestConfig, length: int, answer: Answer, dense: Answer) -> dict[str, Any]:
    return {
        "task": question.task,
        "context_tokens": length,
        "token_budget": quest.token_budget,
        "depth": question.depth,
        "expected": list(question.answers),
        "answer": answer.text,
        "dense_answer": dense.text,
        "accuracy": answer.accuracy,
        "dense_accuracy": dense.accuracy,
    }
