"""Whether the sources that stand beside answers are right: the page, the support, and what the model read.

The reference answers are fed to the model, so that the sources are measured and not what the model knows. Text and
reads are told apart: the text is searched over the whole document; the reads are of the pages that fit the window, with
dense attention looked at as the app does after each answer, and, for each budget, the pages that Quest selects, as the
app does while an answer is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from app.chat.answers.reads.answer_reads import ReadBaselines
from app.chat.answers.reads.page_heat import SelectedTokens, SelectionLevels, placed_pages
from app.chat.prompt.plan import DEFAULT_SYSTEM_PROMPT, PromptPlan, PromptPlanner
from app.chat.prompt.template import ChatTokenizer
from app.errors import UserFacingError
from app.evidence.document_search import DocumentSearch, PageKey
from app.evidence.passage_index import PassageIndex
from app.evidence.question_passages import find_passages
from app.evidence.support import AnswerSupport, support_answer
from app.library import Document, read_document
from app.measure.evaluation.source_questions import SourceQuestion, holds, plant_facts, written_questions
from app.measure.machine import describe_machine
from app.measure.policies.rivals import engine_config, open_session
from app.measure.sample_text import BOOKS
from app.settings import AppSettings
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.engine import Cancellation, Engine
from quest_core.session import Session

_ROOM_TOKENS = 256
_OWN_ANSWER_TOKENS = 64
# For both signals together: text scores that differ by no more do not tell two passages apart.
_ALIKE = 0.02
_DENSE = QuestConfig(attention="dense")


@dataclass
class _Case:
    """Questions about one document, and what was found for each."""

    name: str
    kind: str
    document: Document
    search: DocumentSearch
    questions: list[SourceQuestion]
    support: list[AnswerSupport] = field(default_factory=list)
    # By token budget, None for dense: by question number, the read scores of the pages in context.
    reads: dict[int | None, dict[int, Mapping[PageKey, float]]] = field(default_factory=dict)
    own_answers: list[dict[str, Any]] = field(default_factory=list)


def measure_sources(
    settings: AppSettings,
    *,
    texts: Sequence[Path],
    budgets: Sequence[int],
    trials: int,
    seed: int,
    reads_text: bool = True,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure the sources of questions about texts.

    Args:
        settings: which model; `context_tokens` is the window, 8,192 by default.
        texts: the documents; none takes the books that question sets were written for.
        budgets: of which the selected pages are measured.
        trials: facts planted in each text.
        seed: of what is planted.
        reads_text: whether the model reads; without, the text alone is measured, in seconds.
        on_progress: told of each step.

    Returns:
        `rows` (text; kind, "written" or "planted"; signal; token_budget, None for dense or where it does not matter;
        questions; top_1 and top_3, the share with the right document page first and among the first three; chance, what
        guessing among the pages looked at would give top_1; supported_found, the share of right answers that are cited;
        unsupported_found, the share of the sentences that the document does not hold which are marked as unsupported;
        false_support, the share of them that are cited), `passages` (text, kind, questions, page_in_3 and
        passage_in_3), `own_answers` (text, token_budget, sentences, cited, unsupported; of the model's own answers) and
        `machine`. Of the written questions only those that are held out.

    Raises:
        UserFacingError: if a text cannot be read, or has no questions and too few pages to plant facts in.
    """
    cases = []
    for path in texts or _books():
        on_progress(f"reading {path.name}")
        cases += _cases(read_document(path), trials, seed)
    for case in cases:
        case.support = [support_answer(case.search, one.question, one.answer) for one in case.questions]
    machine = describe_machine(torch.device("cpu"))
    model = ""
    if reads_text:
        engine = Engine.load(settings.model, engine_config(settings, settings.context_tokens), on_progress)
        model, machine = engine.model_name, describe_machine(engine.device)
        try:
            reader = _Reader(settings, engine, budgets, on_progress)
            list(engine.submit(lambda cancellation: reader.work(cases, cancellation)))
        finally:
            engine.close()
    return {
        "evaluation": "sources",
        "model": model,
        "seed": seed,
        "machine": machine,
        "rows": [row for case in cases for row in _rows(case)],
        "passages": [_passages_row(case) for case in cases],
        "own_answers": [row for case in cases for row in _own_rows(case)],
    }


def _books() -> list[Path]:
    return sorted(path for path in BOOKS.iterdir() if path.suffix in (".pdf", ".txt"))


def _cases(document: Document, trials: int, seed: int) -> Iterator[_Case]:
    name = Path(document.name).stem
    written = written_questions(document)
    if written:
        yield _Case(name, "written", document, DocumentSearch([(document, PassageIndex(document))]), written)
    if trials:
        planted, questions = plant_facts(document, trials, seed)
        yield _Case(name, "planted", planted, DocumentSearch([(planted, PassageIndex(planted))]), questions)


class _Reader:
    """Feeds the reference answers to the model, and notes which pages it looked at."""

    def __init__(
        self, settings: AppSettings, engine: Engine, budgets: Sequence[int], on_progress: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._selection = settings.selection
        self._tokenizer = ChatTokenizer(engine.model_folder)
        self._planner = PromptPlanner(self._tokenizer, engine.context_tokens)
        self._baselines = ReadBaselines(lambda text: self._tokenizer.encode(text).token_ids)
        self._levels = SelectionLevels(lambda text: self._tokenizer.encode(text).token_ids, engine.page_size)
        self._quests = [QuestConfig(token_budget=budget, dense_layers=settings.dense_layers) for budget in budgets]
        self._on_progress = on_progress

    def work(self, cases: Sequence[_Case], cancellation: Cancellation) -> Iterator[None]:
        session = open_session(self._engine, self._selection)
        for case in cases:
            document = self._fitting(case.document)
            asked = [
                number
                for number, one in enumerate(case.questions)
                if one.is_held_out and max(one.pages) < document.page_count
            ]
            for count, number in enumerate(asked):
                self._on_progress(f"{case.name}, {case.kind}: question {count + 1} of {len(asked)}")
                self._read(session, case, document, number, cancellation)
                yield

    def _fitting(self, document: Document) -> Document:
        """The document's first pages, as many as fit the window with a question and an answer."""
        left, kept = self._engine.context_tokens - _ROOM_TOKENS - 256, []
        for page in document.document_pages:
            left -= self._tokenizer.count(page.text) + 4
            if left < 0:
                break
            kept.append(page)
        return replace(document, document_pages=tuple(kept))

    def _read(
        self,
        session: Session,
        case: _Case,
        document: Document,
        number: int,
        cancellation: Cancellation,
    ) -> None:
        question = case.questions[number]
        plan = self._planner.plan([document], [], question.question, DEFAULT_SYSTEM_PROMPT, _ROOM_TOKENS)
        for _ in session.prefill(plan.token_ids, cancellation, _ROOM_TOKENS):
            pass
        answer = list(self._tokenizer.encode(question.answer).token_ids)
        reads = self._baselines.watch(session, plan, len(plan.token_ids), answer, cancellation, most_s=600.0)
        if reads is not None:
            case.reads.setdefault(None, {})[number] = reads.scores()
        for quest in self._quests:
            heat = self._heat(session, plan, answer, quest, cancellation)
            if heat:
                case.reads.setdefault(quest.token_budget, {})[number] = heat
        if case.kind == "written" and document.page_count == case.document.page_count:
            self._answer(session, case, question, cancellation)

    def _heat(
        self, session: Session, plan: PromptPlan, token_ids: list[int], quest: QuestConfig, cancellation: Cancellation
    ) -> Mapping[PageKey, float]:
        """How many times as much as usual an answer's steps select of each page, as the app shows it meanwhile."""
        pages = placed_pages(plan)
        usual = self._levels.usual(session, plan, quest, cancellation, most_s=600.0)
        if usual is None:
            return {}
        selected = SelectedTokens(pages, self._engine.page_size)
        fork = session.fork()
        try:
            for token in fork.score(token_ids, quest, cancellation):
                if token.reads is not None:
                    selected.add(token.reads)
        finally:
            fork.close()
        keys = [(page.document.document_id, page.page_index) for page in pages]
        return dict(zip(keys, selected.factors(usual), strict=True))

    def _answer(self, session: Session, case: _Case, question: SourceQuestion, cancellation: Cancellation) -> None:
        sampling = SamplingConfig(
            max_new_tokens=_OWN_ANSWER_TOKENS,
            stop_token_ids=tuple({*self._tokenizer.stop_token_ids, *self._engine.model_config.eos_token_ids}),
        )
        quest = self._quests[-1] if self._quests else _DENSE
        fork = session.fork()
        try:
            steps = list(fork.decode(quest, sampling, cancellation, trace_reads=False))
        finally:
            fork.close()
        ended = bool(steps) and steps[-1].finish_reason == "stop"
        text = self._tokenizer.decode([step.token_id for step in steps[: -1 if ended else None]]).strip()
        citations, unsupported = support_answer(case.search, question.question, text, ended).citations()
        case.own_answers.append(
            {
                "question": question.question,
                "answer": text,
                "cited_pages": [citation.page_index for citation in citations],
                "right_pages": list(question.pages),
                "unsupported": len(unsupported),
            }
        )


def _rows(case: _Case) -> Iterator[dict[str, Any]]:
    held_out = [number for number, one in enumerate(case.questions) if one.is_held_out]
    by_text = {number: _pages_by_text(case.support[number], {}) for number in held_out}
    verdicts = _verdicts(case, held_out)
    yield _row(case, "text", None, by_text, case.document.page_count) | verdicts
    for budget, scores in case.reads.items():
        by_reads = {number: _pages_by_reads(one) for number, one in scores.items()}
        in_context = len(next(iter(scores.values())))
        yield _row(case, "reads", budget, by_reads, in_context)
        both = {number: _pages_by_text(case.support[number], one) for number, one in scores.items()}
        yield _row(case, "both", budget, both, case.document.page_count) | verdicts
        # The text's rank over the very same questions.
        if len(scores) < len(held_out):
            same = {number: by_text[number] for number in scores}
            yield _row(case, "text, same questions", budget, same, case.document.page_count)


def _row(case: _Case, signal: str, budget: int | None, pages: Mapping[int, list[int]], choices: int) -> dict[str, Any]:
    pairs = [(case.questions[number].pages, found) for number, found in pages.items()]
    return {
        "text": case.name,
        "kind": case.kind,
        "signal": signal,
        "token_budget": budget,
        "questions": len(pages),
        "top_1": _share(any(page in wanted for page in found[:1]) for wanted, found in pairs),
        "top_3": _share(any(page in wanted for page in found[:3]) for wanted, found in pairs),
        "chance": 1.0 / choices,
        "supported_found": None,
        "unsupported_found": None,
        "false_support": None,
    }


def _share(outcomes: Iterator[bool]) -> float | None:
    outcomes = list(outcomes)
    return fmean(outcomes) if outcomes else None


def _pages_by_text(support: AnswerSupport, read_scores: Mapping[PageKey, float]) -> list[int]:
    candidates = support.sentences[0].candidates if support.sentences else ()
    if candidates and read_scores:
        # The text first, and where it hardly decides, what was read most.
        alike = [one for one in candidates if one[0] >= candidates[0][0] - _ALIKE]
        alike.sort(key=lambda one: -read_scores.get(one[1].page_key, 0.0))
        candidates = (*alike, *candidates[len(alike) :])
    return list(dict.fromkeys(found.passage.page_index for _, found in candidates))


def _pages_by_reads(scores: Mapping[PageKey, float]) -> list[int]:
    return [page for _, page in sorted(scores, key=lambda key: -scores[key])]


def _verdicts(case: _Case, numbers: Sequence[int]) -> dict[str, float]:
    cited = [bool(case.support[number].citations()[0]) for number in numbers]
    wrong = [
        support_answer(case.search, case.questions[number].question, sentence).citations()
        for number in numbers
        for sentence in case.questions[number].unsupported
    ]
    return {
        "supported_found": _share(iter(cited)),
        "unsupported_found": _share(bool(unsupported) for _, unsupported in wrong),
        "false_support": _share(bool(citations) for citations, _ in wrong),
    }


def _passages_row(case: _Case) -> dict[str, Any]:
    asked = [one for one in case.questions if one.is_held_out]
    pairs = [(one, find_passages(case.search, one.question)) for one in asked]
    return {
        "text": case.name,
        "kind": case.kind,
        "questions": len(asked),
        "page_in_3": _share(any(p.page_index in one.pages for p in three) for one, three in pairs),
        "passage_in_3": _share(any(holds(p.text, one.quote) for p in three) for one, three in pairs),
    }


def _own_rows(case: _Case) -> Iterator[dict[str, Any]]:
    if case.own_answers:
        cited = [page for one in case.own_answers for page in one["cited_pages"]]
        yield {
            "text": case.name,
            "answers": len(case.own_answers),
            "cited_sentences": len(cited),
            "unsupported_sentences": sum(one["unsupported"] for one in case.own_answers),
            "each": case.own_answers,
        }


def texts_of(text: Path | None) -> list[Path]:
    """The texts that `--text` names; none for the books with questions of their own.

    Raises:
        UserFacingError: if there is no such file.
    """
    if text is not None and not text.is_file():
        raise UserFacingError(f'There is no file "{text}".')
    return [] if text is None else [text]
